import net from "node:net";
import tls from "node:tls";
import { type Transport, timedOut, unreachable, type WireReply, type WireRequest } from "./transport.ts";

/**
 * Short JSON calls over HTTP/1.1 connections kept open. Why not `node:http`: a client in a fresh process, as most are,
 * spends 0.3–0.4 ms of processor time a call in it, and 0.06 ms here (`npm run bench -- W1 --client both`).
 * RFC 9112, as far as a client of one origin needs it: lengths, chunks, bodies that end with the connection, 1xx.
 */
export type Wire = Pick<Transport, "send" | "close">;

const headBytes = 64 * 1024;
/** Servers of Node close idle connections after 5 s; ours go first, so that a call never meets a closing one. */
const idleMs = 4_000;
const unsafe = /[^\t\x20-\x7e\x80-\xff]/;
const blank = Buffer.from("\r\n\r\n");

interface Call {
  readonly request: WireRequest;
  readonly resolve: (reply: WireReply) => void;
  readonly reject: (error: unknown) => void;
  abort?: (() => void) | undefined;
}

/**
 * @param most connections at one time; more calls wait their turn
 * @param now the time of day in ms, which goes on while a process is frozen or its machine sleeps
 */
export function openWire(base: URL, url: string, most: number, now: () => number = Date.now): Wire {
  const secure = base.protocol === "https:";
  const host = base.hostname.replace(/^\[|\]$/g, "");
  const port = Number(base.port) || (secure ? 443 : 80);
  const prefix = base.pathname.replace(/\/$/, "");
  const idle: Connection[] = [];
  /** Of each connection that rests, since when. */
  const since = new WeakMap<Connection, number>();
  const all = new Set<Connection>();
  const queue: Call[] = [];

  function next(connection?: Connection): void {
    const call = queue.shift();
    if (call) (connection ?? connect()).begin(heedless(call));
    else if (connection) {
      connection.rest();
      since.set(connection, now());
      idle.push(connection);
    }
  }

  /** The one used last: the others grow old and close. One that should have closed while no timer ran is most likely dead. */
  function rested(): Connection | undefined {
    const last = idle.pop();
    if (last === undefined || Math.abs(now() - (since.get(last) ?? 0)) <= idleMs) return last;
    for (const old of [last, ...idle]) old.end();
    return undefined;
  }

  function connect(): Connection {
    const socket = secure
      ? tls.connect({ host, port, servername: net.isIP(host) ? "" : host, ALPNProtocols: ["http/1.1"] })
      : net.connect({ host, port });
    socket.setNoDelay(true);
    const connection = serve(socket, {
      head: (request) => head(request, `${prefix}${request.path}`, base.host),
      url,
      free: next,
      gone() {
        all.delete(connection);
        const at = idle.indexOf(connection);
        if (at >= 0) idle.splice(at, 1);
        if (queue.length > 0 && all.size < most) next();
      },
    });
    all.add(connection);
    return connection;
  }

  return {
    send: (request) =>
      new Promise((resolve, reject) => {
        const { signal } = request;
        if (signal?.aborted) return reject(signal.reason);
        const call: Call = { request, resolve, reject };
        const connection = rested();
        if (connection) connection.begin(call);
        else if (all.size < most) connect().begin(call);
        else {
          queue.push(call);
          if (!signal) return;
          call.abort = () => {
            queue.splice(queue.indexOf(call), 1);
            reject(signal.reason);
          };
          signal.addEventListener("abort", call.abort, { once: true });
        }
      }),
    close() {
      for (const call of queue.splice(0)) heedless(call).reject(unreachable(url, new Error("the client was closed")));
      for (const connection of all) connection.end();
    },
  };
}

/** What it was to do when its signal aborts it does no more; the signal may outlive it by far. */
function heedless(call: Call): Call {
  if (call.abort) call.request.signal?.removeEventListener("abort", call.abort);
  call.abort = undefined;
  return call;
}

function head(request: WireRequest, path: string, host: string): string {
  let text = `${request.method} ${path} HTTP/1.1\r\nhost: ${host}\r\n`;
  for (const name in request.headers) {
    const value = request.headers[name] as string;
    if (unsafe.test(value) || /[^\w-]/.test(name)) throw new TypeError(`the header ${name} has a character it cannot`);
    text += `${name}: ${value}\r\n`;
  }
  return text;
}

type Connection = ReturnType<typeof serve>;

interface Serving {
  readonly head: (request: WireRequest) => string;
  readonly url: string;
  free(connection: Connection): void;
  gone(): void;
}

