import { WaggleConnectionError } from "./error.ts";

export interface WireRequest {
  readonly method: string;
  /** From the root of the server, with the query. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  /** The longest silence of the server. */
  readonly timeoutMs: number;
  /** A long poll: kept apart, so that many of them never hold up a short call. */
  readonly waits?: boolean | undefined;
}
export interface WireReply {
  readonly status: number;
  header(name: string): string | null | undefined;
  readonly text: string;
}
export interface WireStream {
  readonly status: number;
  header(name: string): string | null | undefined;
  /** The body as text. Ending the iteration closes the connection. */
  readonly chunks: AsyncIterable<string>;
}

/** Carries requests to one server. Rejects with WaggleConnectionError, or with the reason of the signal. */
export interface Transport {
  send(request: WireRequest): Promise<WireReply>;
  open(request: WireRequest): Promise<WireStream>;
  close(): void;
}

export const unreachable = (url: string, cause: unknown): WaggleConnectionError => {
  const why = cause instanceof Error ? (causeOf(cause) ?? cause.message) : String(cause);
  return new WaggleConnectionError("client.unreachable", `cannot reach ${url}: ${why}`, cause);
};
const causeOf = (error: Error): string | undefined => {
  const inner = error.cause instanceof Error ? error.cause : error;
  return (inner as { code?: string }).code ?? (inner === error ? undefined : inner.message);
};
export const timedOut = (url: string, ms: number): WaggleConnectionError =>
  new WaggleConnectionError("client.timeout", `no answer from ${url} within ${ms / 1000} s`);

/** For browsers, Lambda@Edge, workers: everything that has `fetch`. */
export function fetchTransport(url: string, fetcher: typeof fetch = fetch): Transport {
  const open = new Set<AbortController>();
  const begin = async (request: WireRequest) => {
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(timedOut(url, request.timeoutMs)), request.timeoutMs);
    const forward = () => controller.abort(request.signal?.reason);
    open.add(controller);
    if (request.signal?.aborted) forward();
    else request.signal?.addEventListener("abort", forward, { once: true });
    const finish = () => {
      clearTimeout(timer);
      open.delete(controller);
      request.signal?.removeEventListener("abort", forward);
    };
    try {
      const response = await fetcher(url + request.path, {
        method: request.method,
        headers: request.headers,
        body: request.body ?? null,
        signal: controller.signal,
        redirect: "error",
      });
      return { response, controller, timer, finish };
    } catch (error) {
      finish();
      throw controller.signal.aborted ? controller.signal.reason : unreachable(url, error);
    }
  };
  return {
    async send(request) {
      const { response, controller, finish } = await begin(request);
      try {
        const text = await response.text();
        return { status: response.status, header: (name) => response.headers.get(name), text };
      } catch (error) {
        throw controller.signal.aborted ? controller.signal.reason : unreachable(url, error);
      } finally {
        finish();
      }
    },
    async open(request) {
      const { response, controller, timer, finish } = await begin(request);
      clearTimeout(timer);
      async function* chunks() {
        const reader = response.body?.getReader();
        const decoder = new TextDecoder();
        let silence: ReturnType<typeof setTimeout> | undefined;
        try {
          while (reader) {
            silence = setTimeout(() => controller.abort(timedOut(url, request.timeoutMs)), request.timeoutMs);
            const { done, value } = await reader.read();
            clearTimeout(silence);
            if (done) return;
            yield decoder.decode(value, { stream: true });
          }
        } catch (error) {
          throw controller.signal.aborted ? controller.signal.reason : unreachable(url, error);
        } finally {
          clearTimeout(silence);
          finish();
          controller.abort();
        }
      }
      return { status: response.status, header: (name) => response.headers.get(name), chunks: chunks() };
    },
    close() {
      for (const controller of open) controller.abort(unreachable(url, new Error("the client was closed")));
    },
  };
}
