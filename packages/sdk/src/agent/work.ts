import type { Delegation } from "../handle.ts";
import type { Assignment, CreateTask, Progress, Task, Usage } from "../types.ts";
import {
  completeOutcome,
  failOutcome,
  messageOf,
  type Outcome,
  plain,
  refusedProgress,
  releaseOutcome,
  toProblem,
} from "./outcome.ts";

export interface Log {
  debug(message: string, fields?: Record<string, unknown>): void;
  info(message: string, fields?: Record<string, unknown>): void;
  warn(message: string, fields?: Record<string, unknown>): void;
  error(message: string, fields?: Record<string, unknown>): void;
}

export interface TaskContext {
  /** Aborts when the task is cancelled, taken away, or its lease runs out. The reason is an Error with a `code`. */
  readonly signal: AbortSignal;
  /** 1 for the first. */
  readonly attempt: number;
  /** What the previous attempt last saved with `progress(…, details)`. */
  readonly details: unknown;
  readonly log: Log;
  /**
   * Tells how far it is, by a message of at most 1024 characters; `details` are kept for the next attempt, at most 64 KiB.
   * Calls of one turn are sent as one, the newest wins; what did not arrive is sent once the agent is connected again.
   */
  progress(progress?: Progress, details?: unknown): void;
  /** A sign of life of this attempt, for tasks with `timeouts.heartbeatSeconds`. */
  heartbeat(): void;
  /** Recorded with the outcome, e.g. `{ tokens: 812 }`; `units` corrects the weight of the task's rate limit. */
  usage(usage: Usage): void;
  /** Gives a part of the work to others, as a child of this task. */
  delegate(task: CreateTask): Delegation;
}

/** Returns the result; throws to fail the attempt. `code`, `message` and `retryable` of the error are recorded. */
// biome-ignore lint/suspicious/noExplicitAny: a handler may name the type of the input it expects
export type Handler = (task: Task & { input?: any }, context: TaskContext) => unknown;

/** One attempt this agent was given. */
export interface Job {
  readonly task: Task;
  readonly fence: number;
  /** When it came, by the monotonic clock. */
  readonly at: number;
  /** The start was told or need not be. */
  told: boolean;
  /** The server knows that it began. */
  heard: boolean;
  /** When its start or outcome was last said, by the monotonic clock. */
  saidAt: number;
  /** Set once the handler is done. Kept until the server has it. */
  outcome: Outcome | undefined;
  /** Why it was aborted. `revoked`: the outcome would not be taken. */
  aborted: { readonly how: "cancelled" | "released" | "revoked"; readonly error: Error } | undefined;
  controller: AbortController | undefined;
  /** Not yet sent. */
  progress: Progress | undefined;
  details: string | undefined;
  beat: boolean;
  usage: Usage | undefined;
}

/** How word gets to the server. Must not throw; what cannot be sent now is sent after reconnecting. */
export interface Link {
  start(job: Job): void;
  /** `job.progress` and `job.details` are to be sent and cleared. */
  progress(job: Job): void;
  /**
   * Until `work.settled(job)` is called the outcome is not safe. Where there may be another attempt, `job.details` go first, as they
   * are for that.
   */
  outcome(job: Job): void;
}

export interface WorkOptions {
  readonly handlers: Readonly<Record<string, Handler>>;
  readonly log: Log;
  readonly now: () => number;
  /** A handler that ends within this needs no start of its own: its outcome implies it. */
  readonly startAfterMs: number;
  delegate(task: CreateTask): Delegation;
  /** Called whenever the server has an outcome, or will never take it: a slot is free. */
  changed(): void;
}

export type Work = ReturnType<typeof createWork>;

