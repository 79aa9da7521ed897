import {
  createServer as createHttpServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
  STATUS_CODES,
} from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { type ErrorKind, problemType, requestErrors, toProblem } from "@waggle/core";
import { type AdmissionLimits, createAdmission } from "./admission.ts";
import { type AppOptions, createApp, requestIdOf, serverTiming } from "./app.ts";
import { headerOf } from "./inbound.ts";

export interface ServerOptions extends Omit<AppOptions, "closing" | "admission"> {
  /** How much is let in at once, where it differs. */
  readonly admission?: Partial<AdmissionLimits>;
  /** `127.0.0.1` unless given. */
  readonly host?: string;
  /** Any free one unless given. */
  readonly port?: number;
}

export interface RunningServer {
  /** Without a slash at the end. */
  readonly url: string;
  /** Takes no more, finishes what runs, closes connections with 1001, then resolves; at most `graceSeconds` (10) later. */
  close(options?: { readonly graceSeconds?: number }): Promise<void>;
}

const limits = {
  /** A client may take this long to send its headers … */
  headersTimeout: 10_000,
  /** … and this long for the whole request: 1 MiB at 53 KB/s. */
  requestTimeout: 20_000,
  keepAliveTimeout: 65_000,
  connectionsCheckingInterval: 2_000,
  /** Refused by us, with a problem. */
  requireHostHeader: false,
  maxHeaderSize: 16 * 1024,
  maxHeadersCount: 100,
  maxConnections: 20_000,
} as const;

/**
 * The API on a Node HTTP server, WebSocket included.
 * @throws the system's error, e.g. `EADDRINUSE`, when it cannot listen
 * @example const server = await createServer({ ports, version: "0.1.0", port: 7700 }); await server.close()
 */
export async function createServer(options: ServerOptions): Promise<RunningServer> {
  const closing = new AbortController();
  const app = createApp({
    ...options,
    closing: closing.signal,
    admission: createAdmission(options.ports, options.admission),
  });
  const { maxHeadersCount, maxConnections, ...timeouts } = limits;
  const identify = (request?: IncomingMessage) =>
    requestIdOf({ header: request === undefined ? () => undefined : headerOf(request) }, options.ports);
  // Not loaded with this file: a function on AWS has no server of its own to listen with.
  const { getRequestListener } = await import("@hono/node-server");
  // HTTP/1.0 has no Host: load balancers look at /health that way.
  const listener = getRequestListener(app.hono.fetch, {
    hostname: "localhost",
    errorHandler: () => unreadable(identify()),
  });
  const server = createHttpServer({ ...timeouts, noDelay: true }, (request, response) =>
    request.headers.host === undefined && request.httpVersion === "1.1"
      ? answer(request, response, identify(request), 400, "Host", "expected the header Host")
      : listener(request, response),
  );
  server.maxHeadersCount = maxHeadersCount;
  server.maxConnections = maxConnections;
  server.on("clientError", (error, socket) => refuse(error, socket as Socket, identify()));
  server.on("checkExpectation", (request: IncomingMessage, response: ServerResponse) =>
    answer(request, response, identify(request), 417, "Expect", "expected 100-continue, or nothing"),
  );
  server.on("connect", (request: IncomingMessage, socket: Socket) => {
    handedOver(socket);
    hangUp(socket, identify(request), 405, requestErrors.methodNotAllowed, "this server is no proxy");
  });
  const host = options.host ?? "127.0.0.1";
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host, port: options.port ?? 0, backlog: 1024 }, () => {
      server.off("error", reject);
      resolve();
    });
  });
  // Such as no file left for one connection more: without a listener it would end the process.
  server.on("error", (error) => options.onError?.(error, identify()));
  // Loaded once the server listens: a start should not wait for it.
  const sockets = import("./socket.ts").then(({ createSockets }) =>
    createSockets({ ...app, onError: options.onError }),
  );
  server.on("upgrade", (request, socket, head) => {
    handedOver(socket as Socket);
    if (request.headers.upgrade?.toLowerCase() !== "websocket")
      return stay(server, request, socket as Socket, head, identify(request));
    void sockets.then(({ upgrade }) => upgrade(request, socket, head));
  });
  const { port } = server.address() as AddressInfo;
  let closed: Promise<void> | undefined;
  return {
    url: `http://${host.includes(":") ? `[${host}]` : host}:${port}`,
    close({ graceSeconds = 10 } = {}) {
      closed ??= shut(server, graceSeconds * 1000, () => {
        closing.abort();
        return sockets.then((edge) => edge.close(graceSeconds * 1000));
      });
      return closed;
    },
  };
}

async function shut(server: Server, graceMs: number, closeSockets: () => Promise<void>): Promise<void> {
  const ended = new Promise<void>((resolve) => server.close(() => resolve()));
  const force = setTimeout(() => server.closeAllConnections(), graceMs);
  await closeSockets();
  server.closeIdleConnections();
  // A kept-alive connection whose last answer is just being written becomes idle a moment later.
  const idle = setInterval(() => server.closeIdleConnections(), 20);
  await ended;
  clearInterval(idle);
  clearTimeout(force);
}

