import { beforeAll, describe, expect, test } from "vitest";
import { measureSteps } from "../../bench/cost/steps.ts";
import { dollarsOf, noUnits } from "../../bench/cost/units.ts";
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

  const unitsOf = (name: string) => now.steps.find((step) => step.name === name)?.units ?? ({} as never);

  test("a submit is two plain writes where an agent is free, else one and a message; nothing more is read than its key, and now and then the fleet", () => {
    expect(unitsOf("submit")).toMatchObject({ writeUnits: 2, queueRequests: 0, lambdaCalls: 1 });
    expect(unitsOf("submit, nobody free")).toMatchObject({ queueRequests: 1, lambdaCalls: 1 });
    // One of ten asks an agent in vain that it thinks is free still.
    expect(unitsOf("submit, nobody free").writeUnits).toBeLessThan(1.2);
    expect(unitsOf("submit").readUnits).toBeLessThan(1.5);
  });

  test("one task after the other is submitted, dispatched and completed for less than four dollars a million", () => {
    const [single] = ways(now.steps);
    expect(dollarsOf(single?.units as never) * 1e6).toBeLessThanOrEqual(single?.goal as number);
    const pushed = dollarsOf({ ...unitsOf("submit"), socketMessages: 0 });
    expect(dollarsOf(single?.units as never)).toBeCloseTo(pushed + dollarsOf(unitsOf("complete")), 12);
  });

  test("submitted by tens, for less than two and a half", () => {
    const [, tens] = ways(now.steps);
    expect(dollarsOf(tens?.units as never) * 1e6).toBeLessThanOrEqual(tens?.goal as number);
  });

  test("an idle agent that is connected costs no more than its connection, its pings, and coming back after two hours", () => {
    const [fleet] = now.fleets.filter(({ name }) => name === "idle, connected");
    const { socketMinutes, ...rest } = fleet?.units ?? ({} as never);
    expect(dollarsOf({ ...rest, socketMinutes: 0 })).toBeLessThan(dollarsOf({ ...noUnits(), socketMinutes }));
  });

  test("counts are the same whoever works beside them, and however long the disk takes", async () => {
    const [one, other] = await Promise.all([measureSteps("embedded", 2), measureSteps("embedded", 2)]);
    expect(one).toEqual(other);
  }, 120_000);

  test("a step that takes one unit more is found", () => {
    const [step, ...rest] = now.steps as [(typeof now.steps)[0], ...typeof now.steps];
    const worse = { ...step, units: { ...step.units, writeUnits: step.units.writeUnits + 1 } };
    expect(dearer(now, { ...now, steps: [worse, ...rest] })).toEqual([
      `submit: ${worse.units.writeUnits} writeUnits, not ${step.units.writeUnits}`,
    ]);
  });
});
