import { Agent, createId, DeadLetter, EventLog, type JsonText, Key, Status, Task } from "@waggle/core";
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

describe("a task", () => {
  test("goes from queued to completed and keeps its result, its history and its events", async () => {
    const agent = await system.agent("a");
    const task = await system.task("greet");
    expect((await system.get(task.id)).status).toBe("queued");
    const { fence } = await system.lease(agent);
    expect(await system.get(task.id)).toMatchObject({ status: "assigned", attempt: 1, fence: 1, agentId: agent });
    await Task.start(system.as(agent), task.id, { fence });
    const { task: done } = await Task.complete(system.as(agent), task.id, {
      fence,
      result: '{"ok": true}' as JsonText,
    });
    await system.quiet();
    expect(done).toMatchObject({ status: "completed", result: '{"ok": true}' });
    expect((await system.get(task.id)).history.map((entry) => entry.status)).toEqual([
      "queued",
      "assigned",
      "running",
      "completed",
    ]);
    const { items } = await EventLog.list(system.admin, { after: 0, limit: 50, taskId: task.id });
    expect(items.map((event) => event.type)).toEqual([
      "task.created",
      "task.queued",
      "task.assigned",
      "task.started",
      "task.completed",
    ]);
    const all = await EventLog.list(system.admin, { after: 0, limit: 50 });
    expect(all.items.map((event) => event.sequence)).toEqual(all.items.map((_, i) => i + 1));
    expect(await Agent.get(system.admin, agent)).toMatchObject({ running: 0, stats: { completed: 1, failed: 0 } });
  });

  test("is completed from assigned by an agent too quick to say it started", async () => {
    const agent = await system.agent("a");
    const task = await system.task("greet");
    const { fence } = await system.lease(agent);
    await Task.complete(system.as(agent), task.id, { fence });
    await system.quiet();
    const { items } = await EventLog.list(system.admin, { after: 0, limit: 50, taskId: task.id });
    expect(items.map((event) => event.type)).toEqual([
      "task.created",
      "task.queued",
      "task.assigned",
      "task.started",
      "task.completed",
    ]);
  });

  test("is given to one agent when several ask at once", async () => {
    const agents = await Promise.all(["a", "b", "c", "d"].map((name) => system.agent(name)));
    const task = await system.task("greet");
    const got = (
      await Promise.all(agents.map((id) => Agent.lease(system.as(id), id, { max: 1, waitSeconds: 0 })))
    ).flat();
    expect(got.map(({ task }) => task.id)).toEqual([task.id]);
  });

  test("has one recorded outcome: a repeated complete gets it again, a stale one is told the lease is lost", async () => {
    const agent = await system.agent("a");
    const task = await system.task("greet");
    const { fence } = await system.run(agent);
    await Task.complete(system.as(agent), task.id, { fence, result: "1" as JsonText });
    expect((await Task.complete(system.as(agent), task.id, { fence, result: "2" as JsonText })).task.result).toBe("1");
    expect(await code(Task.complete(system.as(agent), task.id, { fence: fence + 1 }))).toBe("task.lease_lost");
    expect(await code(Task.fail(system.as(agent), task.id, { fence: 7, error: { code: "x", message: "" } }))).toBe(
      "task.lease_lost",
    );
    expect((await system.get(task.id)).result).toBe("1");
  });

  test("is not there for an agent that never had it, nor for another tenant", async () => {
    const [a, b] = [await system.agent("a"), await system.agent("b")];
    const task = await system.task("greet");
    const { fence } = await system.lease(a);
    expect(await code(Task.complete(system.as(b), task.id, { fence }))).toBe("task.not_found");
    expect(await code(Task.get(system.tenant("other"), task.id))).toBe("task.not_found");
    expect(await code(Task.cancel(system.tenant("other"), task.id, {}))).toBe("task.not_found");
  });

  test("waits for a delay, and for a time given", async () => {
    const agent = await system.agent("a");
    const delayed = await system.task("greet", { delaySeconds: 30 });
    const timed = await system.task("greet", { notBefore: new Date(system.clock.now() + 20_000).toISOString() });
    expect(delayed.status).toBe("scheduled");
    await system.pass(19);
    expect((await system.get(timed.id)).status).toBe("scheduled");
    await system.pass(2);
    expect((await system.get(timed.id)).status).toBe("queued");
    await system.pass(10);
    expect((await system.get(delayed.id)).status).toBe("queued");
    expect((await system.lease(agent)).task.id).toBe(timed.id);
  });

  test.skipIf(mode.brief)("waits longer than a queue can delay", async () => {
    const task = await system.task("greet", { delaySeconds: 7200 });
    const { sweep } = await import("@waggle/core");
    for (let minute = 0; minute < 119; minute++) {
      await sweep(system.engine.ports);
      await system.pass(60, 60);
    }
    expect((await system.get(task.id)).status).toBe("scheduled");
    await system.pass(61, 61);
    expect((await system.get(task.id)).status).toBe("queued");
  });

  test.skipIf(mode.brief || mode.shared)("a week of standstill costs few writes where nothing is due", async () => {
    const { sweep } = await import("@waggle/core");
    const { ports, meter } = system.engine;
    const { clock } = system;
    await sweep(ports);
    const before = meter().writeUnits;
    await sweep({ ...ports, clock: { ...ports.clock, now: () => clock.now() + 7 * 24 * 3600_000 } });
    expect(meter().writeUnits - before).toBeLessThan(100);
    await sweep(ports);
  });

  test.skipIf(mode.brief)("waits for a long delay no longer, though the clock had been two hours ahead", async () => {
    const { sweep } = await import("@waggle/core");
    const { ports } = system.engine;
    const { clock } = system;
    await sweep({ ...ports, clock: { ...ports.clock, now: () => clock.now() + 2 * 3600_000 } });
    const task = await system.task("greet", { delaySeconds: 3600 });
    for (let minute = 0; minute < 61; minute++) {
      await sweep(ports);
      await system.pass(60, 60);
    }
    expect((await system.get(task.id)).status).toBe("queued");
  });
});

