import fc from "fast-check";
import { expect, test } from "vitest";
import { play, type Step } from "./world.ts";

const who = fc.nat(2);
const kind = fc.constantFrom("plain", "following", "limited", "delayed", "urgent", "batch" as const);
const weights = { submit: 8, lease: 8, complete: 8, fail: 2, release: 1, beat: 3, cancel: 1, pass: 3, crash: 2 };
const turns = fc.oneof({ weight: 3, arbitrary: fc.nat(3) }, { weight: 1, arbitrary: fc.nat(25) });
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: weights.submit, arbitrary: fc.record({ do: fc.constant("submit" as const), kind, turns }) },
  ...(["lease", "complete", "fail", "release", "beat"] as const).map((act) => ({
    weight: weights[act],
    arbitrary: fc.record({ do: fc.constant(act), who, turns }),
  })),
  { weight: weights.cancel, arbitrary: fc.record({ do: fc.constant("cancel" as const), which: fc.nat(30), turns }) },
  {
    weight: weights.pass,
    arbitrary: fc.record({ do: fc.constant("pass" as const), seconds: fc.constantFrom(0.5, 1, 4, 12), turns }),
  },
  { weight: weights.crash, arbitrary: fc.record({ do: fc.constant("crash" as const), turns }) },
);
const history = fc.array(step, { minLength: 15, maxLength: 80, size: "max" });

/** How many histories; a run of thousands is told of. */
const runs = Number(process.env.WAGGLE_SIMULATION_RUNS ?? 60);
/** The short form ends after this; a long run goes on for as long as it takes. */
const patienceMs = process.env.WAGGLE_SIMULATION_RUNS === undefined ? 12_000 : Number.POSITIVE_INFINITY;
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
      ...(process.env.WAGGLE_SIMULATION_SEED !== undefined && { seed: Number(process.env.WAGGLE_SIMULATION_SEED) }),
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
  const steps: Step[] = Array.from({ length: 12 }, () => ({ do: "submit", kind: "plain", turns: 8 }));
  const found: string[] = [];
  for (let seed = 1; seed <= 5; seed++) {
    const { faults } = await play(seed, [...steps, { do: "crash", turns: 30 }], { lies: true }).catch((error) => ({
      faults: [String(error)],
    }));
    found.push(...faults);
  }
  expect(found.join()).toMatch(/is lost|log is damaged/);
});
