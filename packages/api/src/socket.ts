import { type IncomingMessage, STATUS_CODES } from "node:http";
import type { Duplex } from "node:stream";
import { Agent, Frames, isError, isId, jsonLimits, problemType, requestErrors, toProblem } from "@waggle/core";
import { type WebSocket, WebSocketServer } from "ws";
import { authenticate, requestIdOf, serverTiming } from "./app.ts";
import { type Connection, closeCodes, connectionLimits, type SocketOptions, serve } from "./connection.ts";
import { headerOf } from "./inbound.ts";
import { declared } from "./routes/common.ts";

export interface Sockets {
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void;
  /** Closes every connection with 1001; resolves once all are gone, by force after `graceMs`. */
  close(graceMs: number): Promise<void>;
}

/** The WebSocket edge of agents; see `agent/frame.ts` for the protocol. */
export function createSockets(app: SocketOptions): Sockets {
  const { shared, failedAuth } = app;
  const { ports } = shared;
  const server = new WebSocketServer({
    noServer: true,
    maxPayload: jsonLimits.bodyBytes,
    // A frame is small and often random; compression costs memory for each connection.
    perMessageDeflate: false,
    clientTracking: false,
    handleProtocols: (offered) => (offered.has(Frames.protocol) ? Frames.protocol : false),
  });
  server.on("wsClientError", (error, socket, request) => {
    const message = `this is no WebSocket handshake: ${error.message}`;
    refuse(
      socket,
      requestErrors.invalid(message, { errors: [{ path: "", message }] }),
      requestIdOf({ header: headerOf(request) }, ports),
      performance.now(),
    );
  });
  const accepted = new WeakMap<IncomingMessage, { readonly requestId: string; readonly started: number }>();
  server.on("headers", (lines, request) => {
    const own = accepted.get(request);
    if (own) lines.push(...ownHeaders(own.requestId, own.started));
  });
  const open = new Map<WebSocket, Connection>();

  /** All connections together have more unread than there is room for. */
  function isTight(): boolean {
    let all = 0;
    for (const { unread } of open.values()) all += unread();
    return all > connectionLimits.bufferedBytesOfAll;
  }

  function refuseWhenStopping(): void {
    if (shared.closing.aborted) throw requestErrors.notReady("the server is stopping", { retryAfterSeconds: 1 });
  }

  async function accept(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const started = performance.now();
    const header = headerOf(request);
    const requestId = requestIdOf({ header }, ports);
    const alive = () => !socket.destroyed;
    try {
      refuseWhenStopping();
      const path = (request.url ?? "").split("?", 1)[0] as string;
      const id = /^\/v1\/agents\/([^/]+)\/connect$/.exec(path)?.[1];
      if (id === undefined) throw requestErrors.notFound(`there is no WebSocket at ${path.slice(0, 200)}`);
      const { bearer } = Frames.readHandshake(header);
      const from = { header, remoteAddress: request.socket.remoteAddress ?? "" };
      const scope = await authenticate(["agent"], bearer, from, requestId, { options: { ports }, failedAuth });
      if (!isId("agt", id) || id !== scope.actor.id)
        throw declared("agent.not_found")(`there is no agent ${id.slice(0, 64)}`);
      await Agent.seen(scope, id);
      await ports.store.settled();
      // One that joined now would be told of no stop, and hold it up.
      refuseWhenStopping();
      if (alive()) {
        accepted.set(request, { requestId, started });
        server.handleUpgrade(request, socket, head, (ws) => {
          open.set(ws, serve(ws, scope, bearer as string, app, isTight));
          ws.once("close", () => {
            open.delete(ws);
          });
        });
      }
    } catch (thrown) {
      if (!isError(thrown)) app.onError?.(thrown, requestId);
      if (alive()) refuse(socket, thrown, requestId, started);
    }
  }

  return {
    upgrade: (request, socket, head) => void accept(request, socket, head),
    async close(graceMs) {
      const sockets = [...open.keys()];
      for (const ws of sockets) ws.close(closeCodes.goingAway, "the server is stopping");
      const gone = Promise.all(
        sockets.map(
          (ws) => new Promise<void>((resolve) => (open.has(ws) ? ws.once("close", () => resolve()) : resolve())),
        ),
      );
      const timer = setTimeout(() => {
        for (const ws of open.keys()) ws.terminate();
      }, graceMs);
      const ends = [...open.values()];
      await gone;
      clearTimeout(timer);
      await Promise.all(ends.map(({ ended }) => ended()));
      server.close();
    },
  };
}

const ownHeaders = (requestId: string, started: number) => [
  `X-Request-Id: ${requestId}`,
  `Server-Timing: ${serverTiming(started)}`,
];

function refuse(socket: Duplex, thrown: unknown, requestId: string, started: number): void {
  const { status, text, retryAfterSeconds } = toProblem(thrown, requestId);
  const lines = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ""}`,
    `Content-Type: ${problemType}`,
    `Content-Length: ${Buffer.byteLength(text)}`,
    ...ownHeaders(requestId, started),
    "Cache-Control: no-store",
    "Connection: close",
    ...(retryAfterSeconds === undefined ? [] : [`Retry-After: ${retryAfterSeconds}`]),
    ...(status === 401 ? ['WWW-Authenticate: Bearer realm="waggle"'] : []),
  ];
  // A peer that keeps its side open would hold up a stop.
  socket.once("finish", () => socket.destroy());
  socket.end(`${lines.join("\r\n")}\r\n\r\n${text}`);
}