// Where others share the store the reconciler sees to it (reconcile.test.ts).
test("a wait for a task that is over before it begins is answered at once", async () => {
  const { id } = await system.task("greet");
  const wait = Task.get(system.admin, id, { waitSeconds: 20, signal: AbortSignal.abort() });
  expect((await wait).status).toBe("queued");
});

test.skipIf(mode.shared)(
  "a task finds an agent though the store kept it waiting for seconds as it was to be stored",
  async () => {
    const agent = await system.agent("a");
    const { store } = system.ports;
    const { transact } = store;
    Object.assign(store, {
      async transact(writes: Parameters<typeof transact>[0]) {
        Object.assign(store, { transact });
        await system.pass(3);
        return transact(writes);
      },
    });
    const task = await system.task("x", { concurrency: [{ key: "k", limit: 1 }] });
    expect((await system.lease(agent)).task.id).toBe(task.id);
  },
);

describe("retries", () => {
  test("begin anew after the back-off until the attempts are used up, then the task is a dead letter", async () => {
    const agent = await system.agent("a");
    const task = await system.task("flaky", { retry: { maxAttempts: 2, initialSeconds: 1 } });
    const first = await system.run(agent);
    const error = { code: "boom", message: "no luck" };
    await Task.fail(system.as(agent), task.id, { fence: first.fence, error });
    expect((await system.get(task.id)).status).toMatch(/scheduled|queued/);
    await system.pass(1.2);
    const second = await system.run(agent);
    expect(second.task).toMatchObject({ id: task.id, attempt: 2, fence: 2 });
    await Task.fail(system.as(agent), task.id, { fence: second.fence, error });
    await system.quiet();
    expect(await system.get(task.id)).toMatchObject({ status: "failed", error: { code: "boom" } });
    expect((await DeadLetter.list(system.admin, { limit: 10 })).items.map((item) => item.id)).toEqual([task.id]);
    expect(await DeadLetter.redrive(system.admin, { all: true })).toEqual({ redriven: 1, skipped: [] });
    await system.quiet();
    expect((await DeadLetter.list(system.admin, { limit: 10 })).items).toEqual([]);
    const third = await system.run(agent);
    expect(third.task).toMatchObject({ id: task.id, attempt: 1 });
  });

  test("are made of those that are named, whichever of them waits for another", async () => {
    const agent = await system.agent("a");
    const one = await system.task("one", { retry: { maxAttempts: 1 } });
    const two = await system.task("two", { dependsOn: [one.id] });
    const three = await system.task("three", { dependsOn: [two.id, one.id] });
    const { fence } = await system.run(agent);
    await Task.fail(system.as(agent), one.id, { fence, error: { code: "boom", message: "" } });
    await system.quiet();
    const taskIds = [three.id, two.id, three.id, "tsk_nobody", one.id];
    expect(await DeadLetter.redrive(system.admin, { taskIds })).toEqual({
      redriven: 3,
      skipped: [{ taskId: "tsk_nobody", code: "task.not_found" }],
    });
    await system.quiet();
    for (const id of [one.id, two.id, three.id]) {
      const assignment = await system.run(agent);
      expect(assignment.task.id).toBe(id);
      await Task.complete(system.as(agent), id, { fence: assignment.fence });
      await system.quiet();
    }
  });

  test.skipIf(mode.brief)(
    "are made of all dead letters by hand, however many newer ones cannot be tried again",
    async () => {
      const agent = await system.agent("a");
      const old = await system.task("old", { retry: { maxAttempts: 1 } });
      const { fence } = await system.run(agent);
      await Task.fail(system.as(agent), old.id, { fence, error: { code: "boom", message: "" } });
      const gone = await system.agent("gone");
      for (let n = 0; n < 10; n++) {
        const tasks = Array.from({ length: 100 }, () => ({ type: "bound", agentId: gone }));
        await Task.createBatch(system.admin, { tasks, atomic: false });
      }
      await Agent.remove(system.admin, gone, { mode: "force", graceSeconds: 0 });
      await system.quiet();
      const first = await DeadLetter.redrive(system.admin, { all: true });
      expect([first.redriven, first.skipped.length]).toEqual([0, 1000]);
      expect(first.skipped[0]?.code).toBe("task.not_retryable");
      const rest = await DeadLetter.redrive(system.admin, { all: true, cursor: first.nextCursor });
      expect(rest).toEqual({ redriven: 1, skipped: [] });
      await system.quiet();
      expect((await system.get(old.id)).status).toBe("queued");
    },
  );

  test("are not made for codes the task calls hopeless, nor when the agent says so", async () => {
    const agent = await system.agent("a", { maxConcurrency: 2 });
    const one = await system.task("x", { retry: { nonRetryable: ["bad_input"] } });
    const two = await system.task("x");
    const a = await system.run(agent);
    const b = await system.run(agent);
    await Task.fail(system.as(agent), one.id, { fence: a.fence, error: { code: "bad_input", message: "" } });
    await Task.fail(system.as(agent), two.id, { fence: b.fence, error: { code: "x", message: "", retryable: false } });
    expect((await system.get(one.id)).status).toBe("failed");
    expect((await system.get(two.id)).status).toBe("failed");
  });

  test("get the details the last attempt left", async () => {
    const agent = await system.agent("a");
    const task = await system.task("long", { retry: { initialSeconds: 0 } });
    const { fence } = await system.run(agent);
    await Task.heartbeat(system.as(agent), task.id, {
      fence,
      progress: { percent: 40 },
      details: '{"page":7}' as JsonText,
    });
    await Task.fail(system.as(agent), task.id, { fence, error: { code: "x", message: "" } });
    await system.quiet();
    const again = await system.lease(agent);
    expect(again.task).toMatchObject({ attempt: 2, details: '{"page":7}' });
  });

  test("are not used up by giving a task back", async () => {
    const agent = await system.agent("a");
    const task = await system.task("x");
    const { fence } = await system.run(agent);
    await Task.heartbeat(system.as(agent), task.id, { fence, progress: { percent: 40 } });
    await Task.release(system.as(agent), task.id, { fence });
    await system.quiet();
    const again = await system.run(agent);
    expect(again.task).toMatchObject({ id: task.id, attempt: 1, fence: 2 });
    // How far the last attempt was says nothing of this one.
    expect(again.task.progress).toBeUndefined();
    expect(await code(Task.retry(system.admin, task.id))).toBe("task.not_retryable");
  });
  test("begin for a task given back though the message that says so is quicker than the change", async () => {
    const agent = await system.agent("a");
    const task = await system.task("x");
    const { fence } = await system.run(agent);
    const { transact, write } = system.ports.store;
    Object.assign(system.ports.store, {
      transact: async (writes: Parameters<typeof transact>[0]) => {
        await system.quiet();
        return transact(writes);
      },
      write: async (each: Parameters<typeof write>[0]) => {
        await system.quiet();
        return write(each);
      },
    });
    await Task.release(system.as(agent), task.id, { fence });
    Object.assign(system.ports.store, { transact, write });
    await system.pass(2);
    expect((await system.run(agent)).task).toMatchObject({ id: task.id, fence: 2 });
  });
});

