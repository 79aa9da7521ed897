import { Agent, type JsonText, Quota, Task } from "@waggle/core";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { code, openSystem, processOn, type System } from "../support/system.ts";

let system: System;
beforeEach(async () => {
  system = await openSystem();
});
afterEach(async () => {
  expect(system.errors).toEqual([]);
  await system.close();
});

const set = (quotas: Quota.Quotas) => Quota.put(system.tenant("default"), "acme", quotas);
const use = async () => (await Quota.get(system.admin, "acme")).usage;
const submit = (more: Record<string, unknown> = {}) =>
  Task.create(system.admin, Task.Create.parse({ type: "t", requires: [{ capability: "work" }], ...more }));
const plain = Task.Create.parse({ type: "t" });
const codes = async (calls: Promise<unknown>[]): Promise<Record<string, number>> => {
  const found: Record<string, number> = {};
  for (const call of calls.map(code)) found[await call] = (found[await call] ?? 0) + 1;
  return found;
};

describe("a tenant's quota", () => {
  test("of tasks lets exactly as many in when more come at once", async () => {
    for (let n = 0; n < 7; n++) await submit();
    await set({ tasks: 50 });
    expect(await codes(Array.from({ length: 300 }, () => submit()))).toEqual({ "no error": 43, "quota.exceeded": 257 });
    expect(await use()).toMatchObject({ tasks: 50, waiting: 50 });
  });

  test("refuses nothing that fits while a submit before it is stored, and has yet to say so", async () => {
    await set({ waiting: 3 });
    const agent = await system.agent("a");
    for (let n = 0; n < 2; n++) await submit();
    const { store } = system.ports;
    const { transact, projected } = store;
    let isStored = () => {};
    const stored = new Promise<void>((resolve) => (isStored = resolve));
    let goOn = () => {};
    const told = new Promise<void>((resolve) => (goOn = resolve));
    Object.assign(store, {
      async transact(...writes: Parameters<typeof transact>) {
        const result = await transact(...writes);
        isStored();
        await told;
        return result;
      },
    });
    const before = submit();
    await stored;
    Object.assign(store, { transact });
    // Two wait, and the one before counts among them.
    await system.lease(agent);
    let looks = 0;
    Object.assign(store, {
      async projected() {
        await projected();
        if (++looks === 2) goOn();
      },
    });
    const found = await codes([submit()]);
    goOn();
    expect([found, await codes([before])]).toEqual([{ "no error": 1 }, { "no error": 1 }]);
    Object.assign(store, { projected });
    expect(await use()).toMatchObject({ waiting: 3 });
    expect(await code(submit())).toBe("quota.throttled");
  });

  test("refuses what is over with what it is, and changes nothing", async () => {
    await set({ tasks: 1 });
    const large = JSON.stringify("x".repeat(70_000)) as JsonText;
    await submit();
    await expect(submit({ id: "tsk_0000000000000000000000", input: large })).rejects.toMatchObject({
      code: "quota.exceeded",
      extra: { data: { quota: "tasks", limit: 1, used: 1 } },
    });
    expect(await use()).toMatchObject({ tasks: 1, bytes: 1024 });
    expect((await Task.list(system.admin, Task.ListQuery.parse({}))).items).toHaveLength(1);
    const batch = { tasks: [{ type: "a" }, { type: "b" }], atomic: false };
    expect(await code(Task.createBatch(system.admin, batch))).toBe("quota.exceeded");
    await set({});
    expect((await Task.createBatch(system.admin, batch)).results).toHaveLength(2);
  });

  test("answers a repeated submit with the task it made, though there is no more room", async () => {
    await set({ tasks: 1 });
    const id = "tsk_0000000000000000000000";
    await submit({ id });
    expect(await submit({ id })).toMatchObject({ replayed: true, task: { id } });
    await set({});
    const idempotency = { key: "k", hash: "h" };
    const first = await Task.create(system.admin, plain, { idempotency });
    await set({ tasks: 1, submits: { limit: 1, perSeconds: 60 } });
    for (let n = 0; n < 3; n++)
      expect(await Task.create(system.admin, plain, { idempotency })).toEqual({ ...first, replayed: true });
  });

  test("of waiting tasks passes by itself as they are taken", async () => {
    await set({ waiting: 2 });
    expect(await codes([submit(), submit(), submit()])).toEqual({ "no error": 2, "quota.throttled": 1 });
    await expect(submit()).rejects.toMatchObject({ extra: { retryAfterSeconds: 1 } });
    await system.lease(await system.agent("a"));
    expect(await code(submit())).toBe("no error");
    expect(await code(submit())).toBe("quota.throttled");
  });

  test("of bytes counts payloads as they are kept, results and those apart included, and forgets them with their task", async () => {
    const text = (bytes: number) => JSON.stringify("x".repeat(bytes - 2)) as JsonText;
    const agent = await system.agent("a");
    const task = await system.task("t", { input: text(100_000), metadata: text(50) });
    expect(await use()).toMatchObject({ bytes: 1024 + 100_050 });
    const { fence } = await system.lease(agent);
    await Task.complete(system.as(agent), task.id, { fence, result: text(200_000) });
    await system.quiet();
    expect(await use()).toMatchObject({ bytes: 1024 + 300_050, tasks: 1, waiting: 0 });
    await set({ bytes: 400_000 });
    expect(await code(submit({ input: text(97_903) }))).toBe("quota.exceeded");
    expect(await code(submit({ input: text(97_902) }))).toBe("no error");
    const { pk, sk } = { pk: `acme#T#${(task.id.charCodeAt(task.id.length - 1) * 7) % 16}`, sk: task.id };
    system.damaged.add("task.lost");
    await system.ports.store.write({ delete: { pk, sk } });
    expect(await use()).toMatchObject({ bytes: 1024 + 97_902, tasks: 1 });
  });

  test("of bytes heeds results that came since it was last looked at", async () => {
    await set({ bytes: 100_000 });
    const agent = await system.agent("a");
    const { task } = await submit();
    const { fence } = await system.lease(agent);
    const text = (bytes: number) => JSON.stringify("x".repeat(bytes)) as JsonText;
    await Task.complete(system.as(agent), task.id, Task.Complete.parse({ fence, result: text(90_000) }));
    system.clock.advance(1_001);
    expect(await code(submit({ input: text(20_000) }))).toBe("quota.exceeded");
    expect(await code(submit({ input: text(2_000) }))).toBe("no error");
  });

  test("of agents lets exactly as many register, and one stopped makes room", async () => {
    await set({ agents: 3 });
    const register = (n: number) =>
      Agent.register(system.admin, Agent.Register.parse({ name: `a${n}`, capabilities: [], onConflict: "replace" }));
    expect(await codes(Array.from({ length: 10 }, (_, n) => register(n)))).toEqual({
      "no error": 3,
      "quota.exceeded": 7,
    });
    expect(await code(register(0))).toBe("no error");
    const [first] = (await Agent.list(system.admin, Agent.ListQuery.parse({}))).items;
    await Agent.remove(system.admin, first?.id as string, { mode: "force", graceSeconds: 0 });
    await system.quiet();
    expect(await codes([register(20), register(21)])).toEqual({ "no error": 1, "quota.exceeded": 1 });
  });

  test("of submits lets so many in a time, and says when there is room again", async () => {
    await set({ submits: { limit: 10, perSeconds: 5 } });
    expect(await codes(Array.from({ length: 15 }, () => submit()))).toEqual({ "no error": 10, "quota.throttled": 5 });
    const { retryAfterSeconds } = await submit().catch((error) => error.extra);
    expect(retryAfterSeconds).toBeGreaterThan(0);
    expect(retryAfterSeconds).toBeLessThanOrEqual(5);
    system.clock.advance(retryAfterSeconds * 1000 + 1);
    expect(await code(submit())).toBe("no error");
    system.clock.advance(5_000);
    expect((await codes(Array.from({ length: 15 }, () => submit())))["no error"]).toBe(10);
  });

  test("holds among processes on one store: of submits exactly, of tasks as far as they know of one another", async () => {
    await set({ tasks: 40, submits: { limit: 30, perSeconds: 60 } });
    const processes = Array.from({ length: 3 }, () => ({ ...system.admin, ports: processOn(system.engine.ports) }));
    const all = () => codes(processes.flatMap((scope) => Array.from({ length: 20 }, () => Task.create(scope, plain))));
    expect(await all()).toEqual({ "no error": 30, "quota.throttled": 30 });
    system.clock.advance(60_000);
    // Each knows by now what the others stored.
    const found = await all();
    expect(found["quota.exceeded"]).toBeGreaterThan(0);
    expect(await use()).toMatchObject({ tasks: 30 + (found["no error"] ?? 0) });
    expect(found["no error"]).toBeGreaterThanOrEqual(10);
    expect(found["no error"]).toBeLessThanOrEqual(30);
  });

  test("is one tenant's alone, set by the first tenant, and stays over a restart", async () => {
    await set({ tasks: 1 });
    await submit();
    await Task.create(system.tenant("other"), Task.Create.parse({ type: "t" }));
    await Task.create(system.tenant("other"), Task.Create.parse({ type: "t" }));
    expect(await code(Quota.put(system.admin, "acme", {}))).toBe("auth.forbidden");
    expect(await code(Quota.get(system.admin, "other"))).toBe("auth.forbidden");
    expect((await Quota.get(system.admin, "acme")).quotas).toEqual({ tasks: 1 });
    system = await system.reopen();
    expect(await code(submit())).toBe("quota.exceeded");
  });
});
