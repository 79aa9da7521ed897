/** How much is done: in a run whose figures are kept, and in a quick look. */
export const allSizes = {
  full: {
    W1: { warmup: 2000, count: 1000 },
    W2: { warmup: 1000, count: 500 },
    W3: { warmup: 5000, count: 5000 },
    W4: { warmup: 5000, count: 5000 },
    /** No warm-up is longer: a slow system has fewer calls in it. */
    warmupSeconds: 3,
    /** W3 and W4 submit no longer: a slow system does fewer tasks. */
    submitSeconds: 8,
    W6: { few: { agents: 100, tasks: 1000 }, many: { agents: 100_000, tasks: 1_000_000 }, warmup: 4000, count: 1000 },
    W7: { flood: 10_000, submitters: 10, tasks: 10 },
    open: { few: 1000, many: 10_000_000, warmup: 4000, count: 1000 },
    waiting: { tasks: 1_000_000, lanes: 1000, warmup: 4000, count: 1000 },
  },
  quick: {
    W1: { warmup: 500, count: 300 },
    W2: { warmup: 300, count: 200 },
    W3: { warmup: 1000, count: 2000 },
    W4: { warmup: 1000, count: 1000 },
    warmupSeconds: 1.5,
    submitSeconds: 4,
    W6: { few: { agents: 100, tasks: 1000 }, many: { agents: 5000, tasks: 20_000 }, warmup: 1000, count: 500 },
    W7: { flood: 2000, submitters: 10, tasks: 10 },
    open: { few: 1000, many: 50_000, warmup: 500, count: 300 },
    waiting: { tasks: 20_000, lanes: 100, warmup: 500, count: 300 },
  },
} as const;

export type SizeName = keyof typeof allSizes;
export type Sizes = (typeof allSizes)[SizeName];
/** The calls of the warm-up, and those that are measured. */
export interface Phase {
  readonly warmup: number;
  readonly count: number;
}

/** The same in every run. */
export const fixed = {
  inFlight: 32,
  /** Results of W3 and W4 that are read back. */
  checked: 100,
  idleAgents: 1000,
  crashTasks: 200,
  crashTaskMs: 200,
  /** After that what has no result counts as lost. */
  crashSeconds: 30,
  /** W5 is mostly waiting for leases, and its counts hardly differ: no more repetitions than these. */
  crashReps: 3,
  leaseSeconds: 5,
  fairTaskMs: 20,
  fairSlots: 10,
} as const;

const grouped = (count: number) => count.toLocaleString("en-US");

/** What a reader of the figures has to know of how they came about. */
export const methodOf = ({ W1, W2, W3, W4, warmupSeconds, submitSeconds }: Sizes): string =>
  "A fresh server, fresh agents and a fresh client for every measure, the order of the systems turned round each time. " +
  "Each is warmed up by the calls that it measures, the same for all: " +
  `${grouped(W1.warmup)} submits (W1), ${grouped(W2.warmup)} submits with their results (W2), ${grouped(W3.warmup)} tasks (W3), ${grouped(W4.warmup)} tasks (W4), ` +
  `but no longer than ${warmupSeconds} s; then ${grouped(W1.count)}, ${grouped(W2.count)}, ${grouped(W3.count)} and ${grouped(W4.count)} are measured, ` +
  `of W3 and W4 as many as are submitted in ${submitSeconds} s. W5 is repeated ${fixed.crashReps} times at the most. ` +
  '"Cold" is the beginning of that warm-up: the first calls after the start of all processes.';