function problemText(requestId: string, status: number, kind: ErrorKind, path: string, message: string): string {
  const { text } = toProblem(kind(message, { errors: [{ path, message }] }), requestId);
  return JSON.stringify({ ...JSON.parse(text), status });
}

/** Of an answer that does not come from the app. */
const headersOf = (requestId: string) => ({
  "content-type": problemType,
  "x-request-id": requestId,
  "server-timing": serverTiming(performance.now()),
});

/** To a request that does not reach the app. */
function answer(
  request: IncomingMessage,
  response: ServerResponse,
  requestId: string,
  status: number,
  path: string,
  message: string,
): void {
  response.writeHead(status, { ...headersOf(requestId), connection: "close" });
  response.end(problemText(requestId, status, requestErrors.invalid, path, message));
  request.resume();
}

/** A target or a Host of which no URL can be made. */
function unreadable(requestId: string): Response {
  const message = "the request's target and its Host make no URL";
  const text = problemText(requestId, 400, requestErrors.invalid, "Host", message);
  return new Response(text, { status: 400, headers: headersOf(requestId) });
}

/**
 * To a request for another protocol, e.g. h2c, we answer as if it had not asked: https://www.rfc-editor.org/rfc/rfc9110#section-7.8.
 * Node stopped reading HTTP at its head, so it gets the head anew, without the question.
 */
function stay(server: Server, request: IncomingMessage, socket: Socket, head: Buffer, requestId: string): void {
  const answering = answeringOn(socket);
  if (answering) {
    answering.once("finish", () => setImmediate(stay, server, request, socket, head, requestId));
    return;
  }
  if (!socket.writable) return;
  // Node keeps no more than these, and what it dropped may have been the length of the body.
  if (request.rawHeaders.length >= limits.maxHeadersCount * 2) {
    hangUp(socket, requestId, 431, requestErrors.tooLarge, "too many headers");
    return;
  }
  const lines = [`${request.method} ${request.url} HTTP/${request.httpVersion}`];
  for (let at = 0; at < request.rawHeaders.length; at += 2) {
    const [name, value] = request.rawHeaders.slice(at, at + 2) as [string, string];
    if (!hopByHop.has(name.toLowerCase())) lines.push(`${name}: ${value}`);
  }
  if (/\bclose\b/i.test(request.headers.connection ?? "")) lines.push("Connection: close");
  socket.unshift(Buffer.concat([Buffer.from(`${lines.join("\r\n")}\r\n\r\n`, "latin1"), head]));
  server.emit("connection", socket);
}

const hopByHop: ReadonlySet<string> = new Set(["upgrade", "connection", "http2-settings"]);

/** The answer being written to a connection, where there is one. */
const answeringOn = (socket: Socket) =>
  (socket as Socket & { readonly _httpMessage?: ServerResponse | null })._httpMessage;

/** Of a connection that Node hands over nobody hears that it broke, which would end the process. */
function handedOver(socket: Socket): void {
  socket.on("error", () => {});
}

/** What Node's parser refuses. */
function refuse(error: NodeJS.ErrnoException, socket: Socket, requestId: string): void {
  const answering = answeringOn(socket);
  // In the midst of an answer, e.g. an event stream, another one would be taken for a part of it.
  if (!socket.writable || error.code === "ECONNRESET" || answering?.headersSent) {
    socket.destroy();
    return;
  }
  // What came before on this connection was whole, and may have been done by now: its answer comes first.
  if (answering?.req.complete) {
    answering.once("finish", () => setImmediate(refuse, error, socket, requestId));
    return;
  }
  const { status, kind } = reasons[error.code ?? ""] ?? { status: 400, kind: requestErrors.invalid };
  end(socket, requestId, status, kind, "the request is not HTTP as this server takes it");
}

/** The last answer on a connection that Node leaves to us. */
function end(socket: Socket, requestId: string, status: number, kind: ErrorKind, message: string): void {
  const text = problemText(requestId, status, kind, "", message);
  const headers = { ...headersOf(requestId), "content-length": Buffer.byteLength(text), connection: "close" };
  const lines = Object.entries(headers).map(([header, value]) => `${header}: ${value}\r\n`);
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join("")}\r\n${text}`);
}

/** The same on one that Node handed over: it ends none of these, and a peer that keeps its side open would hold up a stop. */
function hangUp(socket: Socket, requestId: string, status: number, kind: ErrorKind, message: string): void {
  socket.once("finish", () => socket.destroy());
  end(socket, requestId, status, kind, message);
}

const reasons: Readonly<Record<string, { status: number; kind: ErrorKind }>> = {
  HPE_HEADER_OVERFLOW: { status: 431, kind: requestErrors.tooLarge },
  HPE_CHUNK_EXTENSIONS_OVERFLOW: { status: 413, kind: requestErrors.tooLarge },
  ERR_HTTP_REQUEST_TIMEOUT: { status: 408, kind: requestErrors.invalid },
};