/** Runs handlers on what is assigned, and keeps each outcome until the server has it. */
export function createWork(options: WorkOptions) {
  const { log, now, startAfterMs } = options;
  const handlers = new Map(Object.entries(options.handlers));
  const fallback = handlers.get("*");
  const jobs = new Map<string, Job>();
  let active = 0;
  let link: Link | undefined;
  let untold: Job[] = [];
  let timer: NodeJS.Timeout | undefined;

  const tellStarts = () => {
    timer = undefined;
    const due = now() - startAfterMs;
    let at = 0;
    for (let job = untold[0]; job && job.at <= due; job = untold[++at]) {
      if (job.outcome || job.told || job.aborted?.how === "revoked") continue;
      job.told = true;
      link?.start(job);
    }
    untold = untold.slice(at);
    if (untold.length > 0) armStarts();
  };
  const armStarts = () => {
    timer ??= setTimeout(tellStarts, startAfterMs);
  };

  const assign = (assignments: readonly Assignment[]) => {
    const at = now();
    for (const { task, fence } of assignments) {
      const known = jobs.get(task.id);
      if (known) {
        if (known.fence >= fence) continue;
        abort(known, "revoked", failure("task.lease_lost", "the task was assigned anew"));
      }
      const job: Job = {
        task,
        fence,
        at,
        told: false,
        heard: false,
        saidAt: at,
        outcome: undefined,
        aborted: undefined,
        controller: undefined,
        progress: undefined,
        details: undefined,
        beat: false,
        usage: undefined,
      };
      jobs.set(task.id, job);
      untold.push(job);
      run(job);
    }
    if (untold.length > 0) armStarts();
  };

  const run = (job: Job) => {
    active++;
    const handler = handlers.get(job.task.type) ?? fallback;
    if (!handler) {
      const message = `this agent has no handler for tasks of type "${job.task.type}"`;
      return finish(job, failOutcome({ code: "handler.missing", message }, undefined));
    }
    let returned: unknown;
    try {
      returned = handler(job.task, createContext(job));
    } catch (error) {
      return threw(job, error);
    }
    if (typeof (returned as PromiseLike<unknown> | undefined)?.then === "function") {
      (returned as PromiseLike<unknown>).then(
        (result) => finish(job, completeOutcome(result, job.usage)),
        (error) => threw(job, error),
      );
    } else finish(job, completeOutcome(returned, job.usage));
  };

  const threw = (job: Job, error: unknown) => {
    const { aborted } = job;
    // Given back: a cancelled task ends with it, another goes on elsewhere at no cost to its attempts.
    if (aborted && aborted.how !== "revoked") {
      return finish(job, releaseOutcome(aborted.error.message));
    }
    if (aborted === undefined)
      log.warn(`task failed: ${messageOf(error)}`, { taskId: job.task.id, attempt: job.task.attempt });
    finish(job, failOutcome(toProblem(error), job.usage));
  };

  const finish = (job: Job, outcome: Outcome) => {
    active--;
    if (job.outcome === undefined) {
      job.outcome = outcome;
      if (job.aborted?.how === "revoked") settled(job);
      else link?.outcome(job);
    }
  };

  /** The server has the outcome, or will never take it. */
  const settled = (job: Job) => {
    if (jobs.get(job.task.id) === job) jobs.delete(job.task.id);
    if (jobs.size === 0) untold = [];
    options.changed();
  };

  const abort = (job: Job, how: "cancelled" | "released" | "revoked", error: Error) => {
    if (job.aborted?.how === "revoked" || (job.aborted && how !== "revoked")) return;
    const first = job.aborted === undefined;
    job.aborted = { how, error };
    if (how === "revoked" && job.outcome) settled(job);
    if (first) job.controller?.abort(error);
  };

  /** The server says that this attempt holds its task no more. A later attempt of the same task may run here meanwhile. */
  const lost = (job: Job) =>
    abort(job, "revoked", failure("task.lease_lost", "the task was taken away from this agent"));

  const createContext = (job: Job): TaskContext => {
    let bound: Log | undefined;
    return {
      get signal() {
        if (!job.controller) {
          job.controller = new AbortController();
          if (job.aborted) job.controller.abort(job.aborted.error);
        }
        return job.controller.signal;
      },
      attempt: job.task.attempt,
      details: job.task.details,
      get log() {
        bound ??= bind(log, { taskId: job.task.id, attempt: job.task.attempt });
        return bound;
      },
      progress(progress, details) {
        if (job.outcome) return;
        const told = progress && plain(progress);
        const text = JSON.stringify(details) as string | undefined;
        const wrong = refusedProgress(told, text);
        if (wrong) log.warn(wrong, { taskId: job.task.id });
        else {
          if (told) job.progress = { ...job.progress, ...told };
          if (text !== undefined) job.details = text;
        }
        tellProgress(job);
      },
      heartbeat: () => tellProgress(job),
      usage(usage) {
        if (usage) job.usage = { ...job.usage, ...plain(usage) };
      },
      delegate: (task) => options.delegate({ ...task, parentId: job.task.id }),
    };
  };
  const tellProgress = (job: Job) => {
    if (job.beat || job.outcome || job.aborted?.how === "revoked") return;
    job.beat = true;
    // Progress implies the start.
    job.told = true;
    process.nextTick(() => {
      job.beat = false;
      if (!job.outcome && job.aborted?.how !== "revoked") link?.progress(job);
    });
  };

  return {
    assign,
    settled,
    /** Handlers that run now. */
    get active() {
      return active;
    },
    /** Handlers that run and outcomes the server has not confirmed. */
    get size() {
      return jobs.size;
    },
    setLink(next: Link) {
      link = next;
    },
    holding: () => Array.from(jobs.values(), (job) => ({ taskId: job.task.id, fence: job.fence })),
    cancel(taskIds: readonly string[]) {
      for (const id of taskIds) {
        const job = jobs.get(id);
        if (job) abort(job, "cancelled", failure("task.cancelled", "the task was cancelled"));
      }
    },
    revoke(taskIds: readonly string[]) {
      for (const id of taskIds) {
        const job = jobs.get(id);
        if (job) lost(job);
      }
    },
    lost,
    /** What runs is to stop; where a handler then throws, its task is given back unharmed. */
    releaseAll(code: string, message: string) {
      for (const job of jobs.values()) if (!job.outcome) abort(job, "released", failure(code, message));
    },
    revokeAll(code: string, message: string) {
      for (const job of [...jobs.values()]) abort(job, "revoked", failure(code, message));
    },
    /** Gives back what still runs without waiting for its handler. */
    giveUp(reason: string) {
      for (const job of jobs.values()) {
        if (job.outcome) continue;
        job.outcome = releaseOutcome(reason);
        link?.outcome(job);
      }
    },
    /** The server refused the outcome for its content: the attempt fails with that, or it would be held for ever. */
    refused(job: Job, problem: { code?: string; detail?: string }) {
      if (!job.outcome || job.outcome.op === "release") return settled(job);
      const code = problem.code ?? "result.refused";
      const next = failOutcome(
        { code: "result.refused", message: `${code}: ${problem.detail ?? ""}`, retryable: false },
        undefined,
      );
      if (job.outcome.members === next.members) return settled(job);
      job.outcome = next;
      link?.outcome(job);
    },
    resendOne(job: Job) {
      if (jobs.get(job.task.id) === job) link?.outcome(job);
    },
    /** After a reconnect, says again what may not have arrived; or of that what was said `before`. */
    resend(before = Number.POSITIVE_INFINITY) {
      for (const job of jobs.values()) {
        if (job.saidAt >= before) continue;
        if (job.outcome) link?.outcome(job);
        else if (job.progress || job.details !== undefined) link?.progress(job);
        else if (job.told && !job.heard) link?.start(job);
      }
    },
    close() {
      clearTimeout(timer);
    },
  };
}

const failure = (code: string, message: string): Error => Object.assign(new Error(message), { code });

const bind = (log: Log, more: Record<string, unknown>): Log => ({
  debug: (message, fields) => log.debug(message, { ...more, ...fields }),
  info: (message, fields) => log.info(message, { ...more, ...fields }),
  warn: (message, fields) => log.warn(message, { ...more, ...fields }),
  error: (message, fields) => log.error(message, { ...more, ...fields }),
});
