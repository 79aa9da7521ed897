import { Agent, Task } from "@waggle/core";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { code, mode, openSystem, type System } from "../support/system.ts";

let system: System;
beforeEach(async () => {
  system = await openSystem();
});
afterEach(async () => {
  expect(system.errors).toEqual([]);
  await system.close();
});

describe("timeouts", () => {
  test("queueSeconds ends a task that was not started in time", async () => {
    const task = await system.task("x", { timeouts: { queueSeconds: 5 } });
    await system.pass(6);
    expect(await system.get(task.id)).toMatchObject({ status: "expired", error: { code: "task.queue_timeout" } });
  });
  test("runSeconds ends the attempt, frees the slot and tries again", async () => {
    const agent = await system.agent("a");
    const task = await system.task("x", { timeouts: { runSeconds: 5 }, retry: { initialSeconds: 0 } });
    const { fence } = await system.run(agent);
    await system.pass(6);
    expect(await system.get(task.id)).toMatchObject({ status: "queued", error: { code: "task.run_timeout" } });
    expect(await Agent.get(system.admin, agent)).toMatchObject({ running: 0 });
    expect(await code(Task.complete(system.as(agent), task.id, { fence }))).toBe("task.lease_lost");
  });
  test("heartbeatSeconds ends a silent attempt and spares one that speaks", async () => {
    const agent = await system.agent("a");
    const task = await system.task("x", { timeouts: { heartbeatSeconds: 4 } });
    const { fence } = await system.run(agent);
    for (let i = 0; i < 5; i++) {
      await system.pass(2);
      await Task.heartbeat(system.as(agent), task.id, { fence });
    }
    expect((await system.get(task.id)).status).toBe("running");
    await system.pass(6);
    expect((await system.get(task.id)).error?.code).toBe("task.heartbeat_timeout");
  });
  test("totalSeconds ends a task over all its attempts", async () => {
    const agent = await system.agent("a");
    const task = await system.task("x", {
      timeouts: { totalSeconds: 10 },
      retry: { maxAttempts: 100, initialSeconds: 0 },
    });
    const { fence } = await system.run(agent);
    await system.pass(11);
    expect(await system.get(task.id)).toMatchObject({ status: "expired", error: { code: "task.total_timeout" } });
    expect(await code(Task.complete(system.as(agent), task.id, { fence }))).toBe("task.lease_lost");
    expect(await Agent.get(system.admin, agent)).toMatchObject({ running: 0 });
  });
});

test("a deadline that cannot be looked at holds up no other that is due with it", async () => {
  const timeouts = { queueSeconds: 60 };
  const tasks = ["bad", "good"].map((type) => ({ type, timeouts, requires: [{ capability: "nobody" }] }));
  const { results } = await Task.createBatch(system.admin, Task.CreateBatch.parse({ tasks }));
  const [bad, good] = results.map((result) => ("task" in result ? result.task.id : "")) as [string, string];
  await system.quiet();
  const { store } = system.ports;
  const { get } = store;
  Object.assign(store, {
    async get(key: Parameters<typeof get>[0]) {
      if (key.sk === bad) throw new Error("it cannot be read");
      return get(key);
    },
  });
  await system.pass(61, 1);
  expect((await system.get(good)).status).toBe("expired");
  Object.assign(store, { get });
  await Task.cancel(system.admin, bad, {});
  await system.quiet();
  expect(new Set(system.errors.splice(0).map((error) => (error as Error).message))).toEqual(
    new Set(["it cannot be read"]),
  );
});

test.skipIf(mode.repeats)(
  "a deadline that cannot be looked at has the others that are due with it looked at no more often",
  async () => {
    const agent = await system.agent("a", { leaseSeconds: 3600 });
    const tasks = ["nobody", "work"].map((capability) => ({
      type: "t",
      timeouts: { queueSeconds: 60, totalSeconds: 600 },
      requires: [{ capability }],
    }));
    const { results } = await Task.createBatch(system.admin, Task.CreateBatch.parse({ tasks }));
    const [bad, good] = results.map((result) => ("task" in result ? result.task.id : ""));
    await system.quiet();
    const { task, fence } = await system.lease(agent);
    expect((await Task.start(system.as(agent), task.id, { fence })).id).toBe(good);
    const { store, queues } = system.ports;
    const { get } = store;
    const { send } = queues.timers;
    let looks = 0;
    let failures = 3;
    Object.assign(store, {
      async get(key: Parameters<typeof get>[0]) {
        if (key.sk === bad && failures-- > 0) throw new Error("it cannot be read");
        return get(key);
      },
    });
    Object.assign(queues.timers, {
      async send(messages: Parameters<typeof send>[0]) {
        for (const { body } of messages) if (JSON.stringify(body).includes(`"${good}"`)) looks++;
        await send(messages);
      },
    });
    await system.pass(125, 1);
    Object.assign(store, { get });
    expect((await system.get(bad as string)).status).toBe("expired");
    expect(system.errors.splice(0)).not.toEqual([]);
    expect(looks).toBe(1);
    Object.assign(queues.timers, { send });
  },
);

describe("a deadline that follows from another", () => {
  test("is kept: the back-off after a run timeout ends", async () => {
    const agent = await system.agent("a");
    const task = await system.task("x", { timeouts: { runSeconds: 5 }, retry: { initialSeconds: 60, maxSeconds: 60 } });
    await system.run(agent);
    await system.pass(6);
    const { status, scheduledAt } = await system.get(task.id);
    if (status === "scheduled")
      await system.pass((Date.parse(scheduledAt as string) - system.clock.now()) / 1000 + 0.5);
    expect((await system.get(task.id)).status).toBe("queued");
  });
  test("is kept: a task that was delayed still expires when nobody starts it", async () => {
    const task = await system.task("x", { delaySeconds: 5, timeouts: { queueSeconds: 10 } });
    await system.pass(6);
    expect((await system.get(task.id)).status).toBe("queued");
    await system.pass(10);
    expect((await system.get(task.id)).status).toBe("expired");
  });
});
