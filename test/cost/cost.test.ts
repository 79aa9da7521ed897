import { beforeAll, describe, expect, test } from "vitest";
import { dollarsOf } from "../../bench/cost/units.ts";
import { baseline, type Cost, dearer, measureCost, ways } from "../../bench/cost.ts";

describe("what a task costs on AWS", () => {
  let now: Cost;
  beforeAll(async () => {
    now = await measureCost();
  }, 120_000);

  test("no step of a task and no idle fleet takes more of AWS than the baseline says", () => {
    expect(dearer(baseline(), now), "npm run bench -- cost --write keeps new counts, if they must be").toEqual([]);
    expect(now.steps.map(({ name }) => name)).toEqual(baseline().steps.map(({ name }) => name));
  });

  test("a submit is one write, one message and the reading of its key", () => {
    const { units } = now.steps.find(({ name }) => name === "submit") ?? {};
    expect(units).toMatchObject({ writeUnits: 1, readUnits: 1, queueRequests: 1, lambdaCalls: 1 });
  });

  test("a whole task is the sum of its steps, at the prices listed", () => {
    const of = (name: string) => dollarsOf(now.steps.find((step) => step.name === name)?.units ?? ({} as never));
    const [first] = ways(now.steps);
    expect(dollarsOf(first?.units as never)).toBeCloseTo(of("submit") + of("dispatch, called") + of("complete"), 12);
  });

  test("a step that takes one unit more is found", () => {
    const [step, ...rest] = now.steps as [(typeof now.steps)[0], ...typeof now.steps];
    const worse = { ...step, units: { ...step.units, writeUnits: step.units.writeUnits + 1 } };
    expect(dearer(now, { ...now, steps: [worse, ...rest] })).toEqual([
      `submit: ${worse.units.writeUnits} writeUnits, not ${step.units.writeUnits}`,
    ]);
  });
});
