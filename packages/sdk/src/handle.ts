import type { CallOptions, FollowOptions } from "./client.ts";
import { WaggleConnectionError, WaggleTaskError } from "./error.ts";
import { longestTimerMs } from "./retry.ts";
import type { Task, TaskStatus, WaggleEvent } from "./types.ts";

const terminal: ReadonlySet<TaskStatus> = new Set(["completed", "failed", "cancelled", "expired"]);
export const isTerminal = (status: TaskStatus): boolean => terminal.has(status);
const terminalEvents = new Set([...terminal].map((status) => `task.${status}`));

export interface ResultOptions {
  /** Give up waiting after this; the task goes on. */
  timeoutSeconds?: number;
  signal?: AbortSignal;
}

/** A task that was delegated. */
export interface TaskHandle extends AsyncIterable<WaggleEvent> {
  readonly id: string;
  /** As it was when the handle was made; `get()` asks again. */
  readonly task: Task;
  /** Waits for the end. @throws WaggleTaskError when it did not complete */
  result<T = unknown>(options?: ResultOptions): Promise<T>;
  /** Waits for the end, whatever it is. */
  ended(options?: ResultOptions): Promise<Task>;
  get(options?: CallOptions): Promise<Task>;
  cancel(reason?: string, options?: CallOptions): Promise<Task>;
  /** Its events from the first to the one that ends it; `for await (const event of handle)` is the same. */
  events(options?: FollowOptions): AsyncIterable<WaggleEvent>;
}

/** A handle on its way: await it, or ask it right away. */
export type Delegation = Promise<TaskHandle> & Omit<TaskHandle, "id" | "task">;

interface TaskCalls {
  get(id: string, options?: CallOptions & { waitSeconds?: number }): Promise<Task>;
  cancel(id: string, options?: CallOptions & { reason?: string }): Promise<Task>;
  follow(id: string, options?: FollowOptions): AsyncIterable<WaggleEvent>;
}

/** Long polls of one client: how many there are, and how many its transport carries at one time. */
export interface Waits {
  count: number;
  readonly shared: number;
}

/** An answer that is due when the time is up is waited for this much longer. */
const lateMs = 1_000;

/**
 * Asks until the task has ended. A server that cannot be reached is asked again no longer than that.
 * @param ask answers the task once it has ended, or as it is after `waitSeconds`
 * @throws WaggleConnectionError `client.timeout`; the task goes on
 */
export async function untilEnded(
  ask: (how: CallOptions & { waitSeconds: number }) => Promise<Task>,
  waits: Waits,
  { timeoutSeconds, signal }: ResultOptions = {},
): Promise<Task> {
  const until = timeoutSeconds === undefined ? Number.POSITIVE_INFINITY : performance.now() + timeoutSeconds * 1000;
  const stop = new AbortController();
  const forward = () => stop.abort(signal?.reason);
  if (signal?.aborted) forward();
  else signal?.addEventListener("abort", forward, { once: true });
  const giveUp = () =>
    stop.abort(new WaggleConnectionError("client.timeout", `no answer of the server within ${timeoutSeconds} s`));
  const timer =
    timeoutSeconds === undefined
      ? undefined
      : setTimeout(giveUp, Math.min(timeoutSeconds * 1000 + lateMs, longestTimerMs));
  waits.count++;
  try {
    for (;;) {
      // More waits than connections take turns, so none may keep its connection for long.
      const longest = waits.count > waits.shared ? 2 : 20;
      const left = Math.ceil(until - performance.now()) / 1000;
      const waitSeconds = Math.max(0, Math.min(longest, left));
      const current = await ask({ waitSeconds, signal: stop.signal });
      if (isTerminal(current.status)) return current;
      if (performance.now() >= until) {
        throw new WaggleConnectionError(
          "client.timeout",
          `task ${current.id} is still ${current.status} after ${timeoutSeconds} s; it goes on`,
        );
      }
    }
  } finally {
    waits.count--;
    clearTimeout(timer);
    signal?.removeEventListener("abort", forward);
  }
}

/** @throws WaggleTaskError when it did not complete */
export function resultOf<T>(task: Task): T {
  if (task.status !== "completed") throw new WaggleTaskError(task);
  return task.result as T;
}

export function toHandle(task: Task, calls: TaskCalls, waits: Waits): TaskHandle {
  const ended = async (options?: ResultOptions): Promise<Task> =>
    isTerminal(task.status) ? task : untilEnded((how) => calls.get(task.id, how), waits, options);
  async function* events(options: FollowOptions = {}): AsyncGenerator<WaggleEvent, void, undefined> {
    for await (const event of calls.follow(task.id, options)) {
      yield event;
      if (terminalEvents.has(event.type)) return;
    }
  }
  return {
    id: task.id,
    task,
    ended,
    result: async <T>(options?: ResultOptions) => resultOf<T>(await ended(options)),
    get: (options) => calls.get(task.id, options),
    cancel: (reason, options) => calls.cancel(task.id, reason === undefined ? options : { reason, ...options }),
    events,
    [Symbol.asyncIterator]: () => events(),
  };
}

export function toDelegation(coming: Promise<TaskHandle>): Delegation {
  async function* events(options?: FollowOptions): AsyncGenerator<WaggleEvent, void, undefined> {
    yield* (await coming).events(options);
  }
  return Object.assign(coming, {
    result: <T = unknown>(options?: ResultOptions) => coming.then((handle) => handle.result<T>(options)),
    ended: (options?: ResultOptions) => coming.then((handle) => handle.ended(options)),
    get: (options?: CallOptions) => coming.then((handle) => handle.get(options)),
    cancel: (reason?: string, options?: CallOptions) => coming.then((handle) => handle.cancel(reason, options)),
    events,
    [Symbol.asyncIterator]: () => events(),
  });
}