describe("cancel", () => {
  test("ends a waiting task at once, and a scheduled one", async () => {
    const queued = await system.task("x");
    const scheduled = await system.task("x", { delaySeconds: 60 });
    expect((await Task.cancel(system.admin, queued.id, { reason: "no need" })).status).toBe("cancelled");
    expect((await Task.cancel(system.admin, scheduled.id, {})).status).toBe("cancelled");
    await system.pass(61, 61);
    expect((await system.get(scheduled.id)).status).toBe("cancelled");
  });
  test("tells the agent on its heartbeat, and fences it when it does not stop", async () => {
    const agent = await system.agent("a");
    const task = await system.task("x");
    const { fence } = await system.run(agent);
    expect(await Task.cancel(system.admin, task.id, {})).toMatchObject({ status: "running", cancelRequested: true });
    expect((await Agent.heartbeat(system.as(agent), agent, {})).cancel).toEqual([task.id]);
    await system.pass(11);
    expect((await system.get(task.id)).status).toBe("cancelled");
    expect(await code(Task.complete(system.as(agent), task.id, { fence }))).toBe("task.lease_lost");
    expect(await Agent.get(system.admin, agent)).toMatchObject({ running: 0 });
    expect((await Agent.heartbeat(system.as(agent), agent, {})).cancel).toEqual([]);
  });
  test("keeps the caller's reason when the agent stops in time, by failing or by giving back", async () => {
    const agent = await system.agent("a");
    for (const stop of ["fail", "release"] as const) {
      const task = await system.task("x");
      const { fence } = await system.run(agent);
      await Task.cancel(system.admin, task.id, { reason: "plans changed" });
      if (stop === "release") await Task.release(system.as(agent), task.id, { fence, reason: "told to" });
      else await Task.fail(system.as(agent), task.id, { fence, error: { code: "aborted", message: "" } });
      expect(await system.get(task.id)).toMatchObject({ status: "cancelled", error: { message: "plans changed" } });
    }
  });
  test("leaves an outcome as it is", async () => {
    const agent = await system.agent("a");
    const task = await system.task("x");
    const { fence } = await system.run(agent);
    await Task.complete(system.as(agent), task.id, { fence });
    expect((await Task.cancel(system.admin, task.id, {})).status).toBe("completed");
  });
});

