import { AsyncLocalStorage } from "node:async_hooks";
import { type ErrorKind, isError, storeErrors } from "@waggle/core";

/** How calls are tried again. Times in milliseconds. */
export interface RetryPolicy {
  /** A call and all its tries; `within` shortens it. Default 10,000. */
  readonly budgetMs: number;
  /** One try. Default 3,000. */
  readonly attemptMs: number;
  /** The first pause is random from 0 to this, each next one from 0 to twice as much. Default 25. */
  readonly baseMs: number;
  /** Default 1,000. */
  readonly capMs: number;
  /** Tries of a write that meets another's transaction, before its caller is told. Default 8. */
  readonly conflicts: number;
}

export const defaultPolicy: RetryPolicy = {
  budgetMs: 10_000,
  attemptMs: 3_000,
  baseMs: 25,
  capMs: 1_000,
  conflicts: 8,
};

export type Service = "store" | "queue" | "bus";
const unavailable: Readonly<Record<Service, ErrorKind>> = {
  store: storeErrors.unavailable,
  queue: storeErrors.queueUnavailable,
  bus: storeErrors.busUnavailable,
};

const ends = new AsyncLocalStorage<number>();

/**
 * Runs with a deadline: calls made inside give up, typed and in time to be answered, before it is over.
 * @param ms what is left of the invocation, less what the answer needs
 */
export const within = <T>(ms: number, run: () => T): T => ends.run(performance.now() + ms, run);

const throttles = new Set([
  "ProvisionedThroughputExceededException",
  "ThrottlingException",
  "Throttling",
  "ThrottledException",
  "RequestThrottled",
  "RequestThrottledException",
  "RequestLimitExceeded",
  "TooManyRequestsException",
  "LimitExceededException",
  "PriorRequestNotComplete",
  "SlowDown",
  "OverLimit",
  "KmsThrottled",
]);
const conflicts = new Set(["TransactionConflictException", "ConcurrentModificationException"]);
const network = new Set([
  "ECONNRESET",
  "ECONNREFUSED",
  "ECONNABORTED",
  "EPIPE",
  "ETIMEDOUT",
  "EAI_AGAIN",
  "ENOTFOUND",
  "EHOSTUNREACH",
  "ENETUNREACH",
]);

/**
 * What a failed try means: `throttled` and `conflict` had no effect; `unsure` may have had its effect, only the reply
 * did not come; `final` would fail again.
 */
export type Verdict = "throttled" | "conflict" | "unsure" | "final";

interface Failure {
  readonly name?: string;
  readonly code?: string;
  readonly message?: string;
  readonly $metadata?: { readonly httpStatusCode?: number };
  readonly $retryable?: unknown;
  readonly CancellationReasons?: readonly { readonly Code?: string }[];
}

export function judge(error: unknown): Verdict {
  const { name = "", code = "", $metadata, $retryable, CancellationReasons } = (error ?? {}) as Failure;
  if (name === "TransactionCanceledException") {
    const codes = new Set((CancellationReasons ?? []).map((reason) => reason.Code ?? "None"));
    codes.delete("None");
    if (codes.size === 0 || codes.has("ConditionalCheckFailed") || codes.has("ValidationError")) return "final";
    if (codes.has("ThrottlingError") || codes.has("ProvisionedThroughputExceeded")) return "throttled";
    return codes.has("TransactionConflict") ? "conflict" : "final";
  }
  if (throttles.has(name)) return "throttled";
  if (conflicts.has(name)) return "conflict";
  // It meets no other's transaction but its own first try, whose reply did not come, and which is not over.
  if (name === "TransactionInProgressException") return "unsure";
  if (name === "TimeoutError" || name === "AbortError" || network.has(code) || network.has(name)) return "unsure";
  if (($metadata?.httpStatusCode ?? 0) >= 500 || $retryable !== undefined) return "unsure";
  return "final";
}

/** One try of a call. */
export interface Try {
  readonly signal: AbortSignal;
  /** An earlier try of this call may have taken effect. */
  readonly unsure: boolean;
}

export interface CallOptions {
  readonly attemptMs?: number;
  /** Answers instead of an error when the call met other transactions to the end. */
  readonly onConflict?: (error: unknown) => never;
}

export type Caller = ReturnType<typeof createCaller>;

