import { storeErrors, type WaggleError } from "@waggle/core";
import type { Log } from "./log.ts";
import { nextTurn } from "./turn.ts";

export type Journal = ReturnType<typeof createJournal>;

interface Deferred {
  readonly promise: Promise<void>;
  resolve(): void;
  reject(error: unknown): void;
}

export interface JournalHooks {
  /** Lets consumers and queue handlers run, so that what they write joins the frame; undefined: nothing to do. */
  react(hurried: boolean): Promise<unknown> | undefined;
  /** The last steps of a frame: positions of consumers. */
  beforeFrame(): void;
  /** A frame is about to be written: all steps up to `lsn` are in it or in one before. @returns called when it is on disk */
  framed(lsn: number, bytes: number): (() => void) | undefined;
  /** The first frame since one was written could not be. */
  failed(cause: unknown): void;
  /** A frame could not be written: memory goes back to what is on disk. */
  recover(): Promise<void>;
}

/** Steps that nobody is in a hurry for are written after this: they go with a frame that somebody hurries, if one comes. */
const patienceMs = 2;

/**
 * Group commit. What is decided while one frame is being written makes up the next one.
 * Each round: consumers react, then everything pending is written in one frame if somebody is in a hurry for any of it,
 * then those who wait are told.
 */
export function createJournal(log: Log, hooks: JournalHooks) {
  const resolved = Promise.resolve();
  let running = false;
  let scheduled = false;
  /** Something came up since the round under way began. */
  let touched = false;
  let broken: WaggleError | undefined;
  /** The last frame could not be written. */
  let failing = false;
  let refusal: WaggleError | undefined;
  let waiting: Deferred | undefined;
  let writing: { done: Deferred | undefined } | undefined;
  let later: (() => void)[] = [];
  /** Runs out when steps that nobody hurries have waited long enough. */
  let patience: NodeJS.Timeout | undefined;
  let hurried = false;
  /** To be called back in the next turn, in this order. */
  let due: (() => void)[] = [];

  const journal = {
    /** Steps not yet in a frame; see `Step`. */
    steps: [] as unknown[],
    /** Counts frames: a step's index is good only while this stands. */
    frame: 0,
    /** The last step decided. */
    lsn: 0,
    /** The last step on disk. */
    durable: 0,

    /** Something is to be written or reacted to. */
    touch(): void {
      touched = true;
      if (running || scheduled) return;
      scheduled = true;
      setImmediate(run);
    },
    /** Counts how often memory went back to what is on disk. */
    generation: 0,
    settled(since?: number, patient = false): Promise<void> {
      if (broken !== undefined) return Promise.reject(broken);
      if (since !== undefined && since !== journal.generation) {
        return Promise.reject(
          storeErrors.unavailable("a write failed meanwhile, and was taken back", { retryAfterSeconds: 1 }),
        );
      }
      if (journal.steps.length > 0) {
        if (!patient && !hurried) {
          hurried = true;
          journal.touch();
        }
        waiting ??= deferred();
        return waiting.promise;
      }
      if (writing === undefined) return resolved;
      writing.done ??= deferred();
      return writing.done.promise;
    },
    /** Calls back once all decided so far is on disk; never, if that fails. */
    afterDurable(callback: () => void): void {
      if (broken !== undefined) return;
      if (journal.steps.length > 0) {
        later.push(callback);
        hurried = true;
        journal.touch();
      } else if (due.length > 0) due.push(callback);
      else if (writing === undefined) queueMicrotask(callback);
      else journal.settled().then(callback, () => {});
    },
    check(): void {
      if (broken !== undefined) throw broken;
      if (refusal !== undefined) throw refusal;
    },
    /** From now on no new call is taken; what was taken still becomes durable. */
    refuse(error: WaggleError): void {
      refusal = error;
    },
    /** What was decided and is not in a frame is void: memory goes back to what is on disk. */
    forget(): void {
      journal.steps = [];
      journal.frame++;
      later = [];
      hurried = false;
    },
    /** All decided so far is on disk. */
    clean: (): boolean => broken === undefined && journal.steps.length === 0 && writing === undefined,
    /** From now on every call throws. */
    stop(error: WaggleError): void {
      broken = error;
    },
  };

  async function run(): Promise<void> {
    scheduled = false;
    running = true;
    for (;;) {
      touched = false;
      const reacting = hooks.react(hurried);
      if (reacting !== undefined) await reacting;
      if (journal.steps.length > 0 && hurried) await flush();
      else if (!touched) break;
      // Lets those who waited go on first, and reads what came in: one larger frame costs less than two.
      await nextTurn();
    }
    running = false;
    if (journal.steps.length > 0 && patience === undefined) patience = setTimeout(runOut, patienceMs);
  }

  function runOut(): void {
    patience = undefined;
    if (journal.steps.length === 0) return;
    hurried = true;
    journal.touch();
  }

  async function flush(): Promise<void> {
    hurried = false;
    hooks.beforeFrame();
    const { steps, lsn } = journal;
    const callbacks = later;
    writing = { done: waiting };
    journal.steps = [];
    journal.frame++;
    waiting = undefined;
    later = [];
    try {
      // JSON: V8 writes it faster than any encoder in JavaScript writes its own form, and rows are JSON-shaped.
      const bytes = log.stage(JSON.stringify(steps));
      const onDisk = hooks.framed(lsn, bytes);
      await log.append(bytes, lsn);
      journal.durable = lsn;
      failing = false;
      const { done } = writing;
      writing = undefined;
      done?.resolve();
      if (callbacks.length > 0) {
        // Answers go first, pushes after them: who asked is waiting.
        if (due.length === 0) setImmediate(callBack);
        due.push(...callbacks);
      }
      onDisk?.();
    } catch (cause) {
      await fail(cause);
    }
  }

  function callBack(): void {
    const callbacks = due;
    due = [];
    for (const callback of callbacks) callback();
  }

  async function fail(cause: unknown): Promise<void> {
    const reason = cause instanceof Error ? cause.message : String(cause);
    const error = storeErrors.unavailable(`the log could not be written: ${reason}`, { cause, retryAfterSeconds: 1 });
    broken = error;
    if (!failing) hooks.failed(cause);
    failing = true;
    journal.generation++;
    const rejected = [writing?.done, waiting];
    writing = undefined;
    waiting = undefined;
    journal.forget();
    try {
      await hooks.recover();
      broken = undefined;
    } catch (second) {
      // Nothing more can be said about what is stored: stay shut until opened anew.
      broken = storeErrors.unavailable("the data folder could not be read again after a failed write", {
        cause: second,
      });
    }
    for (const each of rejected) each?.reject(error);
  }

  return journal;
}

function deferred(): Deferred {
  let resolve!: () => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<void>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}
