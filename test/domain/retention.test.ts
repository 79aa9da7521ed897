import {
  createId,
  DeadLetter,
  EventLog,
  idempotencyKey,
  type JsonText,
  Retention,
  type RowKey,
  type Scope,
  Task,
} from "@waggle/core";
import { Audit } from "@waggle/core/audit";
import type { EmbeddedEngine } from "@waggle/engine-embedded";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { code, diesAfter, openSystem, type System } from "../support/system.ts";

let system: System;
beforeEach(async () => {
  system = await openSystem();
});
afterEach(async () => {
  expect(system.errors).toEqual([]);
  await system.close();
});

/** Rows that expire go to the table on disk, where deletion looks for them. */
const checkpoint = () => (system.engine as EmbeddedEngine).checkpoint();
const day = 24 * 3600;
const store = { get: (key: RowKey) => system.ports.store.get(key), projected: () => system.ports.store.projected() };

async function done(type: string, more: Record<string, unknown> = {}, result = '{"ok":true}'): Promise<Task.Info> {
  const agent = await system.agent(`agent of ${type}`);
  const task = await system.task(type, more);
  const { fence } = await system.lease(agent);
  await Task.complete(system.as(agent), task.id, { fence, result: result as JsonText });
  await system.quiet();
  return task;
}

/** Until rows that are due are gone. */
async function retire(id: string): Promise<void> {
  await eventually(`${id} is deleted`, async () => {
    await checkpoint();
    system.clock.advance(5_000);
    await system.quiet();
    return (await code(system.get(id))) === "task.not_found";
  });
}

const rowsOf = async (pk: string) => (await system.ports.store.query({ pk, limit: 1000 })).items;

test("what a caller made anew under the id of a task that was deleted keeps its input, though that is cleared up late", async () => {
  const id = createId("tsk", system.clock.now(), system.ports.random);
  const input = JSON.stringify("x".repeat(70_000)) as JsonText;
  const first = await done("greet", { id, input });
  const { batchWrite } = system.ports.store;
  const key = { pk: "", sk: id };
  for (let shard = 0; key.pk === "" && shard < 16; shard++)
    if (await store.get({ pk: `acme#T#${shard}`, sk: id })) key.pk = `acme#T#${shard}`;
  // Gone, and there again, before anybody looks.
  const ended = await store.get(key);
  await batchWrite([{ delete: key }]);
  system.clock.advance(1000);
  // The new input is put while what is gone is cleared up, and the new task is stored after that.
  const { blobs } = system.ports;
  const own = { ...blobs };
  let isPut = () => {};
  const put = new Promise<void>((resolve) => (isPut = resolve));
  let isCleared = () => {};
  const cleared = new Promise<void>((resolve) => (isCleared = resolve));
  Object.assign(blobs, {
    async put(...kept: Parameters<typeof blobs.put>) {
      await own.put(...kept);
      isPut();
      await cleared;
    },
    async delete(gone: string) {
      await put;
      await own.delete(gone);
      isCleared();
    },
  });
  const again = Task.create(system.admin, Task.Create.parse({ id, type: "greet", input }));
  expect((await again).task.id).toBe(first.id);
  await system.quiet();
  expect(ended?.inputBlob).toBeDefined();
  // The log tells of both, one after the other.
  expect((await Audit.run(system.ports)).findings).toEqual([]);
  expect(await system.get(id)).toMatchObject({ status: "queued", input });
});

test("a new retention holds for what has ended though the server died in the moment it was set", async () => {
  const task = await done("greet");
  diesAfter(system.ports, "write");
  await expect(Retention.put(system.admin, { taskSeconds: 3600 })).rejects.toThrow("died");
  system = await system.reopen();
  await system.pass(10);
  const { keptUntil, finishedAt } = await system.get(task.id);
  expect(Date.parse(keptUntil as string) - Date.parse(finishedAt as string)).toBe(3600 * 1000);
});

test("two operators who set the two halves of it at once have both set", async () => {
  const { store } = system.ports;
  const { get } = store;
  const first = { eventSeconds: 2 * day };
  Object.assign(store, {
    async get(key: RowKey) {
      const row = await get(key);
      if (key.pk !== "acme#Q") return row;
      Object.assign(store, { get });
      await Retention.put(system.admin, first);
      return row;
    },
  });
  const second = { taskSeconds: 3 * day };
  expect(await Retention.put(system.admin, second)).toEqual({ ...first, ...second });
  expect(await Retention.get(system.admin)).toEqual({ ...first, ...second });
});

