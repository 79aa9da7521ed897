import { WaggleApiError, WaggleConnectionError } from "./error.ts";

export interface RetryPolicy {
  /** Tries after the first one. */
  readonly retries: number;
  readonly initialMs: number;
  readonly maxMs: number;
}
export const defaultRetry: RetryPolicy = { retries: 8, initialMs: 100, maxMs: 2_000 };

/**
 * Full jitter: anything between nothing and the exponential step, which spreads a crowd best
 * (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
 */
export const backoffMs = (tried: number, policy: RetryPolicy, random: () => number): number =>
  random() * Math.min(policy.maxMs, policy.initialMs * 2 ** Math.min(tried, 30));

/** Codes of connection errors at which nothing can have reached the server. */
const neverSent = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH"]);

/**
 * Whether the same call may be made again. A call that is not `repeatable` (doing it twice differs from once) is
 * repeated only where the first one surely had no effect.
 */
export function mayRetry(error: unknown, repeatable: boolean): boolean {
  if (error instanceof WaggleApiError) {
    if (error.status === 429 || error.status === 503) return true;
    return repeatable && (error.status === 502 || error.status === 504 || error.code === "idempotency.in_progress");
  }
  if (error instanceof WaggleConnectionError)
    return repeatable || neverSent.has((error.cause as { code?: string } | undefined)?.code ?? "");
  return false;
}

export type Sleep = (ms: number, signal?: AbortSignal) => Promise<void>;

export const sleep: Sleep = (ms, signal) =>
  new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const aborted = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", aborted);
      resolve();
    }, ms);
    signal?.addEventListener("abort", aborted, { once: true });
  });

/** Runs a call until it succeeds, may not be repeated, or the tries are used up. */
export async function withRetry<T>(
  call: () => Promise<T>,
  options: {
    readonly policy: RetryPolicy;
    readonly repeatable: boolean;
    readonly signal?: AbortSignal | undefined;
    readonly random: () => number;
    readonly sleep: Sleep;
  },
): Promise<T> {
  for (let tried = 0; ; tried++) {
    try {
      return await call();
    } catch (error) {
      if (options.signal?.aborted) throw options.signal.reason;
      if (tried >= options.policy.retries || !mayRetry(error, options.repeatable)) throw error;
      const wait = backoffMs(tried, options.policy, options.random);
      const asked = error instanceof WaggleApiError ? (error.retryAfterSeconds ?? 0) * 1000 : 0;
      // The server's own wish is the least; jitter comes on top, so that those it turned away do not return as one.
      await options.sleep(asked + wait, options.signal);
    }
  }
}
