import { Task } from "@waggle/core";
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

describe("dependencies", () => {
  const finish = async (agent: string) => {
    const { task, fence } = await system.run(agent);
    await Task.complete(system.as(agent), task.id, { fence });
    await system.quiet();
    return task.id;
  };
  test("hold a task back until all of them are completed", async () => {
    const agent = await system.agent("a", { maxConcurrency: 3 });
    const [one, two] = [await system.task("x"), await system.task("x")];
    const three = await system.task("x", { dependsOn: [one.id, two.id] });
    expect(three.status).toBe("scheduled");
    await finish(agent);
    expect((await system.get(three.id)).status).toBe("scheduled");
    await finish(agent);
    expect((await system.get(three.id)).status).toBe("queued");
  });
  test("that have ended already count", async () => {
    const agent = await system.agent("a");
    const one = await system.task("x");
    await finish(agent);
    const two = await system.task("x", { dependsOn: [one.id] });
    expect((await system.get(two.id)).status).toBe("queued");
  });
  test("that fail take their dependants with them, generation by generation, with the reason", async () => {
    const one = await system.task("x");
    const two = await system.task("x", { dependsOn: [one.id] });
    const three = await system.task("x", { dependsOn: [two.id] });
    await Task.cancel(system.admin, one.id, {});
    await system.quiet();
    expect(await system.get(two.id)).toMatchObject({ status: "failed", error: { code: "task.dependency_failed" } });
    expect(await system.get(three.id)).toMatchObject({ status: "failed", error: { code: "task.dependency_failed" } });
  });
  test("that are tried again are waited for again, and let those that failed with them go on", async () => {
    const agent = await system.agent("a");
    const one = await system.task("x", { retry: { maxAttempts: 1 } });
    const two = await system.task("x", { dependsOn: [one.id] });
    await Task.cancel(system.admin, one.id, {});
    await system.quiet();
    expect((await system.get(two.id)).status).toBe("failed");
    await Task.retry(system.admin, one.id);
    expect(await Task.retry(system.admin, two.id)).toMatchObject({ status: "scheduled" });
    await system.quiet();
    await finish(agent);
    await system.quiet();
    expect((await system.get(two.id)).status).toBe("queued");
  });
  test("are waited for again by one that was cancelled before they ended, and is tried again", async () => {
    const agent = await system.agent("a");
    const one = await system.task("x");
    const two = await system.task("x", { dependsOn: [one.id] });
    await Task.cancel(system.admin, two.id, {});
    expect(await Task.retry(system.admin, two.id)).toMatchObject({ status: "scheduled" });
    await system.quiet();
    expect((await system.lease(agent)).task.id).toBe(one.id);
    await Task.cancel(system.admin, two.id, {});
    await Task.complete(system.as(agent), one.id, { fence: 1 });
    await system.quiet();
    expect(await Task.retry(system.admin, two.id)).toMatchObject({ status: "queued" });
  });
  // Where others share the store the reconciler sees to it (reconcile.test.ts).
  test.skipIf(mode.shared)(
    "that ended while a submit died, before it looked, are looked at though nobody asks again",
    async () => {
      const agent = await system.agent("a");
      const one = await system.task("x");
      const { store } = system.ports;
      const { transact, get } = store;
      const dying = async () => {
        Object.assign(store, { get });
        throw new Error("died");
      };
      Object.assign(store, {
        async transact(writes: Parameters<typeof transact>[0]) {
          Object.assign(store, { transact });
          await finish(agent);
          await system.quiet();
          const stored = await transact(writes);
          Object.assign(store, { get: dying });
          return stored;
        },
      });
      await expect(system.task("after", { dependsOn: [one.id] })).rejects.toThrow("died");
      await system.quiet();
      expect((await system.lease(agent)).task.type).toBe("after");
    },
  );
  test("that ended while a submit died, before it looked, are looked at by the submit that comes again", async () => {
    const agent = await system.agent("a");
    const one = await system.task("x");
    const submit = () =>
      Task.create(system.admin, Task.Create.parse({ type: "x", dependsOn: [one.id] }), {
        idempotency: { key: "k", hash: "h" },
      });
    const { task } = await submit();
    // As if it had ended before it was linked: it told nobody.
    await system.ports.store.write({ delete: { pk: `acme#D#${one.id}`, sk: task.id } });
    await finish(agent);
    await system.quiet();
    expect((await system.get(task.id)).status).toBe("scheduled");
    await submit();
    expect((await system.get(task.id)).status).toBe("queued");
  });
  test("must exist", async () => {
    expect(await code(system.task("x", { dependsOn: ["tsk_nope"] }))).toBe("task.dependency_not_found");
  });
});
