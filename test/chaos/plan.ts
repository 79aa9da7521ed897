import type { CreateTask } from "@waggle/sdk";
import { pick } from "../support/random.ts";

export interface Kind {
  readonly name: string;
  /** How often, against the others. */
  readonly weight: number;
  readonly task: Omit<CreateTask, "type" | "input">;
  /** What differs from one task of its kind to the next. */
  readonly more?: (random: () => number) => Partial<CreateTask>;
  /** What the agent does with it; `busyMs` is drawn up to this. */
  readonly busyMs: number;
  /** How it may end. */
  readonly ends: readonly string[];
  /** The caller cancels it some time after it was acknowledged. */
  readonly cancelled?: boolean;
  /** It waits for an earlier task. */
  readonly follows?: boolean;
  /** It was caused by an earlier task. */
  readonly child?: boolean;
  readonly inputBytes?: number;
  /** Its result is as large as its input. */
  readonly echoes?: boolean;
  readonly error?: string;
}

/** How many may run under a key at a time: what tasks ask, and what the history is checked against. */
export const limits: Readonly<Record<string, number>> = { chaos: 3, "serial-0": 1, "serial-1": 1 };
const under = (key: string) => ({ concurrency: [{ key, limit: limits[key] as number }] });
const able = [{ capability: "chaos" }];
// Lost leases use attempts too: none of these may run out of them.
const retry = { maxAttempts: 100, initialSeconds: 0.1, factor: 1.5, maxSeconds: 0.5 };
const base = { requires: able, retry };
/** Few slots for many: here a priority decides. */
const narrow = { ...base, requires: [...able, { capability: "narrow" }], slots: 4 };

export const kinds: readonly Kind[] = [
  { name: "quick", weight: 6, task: base, busyMs: 0, ends: ["completed"] },
  { name: "slow", weight: 4, task: base, busyMs: 500, ends: ["completed"] },
  { name: "urgent", weight: 2, task: { ...narrow, priority: 9 }, busyMs: 60, ends: ["completed"] },
  { name: "patient", weight: 2, task: { ...narrow, priority: 1 }, busyMs: 60, ends: ["completed"] },
  { name: "flaky", weight: 2, task: base, busyMs: 30, ends: ["completed"] },
  { name: "failing", weight: 1, task: base, busyMs: 30, ends: ["failed"], error: "no_good" },
  { name: "limited", weight: 2, task: { ...base, ...under("chaos") }, busyMs: 60, ends: ["completed"] },
  {
    name: "serial",
    weight: 1,
    task: base,
    more: (random) => under(pick(random, ["serial-0", "serial-1"])),
    busyMs: 20,
    ends: ["completed"],
  },
  {
    name: "rated",
    weight: 1,
    task: { ...base, rate: { key: "rated", limit: 30, perSeconds: 1 } },
    busyMs: 0,
    ends: ["completed"],
  },
  {
    name: "sticky",
    weight: 1,
    task: base,
    more: (random) => ({ stickyKey: pick(random, ["s-0", "s-1", "s-2"]), fairKey: pick(random, ["f-0", "f-1"]) }),
    busyMs: 20,
    ends: ["completed"],
  },
  { name: "child", weight: 1, task: { ...base, tags: ["child"] }, busyMs: 10, ends: ["completed"], child: true },
  { name: "delayed", weight: 1, task: { ...base, delaySeconds: 0.7 }, busyMs: 10, ends: ["completed"] },
  { name: "following", weight: 2, task: base, busyMs: 10, ends: ["completed"], follows: true },
  {
    name: "cancelled",
    weight: 2,
    task: { ...base, cancelGraceSeconds: 1 },
    busyMs: 600,
    ends: ["completed", "cancelled"],
    cancelled: true,
  },
  {
    name: "expiring",
    weight: 1,
    task: { requires: [{ capability: "nobody" }], timeouts: { queueSeconds: 1 } },
    busyMs: 0,
    ends: ["expired"],
  },
  { name: "hasty", weight: 1, task: { ...base, timeouts: { runSeconds: 0.5 } }, busyMs: 100, ends: ["completed"] },
  {
    name: "large",
    weight: 1,
    // What answers a call may be 64 KB at most: this is for agents that connect.
    task: { ...base, requires: [...able, { capability: "bulk" }] },
    busyMs: 10,
    ends: ["completed"],
    inputBytes: 100_000,
    echoes: true,
  },
];

const drawn = kinds.flatMap((kind) => Array.from({ length: kind.weight }, () => kind));
export const kindOf = (random: () => number): Kind => pick(random, drawn);

export interface Input {
  readonly n: number;
  readonly kind: string;
  readonly busyMs: number;
  readonly pad: string;
}
export const resultOf = ({ n, pad, kind }: Input) => ({
  n,
  length: pad.length,
  ...(kinds.find(({ name }) => name === kind)?.echoes && { pad }),
});

/** What can go wrong, and how often against the others. `kill` and `torn` count as kills. */
export const faultWeights = {
  killAgent: 45,
  killServer: 20,
  /** The process ends in the middle of a write of its log. */
  torn: 5,
  stopAgent: 4,
  stopServer: 3,
  cut: 8,
  storm: 6,
  clock: 4,
  diskFull: 3,
  diskError: 3,
} as const;
export type Fault = keyof typeof faultWeights;
export const isKill = (fault: Fault): boolean => fault === "killAgent" || fault === "killServer" || fault === "torn";

/** Families of faults, as `--faults` names them. */
export const families: Readonly<Record<string, readonly Fault[]>> = {
  kill: ["killAgent", "killServer"],
  stop: ["stopAgent", "stopServer"],
  net: ["cut", "storm"],
  clock: ["clock"],
  disk: ["torn", "diskFull", "diskError"],
};

export function faultOf(random: () => number, allowed: readonly Fault[]): Fault {
  const bag = allowed.flatMap((fault) => Array.from({ length: faultWeights[fault] }, () => fault));
  return pick(random, bag);
}
