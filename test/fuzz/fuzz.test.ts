import { afterAll, beforeAll, expect, test } from "vitest";
import { apiOf } from "../support/api.ts";
import type { Document } from "./calls.ts";
import { callRound, described, noFigures } from "./round.ts";
import { socketRound } from "./sockets.ts";
import { markHeader, openTarget, type Target } from "./target.ts";

/* The short form of `npm run fuzz`: each run has other inputs, and a failure names the seed that has them again. */

let target: Target;
beforeAll(async () => {
  target = await openTarget();
});
afterAll(() => target?.stop());

const figures = noFigures();
const patience = { timeout: 120_000 };

test(
  "whatever is sent to any route: no 5xx, no silence, and a refusal says why and changes nothing",
  patience,
  async () => {
    const seed = Math.floor(Math.random() * 2 ** 30);
    const failure = await callRound(target, { seed, inputs: 1000, figures });
    expect(described(failure), `again: npm run fuzz -- --only calls --inputs 1000 --seed ${seed}`).toBe("");
    expect(target.errors).toEqual([]);
  },
);

test(
  "whatever an agent sends on its socket: each frame is answered, and a refused one changes nothing",
  patience,
  async () => {
    const seed = Math.floor(Math.random() * 2 ** 30);
    const failure = await socketRound(target, { seed, inputs: 100, figures });
    expect(described(failure), `again: npm run fuzz -- --only frames --inputs 100 --seed ${seed}`).toBe("");
    expect(target.errors).toEqual([]);
  },
);

test("a task that is refused leaves no payload behind", async () => {
  const api = apiOf(target.url, target.adminKey);
  const input = "x".repeat(100_000);
  const id = "tsk_0123456789abcdefghjkmn";
  expect((await api.post("/v1/tasks", { type: "a", id, input })).status).toBe(201);
  for (const [name, task] of Object.entries({
    dependency: { type: "a", input, dependsOn: ["tsk_0000000000000000000000"] },
    room: { type: "a", input, metadata: "x".repeat(500_000) },
    another: { type: "a", input: `${input}y`, id },
    entry: {
      tasks: [
        { type: "a", input, dependsOn: ["ref:b"] },
        { type: "a", ref: "b", requires: 1 },
      ],
      atomic: true,
    },
  })) {
    const changed = target.watch(name);
    const { status } = await api.post(name === "entry" ? "/v1/tasks/batch" : "/v1/tasks", task, { [markHeader]: name });
    expect([name, status >= 400, changed()]).toEqual([name, true, []]);
  }
});

test("the inputs are as intended: every operation is called, most are refused, and some are taken", async () => {
  const { body } = await apiOf(target.url, target.adminKey).get<Document>("/openapi.json");
  const operations = Object.values(body.paths).flatMap((byMethod) => Object.values(byMethod));
  expect([...figures.called].sort()).toEqual(operations.map(({ operationId }) => operationId).sort());

  const of = (from: number, to: number) =>
    Object.entries(figures.byStatus).reduce(
      (sum, [status, count]) => sum + (+status >= from && +status < to ? count : 0),
      0,
    );
  expect(of(400, 500)).toBeGreaterThan(of(200, 300));
  expect(of(200, 300)).toBeGreaterThan(100);
});