/** The retry policy of every call to AWS: full jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). */
export function createCaller(policy: RetryPolicy, check: () => void) {
  const underWay = new Set<Promise<unknown>>();
  const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

  function begin(service: Service, attemptMs: number) {
    const budgetEnd = performance.now() + policy.budgetMs + attemptMs - policy.attemptMs;
    const end = Math.min(budgetEnd, ends.getStore() ?? Number.POSITIVE_INFINITY);
    let failures = 0;
    let last: unknown = new Error("no time was left for a try");
    const giveUp = (cause: unknown): never => {
      const { name = "", message = String(cause) } = (cause ?? {}) as Failure;
      throw unavailable[service](`AWS did not answer in time: ${name} ${message}`.trimEnd(), {
        cause,
        retryAfterSeconds: 1,
      });
    };
    return {
      /** The signal that ends the next try. */
      signal(): AbortSignal {
        check();
        const left = end - performance.now();
        if (left <= 0) giveUp(last);
        return AbortSignal.timeout(Math.ceil(Math.min(left, attemptMs)));
      },
      /** Waits before another try, or throws when the budget does not allow one. */
      async backOff(cause: unknown, verdict: Verdict): Promise<void> {
        check();
        last = cause;
        if (verdict === "final") {
          const { name = "" } = cause as Failure;
          // A missing table, a missing right: nothing the request did, and nothing it can mend.
          if (/NotFound|DoesNotExist|NonExistent|AccessDenied|Unrecognized|Expired|Credentials|Signature/.test(name))
            giveUp(cause);
          throw cause;
        }
        const ms = Math.random() * Math.min(policy.capMs, policy.baseMs * 2 ** failures++);
        if (performance.now() + ms >= end) giveUp(cause);
        await pause(ms);
      },
      progress(): void {
        failures = 0;
      },
    };
  }

  function noted<T>(call: Promise<T>): Promise<T> {
    underWay.add(call);
    void call.catch(() => {}).finally(() => underWay.delete(call));
    return call;
  }

  const calls = {
    /** Calls until it works, or throws the service's `unavailable` with `retryAfterSeconds`. Errors of the request itself are thrown as they are. */
    async call<T>(service: Service, attempt: (each: Try) => Promise<T>, options: CallOptions = {}): Promise<T> {
      const run = begin(service, options.attemptMs ?? policy.attemptMs);
      let unsure = false;
      for (let met = 0; ; ) {
        const signal = run.signal();
        try {
          return await attempt({ signal, unsure });
        } catch (error) {
          if (isError(error)) throw error;
          const verdict = judge(error);
          if (verdict === "conflict" && ++met >= policy.conflicts) options.onConflict?.(error);
          unsure ||= verdict === "unsure";
          await run.backOff(error, verdict);
        }
      }
    },

    /**
     * The same for calls that take a part of what they are given.
     * @param attempt answers what was left, to be given again; `unsure`: an earlier try of it may have taken effect
     */
    async callRest<T>(
      service: Service,
      all: readonly T[],
      attempt: (
        rest: readonly T[],
        signal: AbortSignal,
        unsure: boolean,
      ) => Promise<{ rest: readonly T[]; cause?: unknown }>,
    ): Promise<void> {
      const run = begin(service, policy.attemptMs);
      let unsure = false;
      for (let rest = all; rest.length > 0; ) {
        const signal = run.signal();
        let failure: unknown;
        let verdict: Verdict = "throttled";
        try {
          const after = await attempt(rest, signal, unsure);
          if (after.rest.length < rest.length) run.progress();
          rest = after.rest;
          failure = after.cause ?? new Error(`${rest.length} entries were not taken`);
        } catch (error) {
          if (isError(error)) throw error;
          failure = error;
          verdict = judge(error);
          unsure ||= verdict === "unsure";
        }
        if (rest.length > 0) await run.backOff(failure, verdict);
      }
    },
  };

  return {
    call: <T>(...args: Parameters<typeof calls.call<T>>): Promise<T> => noted(calls.call<T>(...args)),
    callRest: <T>(...args: Parameters<typeof calls.callRest<T>>): Promise<void> => noted(calls.callRest<T>(...args)),
    /** Resolves when no call is under way, those included that follow from one at once. */
    async idle(): Promise<void> {
      while (underWay.size > 0) {
        await Promise.allSettled(underWay);
        await new Promise((resolve) => setImmediate(resolve));
      }
    },
  };
}
