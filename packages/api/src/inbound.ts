import { isUtf8 } from "node:buffer";
import type { IncomingMessage, ServerResponse } from "node:http";
import { jsonLimits, requestErrors } from "@waggle/core";
import type { Context } from "hono";

/** A request as the pipeline needs it: read from Node's own objects where there are any, else from a web Request. */
export interface Inbound {
  readonly method: string;
  readonly path: string;
  /** After the `?`; empty when there is none. */
  readonly search: string;
  /** Name in lower case. */
  header(name: string): string | undefined;
  /** The body as text; empty when there is none. Throws `request.too_large` and, unless it is UTF-8, `request.invalid`. */
  body(): Promise<string>;
  /** Aborts when the client goes away or the server stops. Made on first use. */
  readonly signal: AbortSignal;
  readonly remoteAddress: string;
}

export type Env = {
  Bindings: { incoming?: IncomingMessage; outgoing?: ServerResponse; remoteAddress?: string };
};

export function inbound(c: Context<Env>, closing: AbortSignal): Inbound {
  const { incoming, outgoing } = c.env ?? {};
  return incoming && outgoing ? fromNode(c, incoming, outgoing, closing) : fromWeb(c);
}

const searchOf = (url: string): string => {
  const mark = url.indexOf("?");
  if (mark < 0) return "";
  const hash = url.indexOf("#", mark);
  return hash < 0 ? url.slice(mark + 1) : url.slice(mark + 1, hash);
};

const tooLarge = () =>
  requestErrors.tooLarge(`the body is larger than ${jsonLimits.bodyBytes} bytes`, {
    errors: [{ path: "", message: `at most ${jsonLimits.bodyBytes} bytes` }],
  });

function decode(bytes: Buffer): string {
  if (!isUtf8(bytes)) {
    throw requestErrors.invalid("the body is not UTF-8", { errors: [{ path: "", message: "expected UTF-8" }] });
  }
  return bytes.toString("utf8");
}

export const headerOf = (incoming: IncomingMessage) => (name: string) => {
  const value = incoming.headers[name];
  return Array.isArray(value) ? value.join(", ") : value;
};

function fromNode(c: Context<Env>, incoming: IncomingMessage, outgoing: ServerResponse, closing: AbortSignal): Inbound {
  let controller: AbortController | undefined;
  return {
    method: c.req.method,
    path: c.req.path,
    search: searchOf(incoming.url ?? ""),
    header: headerOf(incoming),
    body: () => readNode(incoming),
    get signal() {
      if (controller === undefined) {
        const made = new AbortController();
        const abort = () => made.abort();
        if (outgoing.destroyed || closing.aborted) abort();
        else {
          const off = onAbort(closing, abort);
          outgoing.once("close", () => {
            off();
            if (!outgoing.writableFinished) abort();
          });
        }
        controller = made;
      }
      return controller.signal;
    },
    remoteAddress: incoming.socket.remoteAddress ?? "",
  };
}

const listeners = new WeakMap<AbortSignal, Set<() => void>>();

/**
 * Listens to a signal that thousands of requests listen to: a signal of its own looks through all its listeners whenever one comes
 * or goes, which for 10,000 takes longer than the rest of the request.
 * @returns ends it
 */
function onAbort(signal: AbortSignal, listener: () => void): () => void {
  const all = listeners.get(signal) ?? new Set();
  if (!listeners.has(signal)) {
    listeners.set(signal, all);
    const tellAll = () => {
      for (const tell of all) tell();
    };
    signal.addEventListener("abort", tellAll, { once: true });
  }
  all.add(listener);
  return () => void all.delete(listener);
}

function readNode(incoming: IncomingMessage): Promise<string> {
  const { headers } = incoming;
  const length = headers["content-length"];
  if (length === undefined && headers["transfer-encoding"] === undefined) return Promise.resolve("");
  if (Number(length) > jsonLimits.bodyBytes) return Promise.reject(tooLarge());
  return new Promise((resolve, reject) => {
    let first: Buffer | undefined;
    let rest: Buffer[] | undefined;
    let size = 0;
    const done = () => {
      incoming.off("data", data).off("end", end).off("error", cut).off("close", cut);
    };
    const data = (chunk: Buffer) => {
      size += chunk.length;
      if (size > jsonLimits.bodyBytes) {
        done();
        incoming.pause();
        reject(tooLarge());
      } else if (first === undefined) first = chunk;
      else if (rest === undefined) rest = [first, chunk];
      else rest.push(chunk);
    };
    const end = () => {
      done();
      try {
        resolve(first === undefined ? "" : decode(rest === undefined ? first : Buffer.concat(rest, size)));
      } catch (error) {
        reject(error);
      }
    };
    const cut = () => {
      done();
      reject(requestErrors.invalid("the body was cut short"));
    };
    incoming.on("data", data).on("end", end).on("error", cut).on("close", cut);
  });
}

function fromWeb(c: Context<Env>): Inbound {
  const { raw } = c.req;
  return {
    method: raw.method,
    path: c.req.path,
    search: searchOf(raw.url),
    header: (name) => raw.headers.get(name) ?? undefined,
    async body() {
      if (raw.body === null) return "";
      if (Number(raw.headers.get("content-length")) > jsonLimits.bodyBytes) throw tooLarge();
      const chunks: Uint8Array[] = [];
      let size = 0;
      for await (const chunk of raw.body as unknown as AsyncIterable<Uint8Array>) {
        size += chunk.length;
        if (size > jsonLimits.bodyBytes) throw tooLarge();
        chunks.push(chunk);
      }
      return decode(Buffer.concat(chunks, size));
    },
    get signal() {
      return raw.signal;
    },
    remoteAddress: c.env?.remoteAddress ?? "",
  };
}