describe("a batch", () => {
  // DynamoDB takes nothing back.
  test.skipIf(mode.shared)(
    "whose key was taken back, as the disk failed, makes no task: the call that comes again makes them",
    async () => {
      const { store } = system.ports;
      const key = { key: "b", hash: "h" };
      const asked = { tasks: [{ type: "x" }, { type: "x", delaySeconds: 5 }], atomic: false };
      const failing: typeof store = {
        ...store,
        async write(write) {
          const result = await store.write(write);
          if ("put" in write && write.put.kind === "idempotency") await store.write({ delete: write.put });
          return result;
        },
      };
      const scope = { ...system.admin, ports: { ...system.ports, store: failing } };
      const refused = Task.createBatch(
        scope,
        { ...asked, tasks: [{ type: "x" }, { type: "x" }] },
        { idempotency: key },
      );
      expect(await code(refused)).toBe("store.unavailable");
      const { results } = await Task.createBatch(system.admin, asked, { idempotency: key });
      await system.quiet();
      const { items } = await Task.list(system.admin, Task.ListQuery.parse({}));
      expect(items.map(({ id }) => id).sort()).toEqual(results.map((each) => "task" in each && each.task.id).sort());
    },
  );
  const batch = (tasks: unknown[], atomic = false) => Task.createBatch(system.admin, { tasks, atomic });
  test("takes good entries and answers a problem for each bad one, in order", async () => {
    const { results } = await batch([{ type: "a" }, { type: "" }, { type: "b", bogus: 1 }, { type: "c" }]);
    expect(results.map((result) => ("task" in result ? result.task.type : result.problem.code))).toEqual([
      "a",
      "request.invalid",
      "request.invalid",
      "c",
    ]);
  });
  test("names every wrong field of a bad entry, in the words used of a task by itself", async () => {
    const { results } = await batch([{}, { type: "a", bogus: 1, odd: 2 }]);
    expect(results.map((result) => "problem" in result && result.problem.extra.errors)).toEqual([
      [{ path: "type", message: "required: expected string" }],
      [
        { path: "bogus", message: "unknown field" },
        { path: "odd", message: "unknown field" },
      ],
    ]);
  });
  test("atomic: takes none when one is bad", async () => {
    expect(await code(batch([{ type: "a" }, { type: "" }], true))).toBe("request.invalid");
    expect((await Task.list(system.admin, { limit: 10 })).items).toEqual([]);
  });
  test("may depend on one another by ref, in any order", async () => {
    const { results } = await batch(
      [
        { type: "last", dependsOn: ["ref:first"] },
        { type: "first", ref: "first" },
      ],
      true,
    );
    await system.quiet();
    const [last, first] = results.map((result) => ("task" in result ? result.task : undefined));
    expect(last).toMatchObject({ status: "scheduled", dependsOn: [first!.id] });
    await Task.cancel(system.admin, first!.id, {});
    await system.quiet();
    expect((await system.get(last!.id)).error?.code).toBe("task.dependency_failed");
  });
  test("refuses a cycle and all that wait for it", async () => {
    const { results } = await batch([
      { type: "a", ref: "a", dependsOn: ["ref:b"] },
      { type: "b", ref: "b", dependsOn: ["ref:a"] },
      { type: "c", dependsOn: ["ref:a"] },
      { type: "d" },
    ]);
    expect(results.map((result) => ("task" in result ? "taken" : result.problem.code))).toEqual([
      "task.dependency_cycle",
      "task.dependency_cycle",
      "task.dependency_cycle",
      "taken",
    ]);
  });
});