/** One connection, one call at a time. */
function serve(socket: net.Socket, { head, url, free, gone }: Serving) {
  let call: Call | undefined;
  let reader: Reader | undefined;
  let over = false;

  const connection = {
    begin(given: Call): void {
      const { request } = given;
      try {
        const text = head(request);
        const { body } = request;
        call = given;
        reader = createReader();
        socket.ref();
        socket.setTimeout(request.timeoutMs);
        socket.write(
          body === undefined
            ? `${text}${request.method === "GET" ? "" : "content-length: 0\r\n"}\r\n`
            : `${text}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
        );
      } catch (error) {
        given.reject(error);
        socket.destroy();
        return;
      }
      if (!request.signal) return;
      given.abort = () => fail(request.signal?.reason);
      request.signal.addEventListener("abort", given.abort, { once: true });
      if (request.signal.aborted) given.abort();
    },
    /** An idle connection does not keep the process alive. */
    rest(): void {
      socket.setTimeout(idleMs);
      socket.unref();
    },
    end(): void {
      fail(unreachable(url, new Error("the client was closed")));
    },
  };

  function finish(): Call | undefined {
    const ended = call;
    call = undefined;
    return ended && heedless(ended);
  }
  function fail(error: unknown): void {
    over = true;
    finish()?.reject(error);
    socket.destroy();
    // Its socket closes in a later turn; until then nobody may take it for one that rests.
    gone();
  }
  function take(done: Done): void {
    reader = undefined;
    const ended = finish();
    over = !done.keep;
    if (over) socket.destroy();
    else free(connection);
    ended?.resolve(done.reply);
  }

  socket.on("data", (chunk: Buffer) => {
    // Nobody asked: what a server says by itself ends the connection.
    if (!reader) return fail(unreachable(url, new Error("the server spoke out of turn")));
    try {
      const done = reader.read(chunk);
      if (done) take(done);
    } catch (error) {
      fail(unreachable(url, error));
    }
  });
  socket.on("end", () => {
    const done = reader?.end();
    if (done) take(done);
    else fail(unreachable(url, Object.assign(new Error("the server closed the connection"), { code: "ECONNRESET" })));
  });
  socket.on("timeout", () => fail(timedOut(url, call?.request.timeoutMs ?? idleMs)));
  socket.on("error", (error) => fail(unreachable(url, error)));
  socket.on("close", () => {
    if (!over) fail(unreachable(url, Object.assign(new Error("the connection closed"), { code: "ECONNRESET" })));
    else gone();
  });
  return connection;
}

interface Done {
  readonly reply: WireReply;
  /** The connection may be used again. */
  readonly keep: boolean;
}
type Reader = ReturnType<typeof createReader>;

/** Reads one answer as its bytes come. Throws when it is not HTTP/1.1. */
function createReader() {
  let buffered: Buffer | undefined;
  let status = 0;
  let headers: Map<string, string> | undefined;
  /** Bytes of the body still to come; -1: chunks, -2: all until the end. */
  let left = 0;
  const parts: Buffer[] = [];

  const done = (): Done => {
    const read = headers as Map<string, string>;
    const body = parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts);
    return {
      keep: left !== -2 && !/\bclose\b/i.test(read.get("connection") ?? ""),
      reply: { status, header: (name) => read.get(name), text: body.toString("utf8") },
    };
  };

  function readHead(bytes: Buffer, end: number): void {
    const lines = bytes.toString("latin1", 0, end).split("\r\n");
    const found = /^HTTP\/1\.[01] (\d{3})(?: |$)/.exec(lines[0] as string);
    if (!found) throw new Error("the answer is not HTTP/1.1");
    status = Number(found[1]);
    headers = new Map();
    for (let i = 1; i < lines.length; i++) {
      const line = lines[i] as string;
      const colon = line.indexOf(":");
      if (colon < 1) throw new Error("the answer has a header that is none");
      const name = line.slice(0, colon).toLowerCase();
      const value = line.slice(colon + 1).trim();
      const before = headers.get(name);
      headers.set(name, before === undefined ? value : `${before}, ${value}`);
    }
    const coding = headers.get("transfer-encoding");
    const length = headers.get("content-length");
    if (status === 204 || status === 304) left = 0;
    else if (coding !== undefined) {
      if (coding.toLowerCase() !== "chunked") throw new Error(`the answer has the transfer coding ${coding}`);
      left = -1;
    } else if (length === undefined) left = -2;
    else if (/^\d{1,15}$/.test(length)) left = Number(length);
    else throw new Error("the answer has no valid length");
  }

  /** @returns whether the last chunk was among them */
  function readChunks(): boolean {
    for (;;) {
      const bytes = buffered as Buffer;
      const line = bytes.indexOf("\r\n");
      if (line < 0) {
        if (bytes.length > 1024) throw new Error("the answer has a chunk without a size");
        return false;
      }
      const size = /^([0-9a-f]{1,12})\s*(?:;.*)?$/i.exec(bytes.toString("latin1", 0, line))?.[1];
      if (size === undefined) throw new Error("the answer has a chunk without a size");
      const count = Number.parseInt(size, 16);
      if (count === 0) {
        // Trailers end with an empty line; nothing here needs them.
        const trailers = bytes.subarray(line);
        if (!trailers.subarray(0, 4).equals(blank) && trailers.indexOf(blank) < 0) return false;
        return true;
      }
      const from = line + 2;
      if (bytes.length < from + count + 2) return false;
      parts.push(bytes.subarray(from, from + count));
      buffered = bytes.subarray(from + count + 2);
    }
  }

  return {
    read(chunk: Buffer): Done | undefined {
      let bytes = buffered === undefined || buffered.length === 0 ? chunk : Buffer.concat([buffered, chunk]);
      while (headers === undefined) {
        const end = bytes.indexOf(blank);
        if (end < 0) {
          if (bytes.length > headBytes) throw new Error("the answer's head is too long");
          buffered = bytes;
          return undefined;
        }
        readHead(bytes, end);
        bytes = bytes.subarray(end + 4);
        if (status < 200) headers = undefined;
      }
      if (left === -1) {
        buffered = bytes;
        return readChunks() ? done() : undefined;
      }
      if (left === -2 || bytes.length < left) {
        parts.push(bytes);
        buffered = undefined;
        if (left > 0) left -= bytes.length;
        return undefined;
      }
      parts.push(bytes.length === left ? bytes : bytes.subarray(0, left));
      return done();
    },
    /** The connection ended: so does a body without a length. */
    end: (): Done | undefined => (left === -2 && headers !== undefined ? done() : undefined),
  };
}
