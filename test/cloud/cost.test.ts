import { describe, expect, test } from "vitest";
import { dollarsOf } from "../../bench/cost/units.ts";
import { type Places, queriesOf, settled, unitsOf } from "./cost.ts";

const places: Places = {
  stage: "x",
  table: "waggle-x-TableTable",
  socketUrl: "wss://a1b2c3d4e5.execute-api.us-east-1.amazonaws.com/$default",
};
const queries = queriesOf(places);

/** An answer in the shape of CloudWatch's, newest minute first, as it is recorded in its reference. */
const answer = (values: Readonly<Record<string, readonly number[]>>) =>
  queries.map(({ Id, MetricStat }) => {
    const { MetricName, Dimensions } = MetricStat?.Metric ?? {};
    const Values = [...(values[`${MetricName} ${Dimensions?.[0]?.Value}`] ?? [])];
    const Timestamps = Values.map((_, at) => new Date(Date.UTC(2026, 10, 26, 12, 10 - at)));
    return { Id, Label: MetricName, Timestamps, Values, StatusCode: "Complete" };
  });

const load = {
  "ConsumedWriteCapacityUnits waggle-x-TableTable": [800, 31],
  "ConsumedReadCapacityUnits waggle-x-TableTable": [408],
  "Invocations waggle-x-api": [400],
  "Duration waggle-x-api": [6000, 2000],
  "NumberOfMessagesSent waggle-x-dispatch": [3],
  "NumberOfMessagesDeleted waggle-x-dispatch": [3],
  "NumberOfEmptyReceives waggle-x-dispatch": [15],
  "MessageCount a1b2c3d4e5": [7],
};

describe("what a load cost in an account", () => {
  test("each metric is asked for once, and all fit in one call", () => {
    expect(new Set(queries.map(({ Id }) => Id)).size).toBe(queries.length);
    expect(new Set(queries.map(({ MetricStat }) => JSON.stringify(MetricStat))).size).toBe(queries.length);
    expect(queries.length).toBeLessThanOrEqual(500);
  });

  test("sums of minutes become the units that are billed, and those dollars", () => {
    const units = unitsOf(places, answer(load));
    expect(units).toMatchObject({
      writeUnits: 831,
      readUnits: 408,
      queueRequests: 21,
      lambdaCalls: 400,
      socketMessages: 7,
    });
    // 8 s on half a GB.
    expect(units.lambdaGbSeconds).toBeCloseTo(4, 9);
    const dollars = (831 * 0.625 + 408 * 0.125 + 21 * 0.4 + 400 * 0.2 + 7) / 1e6 + 4 * 0.0000133334;
    expect(dollarsOf(units)).toBeCloseTo(dollars, 12);
  });

  test("a metric whose values come on two pages counts whole", () => {
    const [first, ...rest] = answer(load);
    const pages = [{ ...first, Values: [800] }, ...rest, { Id: first?.Id as string, Values: [31] }];
    expect(unitsOf(places, pages as never)).toEqual(unitsOf(places, answer(load)));
  });

  test("metrics that are still to come are waited for", async () => {
    const early = answer({ ...load, "ConsumedWriteCapacityUnits waggle-x-TableTable": [] });
    const later = answer({ ...load, "ConsumedWriteCapacityUnits waggle-x-TableTable": [800] });
    const answers = [answer({}), answer({}), early, early, later, answer(load), answer(load)];
    const units = await settled(
      async () => unitsOf(places, answers.shift() as never),
      async () => {},
    );
    expect(units.writeUnits).toBe(831);
    await expect(
      settled(
        async () => unitsOf(places, answer({})),
        async () => {},
      ),
    ).rejects.toThrow("did not come to rest");
  });
});