describe("an idempotency key", () => {
  const create = (type: string, key: string, hash = type) =>
    Task.create(system.admin, Task.Create.parse({ type, requires: [{ capability: "work" }] }), {
      idempotency: { key, hash },
    });
  test("makes one task of the same request sent twice, and answers the same", async () => {
    const first = await create("a", "k1");
    const second = await create("a", "k1");
    expect(second).toEqual({ ...first, replayed: true });
    expect((await Task.list(system.admin, { limit: 10 })).items).toHaveLength(1);
  });
  test("is refused for another request, and free again after a day", async () => {
    await create("a", "k1");
    expect(await code(create("b", "k1"))).toBe("idempotency.mismatch");
    system.clock.advance(24 * 3600 * 1000 + 1);
    expect((await create("b", "k1")).replayed).toBe(false);
  });
  test("or an id of its own gives an agent the child it asked for again, though it lost the parent since", async () => {
    const [own, other] = [await system.agent("a"), await system.agent("b")];
    const parent = await system.task("x");
    const { fence } = await system.run(own);
    const id = createId("tsk", system.clock.now(), system.ports.random);
    const child = (more: object = {}) => Task.Create.parse({ type: "child", parentId: parent.id, ...more });
    const options = { idempotency: { key: "child", hash: "h" } };
    const byKey = () => Task.create(system.as(own), child(), options);
    const byId = (agent = own) => Task.create(system.as(agent), child({ id }));
    const [first] = [await byKey(), await byId()];
    await Task.complete(system.as(own), parent.id, { fence });
    await system.quiet();
    expect(await byKey()).toEqual({ ...first, replayed: true });
    expect(await byId()).toMatchObject({ task: { id }, replayed: true });
    expect(await code(byId(other))).toBe("task.parent_not_found");
    expect(await code(Task.create(system.as(own), child()))).toBe("task.parent_not_found");
    expect(await code(Task.create(system.as(own), Task.Create.parse({ type: "orphan" })))).toBe("auth.forbidden");
  });
  test("is an id of its own as well, of a task with a large input that was tried again by hand", async () => {
    const id = createId("tsk", system.clock.now(), system.ports.random);
    const input = JSON.stringify("x".repeat(80_000)) as JsonText;
    const asked = Task.Create.parse({ type: "x", id, input, timeouts: { totalSeconds: 600 } });
    await Task.create(system.admin, asked);
    await Task.cancel(system.admin, id, {});
    system.clock.advance(5000);
    await Task.retry(system.admin, id);
    await system.quiet();
    expect(await Task.create(system.admin, asked)).toMatchObject({ replayed: true, task: { id, input } });
    const other = { ...asked, input: JSON.stringify("y".repeat(80_000)) as JsonText };
    expect(await code(Task.create(system.admin, other))).toBe("idempotency.mismatch");
  });
  test("is an id of its own as well, in whatever order the store keeps what was asked", async () => {
    const id = createId("tsk", system.clock.now(), system.ports.random);
    const timeouts = { queueSeconds: 60, totalSeconds: 600, heartbeatSeconds: 5 };
    const asked = Task.Create.parse({ type: "x", id, timeouts, retry: { maxAttempts: 2 } });
    await Task.create(system.admin, asked);
    await system.quiet();
    const turned = (value: unknown): unknown => {
      if (Array.isArray(value) || typeof value !== "object" || value === null) return value;
      return Object.fromEntries(
        Object.entries(value)
          .reverse()
          .map(([name, part]) => [name, turned(part)]),
      );
    };
    const { get } = system.ports.store;
    Object.assign(system.ports.store, { get: async (key: Parameters<typeof get>[0]) => turned(await get(key)) });
    expect(await Task.create(system.admin, asked)).toMatchObject({ task: { id }, replayed: true });
    const other = { ...asked, retry: { ...asked.retry, maxAttempts: 3 } };
    expect(await code(Task.create(system.admin, other))).toBe("idempotency.mismatch");
    Object.assign(system.ports.store, { get });
  });
  test("makes one task of many requests at once, whatever their size", async () => {
    for (const size of [10, 80_000]) {
      const input = Task.Create.parse({ type: "a", input: JSON.stringify("x".repeat(size)) });
      const options = { idempotency: { key: `race-${size}`, hash: "h" } };
      const made = await Promise.all(Array.from({ length: 8 }, () => Task.create(system.admin, input, options)));
      expect(new Set(made.map(({ task }) => task.id)).size).toBe(1);
      expect(made.filter(({ replayed }) => !replayed)).toHaveLength(1);
    }
    expect((await Task.list(system.admin, { limit: 10 })).items).toHaveLength(2);
  });
  test("holds for a batch as for a single task", async () => {
    const tasks = [{ type: "a" }, { type: "b" }];
    const options = { idempotency: { key: "k2", hash: "h" } };
    const first = await Task.createBatch(system.admin, { tasks, atomic: false }, options);
    const second = await Task.createBatch(system.admin, { tasks, atomic: false }, options);
    expect(second.replayed).toBe(true);
    expect(second.results).toEqual(first.results);
    expect((await Task.list(system.admin, { limit: 10 })).items).toHaveLength(2);
  });
  test("makes no task of a batch's entry that was refused at first, though what it lacked came since", async () => {
    const id = createId("tsk", system.clock.now(), system.ports.random);
    const tasks = [{ type: "a" }, { type: "b", ref: "b", dependsOn: [id] }, { type: "c", dependsOn: ["ref:b"] }];
    const send = async () => {
      const options = { idempotency: { key: "k3", hash: "h" } };
      const { results } = await Task.createBatch(system.admin, { tasks, atomic: false }, options);
      return results.map((result) => ("task" in result ? result.task.type : result.problem.code));
    };
    expect(await send()).toEqual(["a", "task.dependency_not_found", "task.batch_refused"]);
    await Task.create(system.admin, Task.Create.parse({ type: "late", id }));
    expect(await send()).toEqual(["a", "task.batch_refused", "task.batch_refused"]);
    expect((await Task.list(system.admin, { limit: 10 })).items).toHaveLength(2);
  });
});

