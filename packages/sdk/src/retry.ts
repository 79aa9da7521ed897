import { WaggleApiError, WaggleConnectionError } from "./error.ts";

export interface Steps {
  readonly initialMs: number;
  readonly maxMs: number;
}
/**
 * A time and not a number of tries ends it: with full jitter, a few tries of the unlucky one among many are over before
 * a server has restarted.
 */
export interface RetryPolicy extends Steps {
  /** After this no new try begins. */
  readonly forMs: number;
}
export const defaultRetry: RetryPolicy = { forMs: 30_000, initialMs: 100, maxMs: 2_000 };

/**
 * Full jitter: anything between nothing and the exponential step, which spreads a crowd best
 * (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
 */
export const backoffMs = (tried: number, policy: Steps, random: () => number): number =>
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

/** A timer for longer would end at once. */
export const longestTimerMs = 2 ** 31 - 1;

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

/** Runs a call until it succeeds, may not be repeated, or the time for it is over. */
export async function withRetry<T>(
  call: () => Promise<T>,
  options: {
    readonly policy: RetryPolicy;
    readonly repeatable: boolean;
    readonly signal?: AbortSignal | undefined;
    /** No new try begins any more. */
    readonly over?: () => boolean;
    readonly random: () => number;
    readonly sleep: Sleep;
    readonly now: () => number;
  },
): Promise<T> {
  let until: number | undefined;
  for (let tried = 0; ; tried++) {
    try {
      return await call();
    } catch (error) {
      if (options.signal?.aborted) throw options.signal.reason;
      if (options.over?.() || !mayRetry(error, options.repeatable)) throw error;
      // Counted from the first failure: a long poll may have waited long before it.
      until ??= options.now() + options.policy.forMs;
      const wait = backoffMs(tried, options.policy, options.random);
      const asked = error instanceof WaggleApiError ? (error.retryAfterSeconds ?? 0) * 1000 : 0;
      if (options.now() + asked + wait > until) throw error;
      // The server's own wish is the least; jitter comes on top, so that those it turned away do not return as one.
      await options.sleep(asked + wait, options.signal);
      if (options.over?.()) throw error;
    }
  }
}
