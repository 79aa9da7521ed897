import fc from "fast-check";
import { expect, test } from "vitest";
import { type Act, type Kind, play, type Step } from "./world.ts";

const who = fc.nat(2);
const which = fc.nat(30);
const turns = fc.oneof({ weight: 3, arbitrary: fc.nat(3) }, { weight: 1, arbitrary: fc.nat(25) });
const often = <T>(weights: Readonly<Record<string, number>>): fc.Arbitrary<T> =>
  fc.oneof(...Object.entries(weights).map(([name, weight]) => ({ weight, arbitrary: fc.constant(name as T) })));
const kind = often<Kind>({
  ...{ plain: 3, following: 3, limited: 3, delayed: 2, urgent: 2, batch: 2, "limited batch": 1 },
  ...{ rated: 2, sticky: 1, bound: 2, timed: 2 },
});
const act = often<Act>({
  ...{ lease: 16, complete: 16, fail: 4, release: 2, beat: 5, connect: 3, disconnect: 1 },
  ...{ pause: 1, drain: 1, resume: 2, leave: 1, remove: 1, replace: 1 },
});
const seconds = often<string>({ 0.5: 4, 1: 4, 4: 4, 12: 4, 70: 1 }).map(Number);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 16, arbitrary: fc.record({ do: fc.constant("submit" as const), kind, who, turns }) },
  { weight: 50, arbitrary: fc.record({ do: act, who, turns }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constantFrom("cancel" as const, "retry" as const), which, turns }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constant("pass" as const), seconds, turns }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("keep" as const), seconds: fc.constantFrom(60, 600), turns }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("crash" as const), turns }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant("fault" as const), times: fc.integer({ min: 1, max: 3 }), turns }),
  },
);
const history = fc.array(step, { minLength: 15, maxLength: 80, size: "max" });

/** How many histories; a run of thousands is told of. */
const runs = Number(process.env.WAGGLE_SIMULATION_RUNS ?? 60);
/** The short form ends after this; a long run goes on for as long as it takes. */
const patienceMs = process.env.WAGGLE_SIMULATION_RUNS === undefined ? 12_000 : Number.POSITIVE_INFINITY;
/** The short form plays the same histories each time, so that what it finds is of the change at hand; long runs look for new ones. */
const seed = process.env.WAGGLE_SIMULATION_SEED ?? (process.env.WAGGLE_SIMULATION_RUNS === undefined ? "1" : undefined);
/** The first sign of life of an agent that connects is taken back by a failed write, while it is given a task. */
const found: [Step[], number] = [
  [
    { do: "lease", who: 0, turns: 1 },
    { do: "crash", turns: 0 },
    { do: "submit", kind: "delayed", who: 0, turns: 1 },
    { do: "fault", times: 2, turns: 0 },
    { do: "lease", who: 0, turns: 0 },
    { do: "complete", who: 0, turns: 0 },
    { do: "submit", kind: "plain", who: 0, turns: 0 },
    { do: "complete", who: 0, turns: 1 },
    { do: "pause", who: 0, turns: 2 },
    { do: "connect", who: 1, turns: 3 },
    { do: "beat", who: 0, turns: 0 },
    { do: "complete", who: 0, turns: 0 },
    { do: "complete", who: 0, turns: 1 },
    { do: "lease", who: 0, turns: 6 },
    { do: "release", who: 0, turns: 0 },
  ],
  1391028414,
];
const told = { crashes: 0, tasks: 0 };

test("whatever is asked at once and wherever the machine stops, no answer is contradicted and every row is in its place", async () => {
  const began = Date.now();
  await fc.assert(
    fc.asyncProperty(history, fc.integer({ min: 0 }), async (steps, seed) => {
      // Not by an interrupt: it would leave a history running beside the next test.
      if (Date.now() - began > patienceMs) return;
      const { faults, crashes, tasks } = await play(seed, steps);
      told.crashes += crashes;
      told.tasks += tasks;
      expect(faults).toEqual([]);
    }),
    {
      numRuns: runs,
      examples: [found],
      ...(seed !== undefined && { seed: Number(seed) }),
    },
  );
  console.log(`${told.crashes} crashes, ${told.tasks} tasks, ${((Date.now() - began) / 1000).toFixed(1)} s`);
}, 3_600_000);

test("the same seed and steps play the same history, to the last byte", async () => {
  const [steps] = fc.sample(history, { numRuns: 1, seed: 7 }) as [Step[]];
  const first = await play(7, steps);
  expect(first.tasks).toBeGreaterThan(0);
  expect((await play(7, steps)).digest).toBe(first.digest);
  expect((await play(8, steps)).digest).not.toBe(first.digest);
});

test("a disk that loses what it confirmed is found out", async () => {
  const steps: Step[] = Array.from({ length: 12 }, () => ({ do: "submit", kind: "plain", who: 0, turns: 8 }));
  const found: string[] = [];
  for (let seed = 1; seed <= 5; seed++) {
    const { faults } = await play(seed, [...steps, { do: "crash", turns: 30 }], { lies: true }).catch((error) => ({
      faults: [String(error)],
    }));
    found.push(...faults);
  }
  expect(found.join()).toMatch(/is lost|log is damaged/);
});