describe("lists", () => {
  test.skipIf(mode.brief)("give every task once, newest first, page by page, under any filter", async () => {
    const ids: string[] = [];
    for (let i = 0; i < 25; i++) {
      system.clock.advance(1);
      ids.push((await system.task(i % 2 ? "odd" : "even", { tags: i % 5 ? [] : ["fifth"] })).id);
    }
    const all = async (query: Record<string, unknown>) => {
      const seen: string[] = [];
      for (let cursor: string | undefined; ; ) {
        const page = await Task.list(
          system.admin,
          Task.ListQuery.parse({ limit: 4, ...query, ...(cursor && { cursor }) }),
        );
        seen.push(...page.items.map((item) => item.id));
        if (!page.nextCursor) return seen;
        cursor = page.nextCursor;
      }
    };
    const newestFirst = [...ids].reverse();
    expect(await all({})).toEqual(newestFirst);
    expect(await all({ status: "queued" })).toEqual(newestFirst);
    expect(await all({ type: "odd" })).toEqual(newestFirst.filter((id) => ids.indexOf(id) % 2));
    expect(await all({ tag: "fifth", type: "even" })).toEqual(newestFirst.filter((id) => ids.indexOf(id) % 10 === 0));
    expect(await all({ status: "completed" })).toEqual([]);
  });
  test("show a tenant nothing of another's", async () => {
    await system.task("x");
    expect((await Task.list(system.tenant("other"), { limit: 10 })).items).toEqual([]);
  });
});

