import { once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { type WebSocket, WebSocketServer } from "ws";
import type { Lambda } from "./lambda.ts";

export interface Front {
  readonly url: string;
  stop(): Promise<void>;
}

/** https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html */
const requestBytes = 6 * 1024 * 1024;

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

const headersOf = (request: IncomingMessage): Record<string, string> =>
  Object.fromEntries(Object.entries(request.headers).map(([name, value]) => [name, [value ?? ""].flat().join(",")]));

const isText = (type: string | undefined) => type === undefined || /^text\/|json|xml|urlencoded/.test(type);

async function listen(server: ReturnType<typeof createServer>, port: number): Promise<number> {
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

/**
 * A function URL with streamed answers: https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html. The function is made
 * once the URL is known, as others are told of it.
 */
export async function openUrl(lambda: () => Lambda): Promise<Front> {
  // Without a listener for upgrades they are requests like others, as at a function URL.
  const server = createServer(async (request, response) => {
    const { pathname, search } = new URL(request.url ?? "/", "http://any");
    const body = await bodyOf(request).catch(() => undefined);
    if (body === undefined) return;
    if (body.length > requestBytes) return void response.writeHead(413).end('{"Message":"Request must be smaller"}');
    const headers = headersOf(request);
    const plain = isText(headers["content-type"]);
    const event = {
      version: "2.0",
      routeKey: "$default",
      rawPath: pathname,
      rawQueryString: search.slice(1),
      headers,
      ...(body.length > 0 && { body: body.toString(plain ? "utf8" : "base64") }),
      isBase64Encoded: body.length > 0 && !plain,
      requestContext: {
        domainName: headers.host ?? "localhost",
        http: { method: request.method, path: pathname, sourceIp: request.socket.remoteAddress ?? "" },
      },
    };
    const gone = new AbortController();
    response.once("close", () => gone.abort());
    try {
      await lambda().invoke(
        event,
        {
          head: ({ statusCode, headers: given }) => void response.writeHead(statusCode, given).flushHeaders(),
          chunk: (bytes) => void response.write(bytes),
        },
        gone.signal,
      );
      response.end();
    } catch {
      if (!response.headersSent) response.writeHead(502).end('{"Message":"Internal Server Error"}');
      else response.destroy();
    }
  });
  server.keepAliveTimeout = 60_000;
  const port = await listen(server, 0);
  return {
    url: `http://127.0.0.1:${port}`,
    async stop() {
      server.close();
      server.closeAllConnections();
    },
  };
}

/** https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html */
const messageBytes = 128 * 1024;
const frameBytes = 32 * 1024;

/** Watches the frames of a client go by, and tells of one that is larger than a gateway takes: RFC 6455, section 5.2. */
function watchFrames(raw: Duplex, tooLarge: () => void): void {
  let head = Buffer.alloc(0);
  let left = 0;
  raw.on("data", (chunk: Buffer) => {
    for (let rest = chunk; rest.length > 0; ) {
      const skipped = Math.min(left, rest.length);
      left -= skipped;
      rest = rest.subarray(skipped);
      if (rest.length === 0) return;
      head = Buffer.concat([head, rest.subarray(0, 1)]);
      rest = rest.subarray(1);
      const short = (head[1] ?? 0) & 0x7f;
      const lengthBytes = short === 127 ? 8 : short === 126 ? 2 : 0;
      // Two bytes, a longer length, the mask.
      if (head.length < 2 || head.length < 2 + lengthBytes + 4) continue;
      const size =
        lengthBytes === 8 ? Number(head.readBigUInt64BE(2)) : lengthBytes === 2 ? head.readUInt16BE(2) : short;
      if (size > frameBytes) tooLarge();
      head = Buffer.alloc(0);
      left = size;
    }
  });
}

/** What becomes of a message of a connection: its function has it; or it dies before, and the gateway says so, or nobody does. */
export type Passage = (text: string) => "given" | "failed" | "lost";

/** A WebSocket API of API Gateway: connections whose messages are invocations, and `@connections` for whoever sends to them. */
export async function openGateway(
  lambda: () => Lambda,
  passage: Passage,
): Promise<Front & { readonly endpoint: string }> {
  const connections = new Map<string, WebSocket>();
  let made = 0;
  const server = createServer(async (request, response) => {
    const id = decodeURIComponent(/^\/stage\/@connections\/([^/?]+)$/.exec(request.url ?? "")?.[1] ?? "");
    const body = await bodyOf(request).catch(() => Buffer.alloc(0));
    const socket = connections.get(id);
    const answer = (status: number, content: object = {}, type = "") =>
      response
        .writeHead(status, { "content-type": "application/json", ...(type !== "" && { "x-amzn-ErrorType": type }) })
        .end(JSON.stringify(content));
    if (!socket) return answer(410, { message: "GoneException" }, "GoneException");
    if (request.method === "DELETE") socket.close(1000);
    else if (body.length > messageBytes) return answer(413, {}, "PayloadTooLargeException");
    else if (request.method === "POST") socket.send(body.toString());
    return answer(200, { connectedAt: new Date().toISOString() });
  });
  const sockets = new WebSocketServer({ noServer: true, maxPayload: messageBytes });
  const event = (id: string, eventType: string, routeKey: string, more: object = {}) => ({
    requestContext: { connectionId: id, eventType, routeKey, requestId: `${id}-${++made}`, stage: "stage" },
    isBase64Encoded: false,
    ...more,
  });
  server.on("upgrade", async (request, raw, head) => {
    const id = `${(++made).toString(36)}${Date.now().toString(36)}=`;
    raw.on("error", () => {});
    let answer: { statusCode?: number; headers?: Record<string, string> };
    try {
      answer = (await lambda().invoke(event(id, "CONNECT", "$connect", { headers: headersOf(request) }))) as never;
    } catch {
      answer = { statusCode: 502 };
    }
    if (answer.statusCode !== 200) {
      raw.end(`HTTP/1.1 ${answer.statusCode ?? 502} Refused\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`);
      return;
    }
    // The protocol is what the function answered, not what the first one offered is.
    const chosen = answer.headers?.["Sec-WebSocket-Protocol"];
    if (chosen === undefined) delete request.headers["sec-websocket-protocol"];
    else request.headers["sec-websocket-protocol"] = chosen;
    sockets.handleUpgrade(request, raw, head, (socket) => {
      connections.set(id, socket);
      watchFrames(raw, () => socket.close(1009));
      socket.on("error", () => {});
      socket.on("message", (data) => {
        const body = data.toString();
        const fail = () => socket.send(JSON.stringify({ message: "Internal server error", connectionId: id }));
        const how = passage(body);
        if (how === "failed") fail();
        else if (how === "given")
          lambda()
            .invoke(event(id, "MESSAGE", "$default", { body }))
            .catch(fail);
      });
      socket.once("close", () => {
        connections.delete(id);
        lambda()
          .invoke(event(id, "DISCONNECT", "$disconnect"))
          .catch(() => {});
      });
    });
  });
  const port = await listen(server, 0);
  return {
    url: `ws://127.0.0.1:${port}/stage`,
    endpoint: `http://127.0.0.1:${port}/stage`,
    async stop() {
      for (const socket of connections.values()) socket.terminate();
      server.close();
      server.closeAllConnections();
    },
  };
}