describe("a finished task", () => {
  test("takes what was noted of its events along, though events were kept for ever when they came", async () => {
    await Retention.put(system.admin, { eventSeconds: 0 });
    const task = await system.task("greet");
    const notes = async () => {
      await store.projected();
      return rowsOf(`acme#V#${task.id}`);
    };
    await notes();
    await Task.cancel(system.admin, task.id, {});
    expect(await notes()).toHaveLength(1);
    await Retention.put(system.admin, { eventSeconds: day, taskSeconds: day });
    system.clock.advance(day * 1000);
    await retire(task.id);
    await eventually("they are gone", async () => {
      await system.quiet();
      return (await notes()).length === 0;
    });
  });

  test("is deleted with its lists, events, payloads and count once its retention is over", async () => {
    const large = JSON.stringify("x".repeat(70_000));
    const task = await done("greet", { tags: ["t"], input: large as JsonText }, large);
    await checkpoint();
    system.clock.advance(29 * day * 1000);
    await system.quiet();
    const before = await system.get(task.id);
    expect(before).toMatchObject({ status: "completed", result: large });
    expect(Date.parse(before.keptUntil as string) - Date.parse(before.finishedAt as string)).toBe(30 * day * 1000);
    system.clock.advance(day * 1000);
    await retire(task.id);
    await store.projected();
    for (const query of [{ status: "completed" }, { type: "greet" }, { tag: "t" }] as const)
      expect((await Task.list(system.admin, Task.ListQuery.parse(query))).items).toEqual([]);
    expect(await store.get({ pk: "acme#C", sk: "counts" })).toMatchObject({
      "tasks.completed": 0,
      "ended.completed": 1,
    });
    expect(await rowsOf(`acme#V#${task.id}`)).toEqual([]);
    for (const part of ["input", "result-1"])
      await eventually(`the ${part} is deleted`, async () => {
        await system.quiet();
        return (await system.ports.blobs.get(`acme/${task.id}/${part}`)) === undefined;
      });
    await expect(system.get(task.id)).rejects.toThrow("past its retention");
  });

  test.each(["input", "result"] as const)("whose %s is deleted as it is read is not found", async (payload) => {
    const large = JSON.stringify("x".repeat(70_000)) as JsonText;
    const task = await (payload === "input" ? done("greet", { input: large }) : done("greet", {}, large));
    const { blobs } = system.ports;
    const get = blobs.get.bind(blobs);
    blobs.get = async (key) => {
      blobs.get = get;
      system.clock.advance(30 * day * 1000);
      await retire(task.id);
      await eventually("its payload is deleted", async () => {
        await system.quiet();
        return (await get(key)) === undefined;
      });
      return get(key);
    };
    expect(await code(system.get(task.id))).toBe("task.not_found");
  });
  test("stays while it runs, and when it is retried before its time is over", async () => {
    const agent = await system.agent("a");
    const waiting = await system.task("waiting", { requires: [{ capability: "none" }] });
    const failed = await system.task("failed", { retry: { maxAttempts: 1 }, agentId: agent });
    const { fence } = await system.lease(agent);
    await Task.fail(system.as(agent), failed.id, { fence, error: { code: "bad", message: "" } });
    await checkpoint();
    await Task.retry(system.admin, failed.id);
    expect((await system.get(failed.id)).keptUntil).toBeUndefined();
    await checkpoint();
    const gone = await done("gone");
    await checkpoint();
    system.clock.advance(31 * day * 1000);
    await retire(gone.id);
    expect((await system.get(waiting.id)).status).toBe("queued");
    expect((await system.get(failed.id)).status).toBe("queued");
  });

  test("follows a retention that is set after it has ended, shorter, longer and for ever", async () => {
    const task = await done("greet");
    const keptDays = async () => {
      await system.pass(10);
      const { keptUntil, finishedAt } = await system.get(task.id);
      return keptUntil && (Date.parse(keptUntil) - Date.parse(finishedAt as string)) / 1000 / day;
    };
    await Retention.put(system.admin, { taskSeconds: 90 * day });
    expect(await keptDays()).toBe(90);
    await Retention.put(system.admin, { taskSeconds: 0 });
    expect(await keptDays()).toBeUndefined();
    expect(await Retention.put(system.admin, { taskSeconds: 3600 })).toEqual({
      taskSeconds: 3600,
      eventSeconds: 7 * day,
    });
    expect(await keptDays()).toBe(1 / 24);
    await system.pass(3600, 600);
    await retire(task.id);
    expect(await Retention.get(system.tenant("other"))).toEqual({ taskSeconds: 30 * day, eventSeconds: 7 * day });
  });

  describe("deleted just when another task comes to depend on it", () => {
    /** A caller in whose midst a task passes its retention: once `when` holds of a write, before it or after. */
    const overtaken = (id: string, when: "before" | "after"): Scope => {
      const { store } = system.ports;
      let over = false;
      const write: typeof store.write = async (wanted) => {
        const links = !over && "update" in wanted && wanted.set?.dependants === true;
        if (links) {
          over = true;
          system.clock.advance(31 * day * 1000);
        }
        if (links && when === "before") await retire(id);
        const result = await store.write(wanted);
        if (links && when === "after") await retire(id);
        return result;
      };
      return { ...system.admin, ports: { ...system.ports, store: { ...store, write } } };
    };
    const following = (id: string) => Task.Create.parse({ type: "after", dependsOn: [id] });
    const all = async () => (await Task.list(system.admin, Task.ListQuery.parse({ type: "after" }))).items;

    test("refuses that one, as if it had been gone before", async () => {
      const first = await done("first");
      const scope = overtaken(first.id, "before");
      expect(await code(Task.create(scope, following(first.id)))).toBe("task.dependency_not_found");
      expect(await all()).toEqual([]);
    });

    test("refuses that entry of a batch, and takes the others", async () => {
      const first = await done("first");
      const scope = overtaken(first.id, "before");
      const tasks = [following(first.id), { type: "after" }];
      const { results } = await Task.createBatch(scope, { tasks, atomic: false });
      expect(results).toMatchObject([{ problem: { code: "task.dependency_not_found" } }, { task: { type: "after" } }]);
      expect(await all()).toHaveLength(1);
    });

    test("lets it go on by how it ended, once it is linked", async () => {
      const first = await done("first");
      const { task } = await Task.create(overtaken(first.id, "after"), following(first.id));
      await system.quiet();
      expect((await system.get(task.id)).status).toBe("queued");
    });
  });

  test("leaves the dead letters and lets its child and its dependants be as they are", async () => {
    const parent = await done("parent");
    const child = await system.task("child", { parentId: parent.id, requires: [{ capability: "none" }] });
    const after = await system.task("after", { dependsOn: [parent.id], requires: [{ capability: "none" }] });
    const agent = await system.agent("b");
    const dead = await system.task("dead", { retry: { maxAttempts: 1 } });
    const { fence } = await system.lease(agent);
    await Task.fail(system.as(agent), dead.id, { fence, error: { code: "bad", message: "" } });
    await system.quiet();
    expect((await DeadLetter.list(system.admin, { limit: 10 })).items.map(({ id }) => id)).toEqual([dead.id]);
    system.clock.advance(30 * day * 1000);
    await retire(parent.id);
    await retire(dead.id);
    await store.projected();
    expect((await DeadLetter.list(system.admin, { limit: 10 })).items).toEqual([]);
    expect(await DeadLetter.redrive(system.admin, { taskIds: [dead.id] })).toEqual({
      redriven: 0,
      skipped: [{ taskId: dead.id, code: "task.not_found" }],
    });
    expect((await system.get(child.id)).status).toBe("queued");
    expect((await system.get(after.id)).status).toBe("queued");
    expect(await rowsOf(`acme#D#${parent.id}`)).toEqual([]);
    expect(await code(system.task("late", { dependsOn: [parent.id] }))).toBe("task.dependency_not_found");
    expect(await code(system.task("late", { parentId: parent.id }))).toBe("task.parent_not_found");
  });

  test("whose children and dependants are submitted again after it was deleted has them answered as at first", async () => {
    await Retention.put(system.admin, { taskSeconds: 60 });
    const first = await done("first");
    const wanted = { type: "after", parentId: first.id, dependsOn: [first.id], requires: [{ capability: "none" }] };
    const idempotency = { key: "one", hash: "h" };
    const id = createId("tsk", system.clock.now(), system.ports.random);
    const byKey = () => Task.create(system.admin, Task.Create.parse(wanted), { idempotency });
    const byId = () => Task.create(system.admin, Task.Create.parse({ ...wanted, id }));
    const batch = () =>
      Task.createBatch(
        system.admin,
        { tasks: [wanted, wanted], atomic: false },
        { idempotency: { key: "many", hash: "h" } },
      );
    const answers = [await byKey(), await byId(), await batch()] as const;
    await system.quiet();
    system.clock.advance(60_000);
    await retire(first.id);
    expect(await byKey()).toEqual({ ...answers[0], replayed: true });
    expect(await byId()).toMatchObject({ task: { id, status: "queued", depth: 1 }, replayed: true });
    expect(await batch()).toEqual({ ...answers[2], replayed: true });
    expect((await Task.list(system.admin, Task.ListQuery.parse({ type: "after" }))).items).toHaveLength(4);
    expect(await code(Task.create(system.admin, Task.Create.parse(wanted)))).toBe("task.parent_not_found");
  });

  test("of a batch that is submitted again is said to be gone, and what followed it in the batch is there", async () => {
    await Retention.put(system.admin, { taskSeconds: 60 });
    const none = { requires: [{ capability: "none" }] };
    const tasks = [
      { type: "first", ref: "first", requires: [{ capability: "work" }] },
      { type: "after", dependsOn: ["ref:first"], ...none },
    ];
    const submit = () =>
      Task.createBatch(system.admin, { tasks, atomic: false }, { idempotency: { key: "k", hash: "h" } });
    const [first, after] = (await submit()).results as { task: Task.Info }[];
    const agent = await system.agent("a");
    const { task, fence } = await system.lease(agent);
    await Task.complete(system.as(agent), task.id, { fence });
    await system.quiet();
    system.clock.advance(60_000);
    await retire(first?.task.id as string);
    expect((await submit()).results).toMatchObject([{ problem: { code: "task.gone" } }, after]);
  });

  test("is not made again by its Idempotency-Key after it was deleted", async () => {
    await Retention.put(system.admin, { taskSeconds: 60 });
    const agent = await system.agent("a");
    const input = Task.Create.parse({ type: "once", requires: [{ capability: "work" }] });
    const idempotency = { key: "k", hash: "h" };
    const { task } = await Task.create(system.admin, input, { idempotency });
    await system.quiet();
    const { fence } = await system.lease(agent);
    await Task.complete(system.as(agent), task.id, { fence });
    await system.quiet();
    expect(await Task.create(system.admin, input, { idempotency })).toMatchObject({ replayed: true });
    system.clock.advance(60_000);
    await retire(task.id);
    expect(await code(Task.create(system.admin, input, { idempotency }))).toBe("task.gone");
    await Retention.put(system.admin, { taskSeconds: 30 * day });
    expect(await code(Task.create(system.admin, input, { idempotency }))).toBe("task.gone");
    const { results } = await Task.createBatch(system.admin, { tasks: [{ type: "b" }], atomic: false });
    expect(results).toHaveLength(1);
    system.clock.advance(day * 1000);
    await eventually("the key is forgotten", async () => {
      await checkpoint();
      system.clock.advance(5_000);
      await system.quiet();
      return (await store.get(idempotencyKey("acme", "k"))) === undefined;
    });
    expect(await Task.create(system.admin, input, { idempotency })).toMatchObject({ replayed: false });
  });
});