describe("the status", () => {
  test("tells the age of the oldest task that waits, not of one that was cancelled before", async () => {
    const { id } = await system.task("x");
    await system.pass(30);
    await system.task("x");
    await Task.cancel(system.admin, id, {});
    await system.quiet();
    expect((await Status.read(system.admin)).queues).toEqual([{ capability: "work", waiting: 1, oldestSeconds: 0 }]);
  });
  test("counts a task once for each capability it needs, and has each name once", async () => {
    const twice = await system.task("x", { requires: [{ capability: "work" }, { capability: "work", minLevel: 0.5 }] });
    await system.task("x", { requires: [{ capability: "any" }] });
    await system.pass(30);
    await system.task("x", { requires: [] });
    await system.quiet();
    const queues = async () =>
      (await Status.read(system.admin)).queues.sort((a, b) => (a.capability < b.capability ? -1 : 1));
    const any = { capability: "any", waiting: 2, oldestSeconds: 30 };
    expect(await queues()).toEqual([any, { capability: "work", waiting: 1, oldestSeconds: 30 }]);
    await Task.cancel(system.admin, twice.id, {});
    await system.quiet();
    expect(await queues()).toEqual([any]);
    const depths = (await Status.metrics(system.ports)).find(({ name }) => name === "waggle_queue_depth")?.samples;
    expect(depths).toEqual([{ labels: { tenant: "acme", capability: "any" }, value: 2 }]);
  });
});

test("a name there was no room to count under counts as ever once there was, however many came before", async () => {
  const long = (text: string) => ({ capability: `${text}-${"é".repeat(120)}` });
  const waiting = async () => {
    await system.quiet();
    const { queues } = await Status.read(system.admin);
    return queues.find(({ capability }) => capability === late.capability)?.waiting ?? 0;
  };
  // Longer than the others: where one of them did not fit, it does not either.
  const late = { capability: `late-${"é".repeat(123)}` };
  const submit = async () => (await system.task("x", { requires: [late] })).id;
  const full: string[] = [];
  // What the first leaves room for, as numbers take less than is reckoned, the second takes.
  for (const which of ["a", "b"]) {
    const requires = Array.from({ length: 64 }, (_, n) => long(`${which}${n}`));
    full.push((await system.task("x", { requires })).id);
    expect(await waiting()).toBe(0);
  }
  const uncounted = [await submit(), await submit()];
  expect(await waiting()).toBe(0);
  for (const id of full) await Task.cancel(system.admin, id, {});
  expect(await waiting()).toBe(0);
  const ids = [...uncounted, await submit()];
  expect(await waiting()).toBe(1);
  for (const id of ids) await Task.cancel(system.admin, id, {});
  expect(await waiting()).toBe(0);
  await submit();
  expect(await waiting()).toBe(1);
});

