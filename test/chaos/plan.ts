import type { CreateTask } from "@waggle/sdk";

/** A generator of numbers in [0, 1) that a seed decides (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export const pick = <T>(random: () => number, list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;

export interface Kind {
  readonly name: string;
  /** How often, against the others. */
  readonly weight: number;
  readonly task: Omit<CreateTask, "type" | "input">;
  /** What the agent does with it; `busyMs` is drawn up to this. */
  readonly busyMs: number;
  /** How it may end. */
  readonly ends: readonly string[];
  /** The caller cancels it some time after it was acknowledged. */
  readonly cancelled?: boolean;
  /** It waits for an earlier task. */
  readonly follows?: boolean;
  readonly inputBytes?: number;
  readonly error?: string;
}

export const limitKey = "chaos";
const able = [{ capability: "chaos" }];
// Lost leases use attempts too: none of these may run out of them.
const retry = { maxAttempts: 100, initialSeconds: 0.1, factor: 1.5, maxSeconds: 0.5 };
const base = { requires: able, retry };

export const kinds: readonly Kind[] = [
  { name: "quick", weight: 6, task: base, busyMs: 0, ends: ["completed"] },
  { name: "slow", weight: 4, task: base, busyMs: 500, ends: ["completed"] },
  { name: "urgent", weight: 1, task: { ...base, priority: 9 }, busyMs: 20, ends: ["completed"] },
  { name: "flaky", weight: 2, task: base, busyMs: 30, ends: ["completed"] },
  { name: "failing", weight: 1, task: base, busyMs: 30, ends: ["failed"], error: "no_good" },
  {
    name: "limited",
    weight: 2,
    task: { ...base, concurrency: [{ key: limitKey, limit: 3 }] },
    busyMs: 60,
    ends: ["completed"],
  },
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
  { name: "large", weight: 1, task: base, busyMs: 10, ends: ["completed"], inputBytes: 100_000 },
];

const drawn = kinds.flatMap((kind) => Array.from({ length: kind.weight }, () => kind));
export const kindOf = (random: () => number): Kind => pick(random, drawn);

export interface Input {
  readonly n: number;
  readonly kind: string;
  readonly busyMs: number;
  readonly pad: string;
}
export const resultOf = ({ n, pad }: Input) => ({ n, length: pad.length });
