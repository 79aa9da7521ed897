import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { type WebSocket, WebSocketServer } from "ws";

export interface Frame {
  op: string;
  re?: number;
  taskId?: string;
  fence?: number;
  [member: string]: unknown;
}

export interface Peer {
  readonly url: string;
  /** Every message as it came: one frame or a list. */
  readonly messages: Frame[][];
  readonly frames: () => Frame[];
  /** Connections so far. */
  readonly connections: () => number;
  send(frame: object | object[]): void;
  assign(...tasks: { id: string; fence?: number; type?: string; input?: unknown; details?: unknown }[]): void;
  /** Breaks the connection without a word. */
  cut(): void;
  close(): Promise<void>;
}

/** The server's side of an agent's socket, driven by a test: registers anyone, answers as `reply` says. */
export async function startPeer(
  options: {
    /** What to answer to a frame; undefined leaves it unanswered. Default: ok. */
    reply?: (frame: Frame, connection: number) => object | undefined;
    leaseSeconds?: number;
    pingSeconds?: number;
    upgrade?: (connection: number) => number;
    /** What to answer to a call over HTTP, other than who the agent is. */
    call?: (path: string) => [status: number, body: object] | undefined;
    /** Said to a hello instead of the welcome. */
    refusal?: object;
    /** Where the answer to a refused upgrade points. */
    location?: string;
  } = {},
): Promise<Peer> {
  const messages: Frame[][] = [];
  let current: WebSocket | undefined;
  let connections = 0;
  let tries = 0;
  const registered = {
    agent: { id: "agt_1", name: "peer", capabilities: [], leaseSeconds: options.leaseSeconds ?? 60 },
    token: "t",
  };
  const http = createServer((request, response) => {
    const [status, body] = options.call?.(request.url ?? "") ?? [201, registered];
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  });
  const sockets = new WebSocketServer({ noServer: true, handleProtocols: () => "waggle.v1" });
  http.on("upgrade", (request, socket, head) => {
    const status = options.upgrade?.(++tries) ?? 101;
    if (status !== 101) {
      // Who is turned away may be gone before it is told.
      socket.on("error", () => {});
      const location = options.location === undefined ? "" : `location: ${options.location}\r\n`;
      socket.end(`HTTP/1.1 ${status} No\r\n${location}content-length: 0\r\nconnection: close\r\n\r\n`);
      return;
    }
    sockets.handleUpgrade(request, socket, head, (ws) => {
      const connection = ++connections;
      current = ws;
      ws.on("message", (data: Buffer) => {
        const parsed = JSON.parse(data.toString()) as Frame | Frame[];
        const frames = Array.isArray(parsed) ? parsed : [parsed];
        messages.push(frames);
        for (const frame of frames) {
          if (frame.op === "hello" && options.refusal) {
            ws.send(JSON.stringify(options.refusal));
            ws.close(1008);
            continue;
          }
          if (frame.op === "hello") {
            ws.send(
              JSON.stringify({
                op: "welcome",
                agentId: "agt_1",
                status: "ready",
                leaseSeconds: options.leaseSeconds ?? 60,
                maxConcurrency: 100,
                pingSeconds: options.pingSeconds,
              }),
            );
            continue;
          }
          const answer = options.reply
            ? options.reply(frame, connection)
            : { ok: true, commands: { cancel: [], pause: false, drain: false } };
          if (answer && frame.re !== undefined) ws.send(JSON.stringify({ op: "reply", re: frame.re, ...answer }));
        }
      });
    });
  });
  await new Promise<void>((done) => http.listen(0, "127.0.0.1", done));
  const send = (frame: object) => current?.send(JSON.stringify(frame));
  return {
    url: `http://127.0.0.1:${(http.address() as AddressInfo).port}`,
    messages,
    frames: () => messages.flat(),
    connections: () => connections,
    send,
    assign: (...tasks) =>
      send({
        op: "assign",
        assignments: tasks.map(({ id, fence = 1, type = "work", ...rest }) => ({
          task: { id, type, attempt: 1, ...rest },
          fence,
          expiresAt: "2030-01-01T00:00:00.000Z",
        })),
      }),
    cut: () => current?.terminate(),
    async close() {
      for (const socket of sockets.clients) socket.terminate();
      http.closeAllConnections();
      await new Promise((done) => http.close(done));
    },
  };
}