test("rates count what was told in the last minute, also where the log goes on in another partition", async () => {
  await system.ports.store.write({ put: { pk: "acme#EH", sk: "head", kind: "events-head", last: 999_994 } });
  for (let n = 0; n < 6; n++) await system.task("x");
  expect(await EventLog.last(system.admin)).toBe(1_000_006);
  expect((await Status.rates(system.admin)).perSecond.created).toBe(0.1);
});

test("metrics tell of every tenant after a restart, whether or not anything came of it since", async () => {
  await Key.create(system.tenant("quiet"), { role: "admin" });
  await system.reopen().then((again) => (system = again));
  const tenants = async (only?: string) =>
    new Set(
      (await Status.metrics(system.ports, only)).flatMap(({ samples }) => samples.map(({ labels }) => labels.tenant)),
    );
  if (!mode.shared) expect(await tenants()).toContain("quiet");
  expect([...(await tenants("quiet"))]).toEqual(["quiet"]);
});

describe("payloads", () => {
  test("above 64 KiB come back whole", async () => {
    const agent = await system.agent("a");
    const input = JSON.stringify({ text: "é".repeat(60_000) }) as JsonText;
    const task = await system.task("x", { input });
    expect(task.input).toBe(input);
    const assignment = await system.run(agent);
    expect(assignment.task.input).toBe(input);
    await Task.complete(system.as(agent), task.id, { fence: assignment.fence, result: input });
    expect(await system.get(task.id)).toMatchObject({ input, result: input, status: "completed" });
  });
  test("of any names leave lists and counters alone, of that tenant and of all others", async () => {
    const name = (task: number, n: number) => `${task}-${n}-${"é".repeat(120)}`;
    const odd = Array.from({ length: 30 }, (_, task) =>
      Array.from({ length: 64 }, (_, n) => ({ capability: name(task, n) })),
    );
    const ids: string[] = [];
    for (const requires of odd) ids.push((await system.task("odd", { requires })).id);
    await system.quiet();
    const listed = await Task.list(system.admin, { limit: 50, type: "odd" });
    expect(listed.items.map(({ id }) => id).sort()).toEqual(ids.sort());
    expect((await Status.read(system.admin)).tasks.byStatus.queued).toBe(30);
    for (const id of ids) await Task.cancel(system.admin, id, {});
    await system.task("x");
    await system.quiet();
    const { tasks, queues } = await Status.read(system.admin);
    expect(tasks.byStatus).toMatchObject({ queued: 1, cancelled: 30 });
    expect(queues).toMatchObject([{ capability: "work", waiting: 1 }]);
  });
  test("leave room for what becomes of the task, or are refused when it is submitted", async () => {
    const text = (bytes: number) => JSON.stringify("x".repeat(bytes - 2)) as JsonText;
    const large = { input: text(64 * 1024), metadata: text(130 * 1024) };
    expect(await code(system.task("x", { ...large, metadata: text(150 * 1024) }))).toBe("store.item_too_large");
    const agent = await system.agent("a");
    const task = await system.task("x", { ...large, retry: { maxAttempts: 2, initialSeconds: 0 } });
    const first = await system.run(agent);
    const details = text(64 * 1024);
    await Task.heartbeat(system.as(agent), task.id, { fence: first.fence, details });
    // Enough of them, and nobody could end the task any more.
    const more = { fence: first.fence, details: text(64 * 1024 + 1) };
    expect(await code(Task.heartbeat(system.as(agent), task.id, more))).toBe("store.item_too_large");
    const error = { code: "bad", message: "é".repeat(16_000) };
    await Task.fail(system.as(agent), task.id, Task.Fail.parse({ fence: first.fence, error }));
    await system.quiet();
    const { fence } = await system.run(agent);
    await Task.complete(system.as(agent), task.id, { fence, result: text(64 * 1024) });
    expect(await system.get(task.id)).toMatchObject({ status: "completed", metadata: large.metadata });
  });
});
