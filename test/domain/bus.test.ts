import { Agent, type BusEvent, EventLog, itemBytes, storeLimits, Task } from "@waggle/core";
import { afterEach, beforeEach, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { code, openSystem, type System } from "../support/system.ts";

let system: System;
const given: BusEvent[] = [];
beforeEach(async () => {
  system = await openSystem();
  given.length = 0;
  await system.engine.ports.bus.putRule("all", { source: ["waggle"] }, async (event) => void given.push(event));
});
afterEach(() => system.close());

const served = async () => {
  const agent = await system.agent("a");
  const task = await system.task("greet");
  const { fence } = await system.lease(agent);
  await Task.start(system.as(agent), task.id, { fence });
  await Task.complete(system.as(agent), task.id, { fence });
  await system.quiet();
  return { agent, task };
};

test("nothing goes to the bus that nobody subscribes to", async () => {
  await EventLog.subscribe(system.admin, { types: ["task.completed"] });
  await served();
  await eventually("the one event", () => given.length > 0);
  await system.quiet();
  expect(given.map(({ detailType }) => detailType)).toEqual(["task.completed"]);
});

test("what somebody subscribes to goes with its subject, order and tenant, as declared", async () => {
  await EventLog.subscribe(system.admin, { types: ["task.*"] });
  const { agent, task } = await served();
  await eventually("the task's end", () => given.some(({ detailType }) => detailType === "task.completed"));
  const own = given.toSorted((a, b) => sequence(a) - sequence(b));
  expect(own.map(({ detailType }) => detailType)).toEqual([
    "task.created",
    "task.queued",
    "task.assigned",
    "task.started",
    "task.completed",
  ]);
  expect(own.at(-1)).toMatchObject({
    source: "waggle",
    detail: {
      taskId: task.id,
      taskType: "greet",
      agentId: agent,
      metadata: { tenant: "acme", subject: task.id, actor: agent, hops: 0 },
    },
  });
  expect(new Set(own.map(({ id }) => id)).size).toBe(own.length);
});

test("every event of the log is of a declared kind, and its data as declared", async () => {
  await served();
  const failing = await system.agent("b");
  const { items } = await EventLog.list(system.admin, { after: 0, limit: 200 });
  expect(items.length).toBeGreaterThan(5);
  expect(failing).toBeDefined();
  for (const { type, data } of items) {
    const declared = EventLog.eventKinds.get(type)?.data;
    expect(declared?.safeParse(data)).toMatchObject({ success: true });
    expect(Object.keys(declared?.shape ?? {})).toEqual(expect.arrayContaining(Object.keys(data)));
  }
});

test("however long the errors that agents tell of, no row of the log is larger than a row may be", async () => {
  const count = 40;
  const agent = await system.agent("a", { maxConcurrency: count });
  for (let n = 0; n < count; n++) await system.task("hard", { retry: { maxAttempts: 1 } });
  const held = await Agent.lease(system.as(agent), agent, { max: count, waitSeconds: 0 });
  const error = { code: "hard", message: "€".repeat(16_384) };
  await Promise.all(held.map(({ task, fence }) => Task.fail(system.as(agent), task.id, { fence, error })));
  await system.quiet();
  await system.ports.store.projected();
  const { items } = await system.ports.store.query({ pk: "acme#E#0", limit: 1000 });
  expect(Math.max(...items.map(itemBytes))).toBeLessThanOrEqual(storeLimits.itemBytes);
  const failed = await EventLog.list(system.admin, { after: 0, limit: 200, types: "task.failed" });
  expect(failed.items.map(({ data }) => data.error)).toEqual(held.map(() => error));
});

test("a type there is not is refused", async () => {
  expect(await code(EventLog.subscribe(system.admin, { types: ["task.eaten"] }))).toBe("request.invalid");
  expect(await EventLog.subscription(system.admin)).toEqual({ types: [] });
});

const sequence = ({ detail }: BusEvent): number => (detail.metadata as { sequence: number }).sequence;