describe("the event log", () => {
  test("drops events after their time, keeps the numbers, and says to who is behind where it begins", async () => {
    for (let n = 0; n < 3; n++) await system.task(`old ${n}`);
    const old = await EventLog.last(system.admin);
    await checkpoint();
    system.clock.advance(7 * day * 1000);
    await system.task("new");
    const last = await EventLog.last(system.admin);
    await eventually("the old ones are deleted", async () => {
      await checkpoint();
      system.clock.advance(5_000);
      await system.quiet();
      return (await EventLog.list(system.admin, { after: 0, limit: 200 })).items[0]?.sequence === old + 1;
    });
    const { items, nextAfter } = await EventLog.list(system.admin, { after: 0, limit: 200 });
    expect(items.map(({ sequence }) => sequence)).toEqual(Array.from({ length: last - old }, (_, i) => old + 1 + i));
    expect(nextAfter).toBe(last);
    expect((await EventLog.list(system.admin, { after: old, limit: 200 })).items).toEqual(items);
    expect((await EventLog.list(system.admin, { after: last, limit: 200 })).items).toEqual([]);
    await expect(EventLog.list(system.admin, { after: 1, limit: 200 })).rejects.toMatchObject({
      code: "event.gone",
      extra: { data: { firstSequence: old + 1 } },
    });
  });

  test("with nothing left goes on with the next number", async () => {
    await system.task("old");
    const old = await EventLog.last(system.admin);
    await checkpoint();
    system.clock.advance(8 * day * 1000);
    await eventually("all are deleted", async () => {
      system.clock.advance(5_000);
      await system.quiet();
      return (await EventLog.list(system.admin, { after: 0, limit: 200 })).items.length === 0;
    });
    await expect(EventLog.list(system.admin, { after: 1, limit: 1 })).rejects.toMatchObject({
      extra: { data: { firstSequence: old + 1 } },
    });
    await system.task("new");
    expect((await EventLog.list(system.admin, { after: old, limit: 1 })).items[0]?.sequence).toBe(old + 1);
  });
});
