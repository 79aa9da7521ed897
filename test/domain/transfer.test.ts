import { Agent, DeadLetter, EventLog, type JsonText, Key, Limit, Status, Task } from "@waggle/core";
import { Transfer } from "@waggle/core/transfer";
import type { EmbeddedEngine } from "@waggle/engine-embedded";
import { createOutbound } from "@waggle/outbound";
import { afterAll, afterEach, beforeEach, describe, expect, test } from "vitest";
import { code, manualClock, mode, openSystem, type System } from "../support/system.ts";

const outbound = createOutbound({ env: {} });
afterAll(() => outbound.close());
let from: System;
let to: System;
beforeEach(async () => {
  const clock = manualClock();
  from = await openSystem({ clock, outbound });
  to = await openSystem({ clock, outbound });
});
afterEach(async () => {
  expect([...from.errors, ...to.errors]).toEqual([]);
  await from.close();
  await to.close();
});

async function exported(system = from, limit = 100): Promise<Transfer.Record[]> {
  const records: Transfer.Record[] = [];
  for (let cursor: string | undefined; ; ) {
    const page = await Transfer.page(system.admin, { limit, ...(cursor !== undefined && { cursor }) });
    records.push(...page.items);
    if (page.nextCursor === undefined) return records;
    cursor = page.nextCursor;
  }
}
async function imported(records: readonly Transfer.Record[], system = to): Promise<Transfer.Result[]> {
  const results: Transfer.Result[] = [];
  for (let i = 0; i < records.length; i += 100)
    results.push(...(await Transfer.take(system.admin, { version: 1, records: records.slice(i, i + 100) })));
  await system.quiet();
  return results;
}
/** Everything, through JSON as a file would carry it. */
const move = async () => imported(JSON.parse(JSON.stringify(await exported())));
const outcomes = (results: readonly Transfer.Result[]) => results.map(({ outcome }) => outcome);
const fields = ({ waiting: _, decision: __, deadlineAt: ___, ...task }: Task.Info) => task;

describe("moving a tenant to another server", () => {
  test("keeps a task that has ended with its history, result, error, usage and times, and its counters", async () => {
    const agent = await from.agent("a");
    const done = await from.task("done", { tags: ["x"], metadata: '{"__proto__": 1e400}' as JsonText });
    const first = await from.lease(agent);
    await from.pass(3);
    await Task.complete(from.as(agent), done.id, {
      fence: first.fence,
      result: '{\n "n": 1.0}' as JsonText,
      usage: { tokens: 7 },
    });
    const broken = await from.task("broken", { retry: { maxAttempts: 1 } });
    const second = await from.lease(agent);
    await Task.fail(from.as(agent), broken.id, { fence: second.fence, error: { code: "no", message: "it broke" } });
    const dropped = await from.task("dropped");
    await Task.cancel(from.admin, dropped.id, { reason: "changed my mind" });
    const late = await from.task("late", { timeouts: { totalSeconds: 2 } });
    await from.pass(3);
    expect(new Set(outcomes(await move()))).toEqual(new Set(["taken"]));
    for (const { id } of [done, broken, dropped, late]) expect(await to.get(id)).toEqual(await from.get(id));
    expect((await to.get(done.id)).result).toBe('{\n "n": 1.0}');
    expect((await DeadLetter.list(to.admin, { limit: 10 })).items.map(({ id }) => id)).toEqual([broken.id]);
    expect((await Task.list(to.admin, { limit: 10, tag: "x" })).items.map(({ id }) => id)).toEqual([done.id]);
    const [here, there] = await Promise.all([Status.read(to.admin), Status.read(from.admin)]);
    expect(here.tasks).toEqual(there.tasks);
    expect(here.totals).toEqual(there.totals);
    expect(await Agent.get(to.admin, agent)).toMatchObject({ stats: (await Agent.get(from.admin, agent)).stats });
    const { items } = await EventLog.list(to.admin, { after: 0, limit: 50, taskId: broken.id });
    expect(items.map(({ type }) => type)).toEqual(["task.created", "task.queued", "task.failed"]);
  });

  // Where many processes dispatch, the order of those that come together is theirs, as it is for new tasks.
  test.skipIf(mode.shared)("gives waiting tasks to agents in the order they came, by priority", async () => {
    const ids: string[] = [];
    for (let n = 0; n < 40; n++) ids.push((await from.task("t", { priority: n === 30 ? 9 : 5 })).id);
    await from.agent("a");
    await move();
    const [agent] = (await Agent.list(to.admin, { limit: 1 })).items;
    const order: string[] = [];
    for (let n = 0; n < 40; n++) {
      const { task, fence } = await to.lease(agent?.id as string);
      order.push(task.id);
      await Task.complete(to.as(agent?.id as string), task.id, { fence });
    }
    expect(order).toEqual([ids[30], ...ids.filter((_, n) => n !== 30)]);
  });

  test("keeps what the log tells of it from when it came, however long ago that was", async () => {
    const waits = await from.task("waits", { requires: [{ capability: "nobody" }] });
    const agent = await from.agent("a");
    const done = await from.task("done");
    const { fence } = await from.lease(agent);
    await Task.complete(from.as(agent), done.id, { fence });
    await from.quiet();
    from.clock.advance(8 * 24 * 3600 * 1000);
    await from.quiet();
    const records = await exported();
    await to.task("first");
    await imported(records);
    for (let rounds = 0; rounds < 3; rounds++) {
      await (to.engine as Partial<EmbeddedEngine>).checkpoint?.();
      to.clock.advance(5_000);
      await to.quiet();
    }
    const { items } = await EventLog.list(to.admin, { after: 0, limit: 200 });
    const told = items.filter(({ type }) => type === "task.created").map(({ taskId }) => taskId);
    expect(told).toEqual(expect.arrayContaining([waits.id, done.id]));
    expect((await Task.events(to.admin, done.id, { after: 0, limit: 10 })).items.at(-1)?.type).toBe("task.completed");
  });

  test("takes held tasks back: the attempt is not counted, the old fence is void, saved details go along", async () => {
    const agent = await from.agent("a", { maxConcurrency: 2 });
    const running = await from.task("running", { priority: 6 });
    const assigned = await from.task("assigned");
    const first = await from.lease(agent);
    await Task.heartbeat(from.as(agent), first.task.id, { fence: first.fence, details: '{"at":3}' as JsonText });
    await from.lease(agent);
    await move();
    const there = await to.get(running.id);
    expect(there).toMatchObject({ status: "queued", attempt: 0, fence: 2, details: '{"at":3}' });
    expect(there.agentId).toBeUndefined();
    expect((await to.get(assigned.id)).status).toBe("queued");
    expect(await Agent.get(to.admin, agent)).toMatchObject({ running: 0, name: "a" });
    const stale = Task.complete(to.as(agent), running.id, { fence: first.fence });
    expect(await code(stale)).toBe("task.lease_lost");
    const again = await to.lease(agent);
    expect(again).toMatchObject({ task: { id: running.id, attempt: 1 }, fence: 3 });
    await Task.complete(to.as(agent), running.id, { fence: again.fence });
    expect((await Status.read(to.admin)).totals.completed).toBe(1);
  });

  test("ends a held task whose cancelling was asked for", async () => {
    const agent = await from.agent("a");
    const task = await from.task("t");
    await from.lease(agent);
    await Task.cancel(from.admin, task.id, {});
    await move();
    expect(await to.get(task.id)).toMatchObject({ status: "cancelled", finishedAt: expect.any(String) });
  });

  test("arms timers: a delay, a retry and a time limit end here when they would have ended there", async () => {
    const agent = await from.agent("a");
    const delayed = await from.task("delayed", { delaySeconds: 60 });
    const limited = await from.task("limited", { timeouts: { queueSeconds: 90 }, requires: [{ capability: "none" }] });
    const retried = await from.task("retried", { retry: { maxAttempts: 2, initialSeconds: 100, maxSeconds: 100 } });
    const { fence } = await from.lease(agent);
    await Task.fail(from.as(agent), retried.id, { fence, error: { code: "no", message: "" } });
    await move();
    expect((await to.get(delayed.id)).status).toBe("scheduled");
    expect(await to.get(retried.id)).toMatchObject({ status: "scheduled", attempt: 1 });
    await to.pass(59);
    expect((await to.get(delayed.id)).status).toBe("scheduled");
    await to.pass(2);
    expect((await to.get(delayed.id)).status).toBe("queued");
    expect((await to.get(limited.id)).status).toBe("queued");
    await to.pass(40);
    expect((await to.get(limited.id)).status).toBe("expired");
    expect((await to.get(retried.id)).status).toBe("queued");
  });

  test("keeps dependencies working, whichever of the tasks comes first", async () => {
    const agent = await from.agent("a");
    const base = await from.task("base");
    const next = await from.task("next", { dependsOn: [base.id] });
    const last = await from.task("last", { dependsOn: [base.id, next.id] });
    const doomed = await from.task("doomed");
    const lost = await from.task("lost", { dependsOn: [doomed.id] });
    // Later tasks first.
    const records = await exported();
    const tasks = records.filter(({ kind }) => kind === "task").reverse();
    await imported([...records.filter(({ kind }) => kind !== "task"), ...tasks]);
    expect((await to.get(last.id)).status).toBe("scheduled");
    await Task.cancel(to.admin, doomed.id, {});
    await to.quiet();
    expect(await to.get(lost.id)).toMatchObject({ status: "failed", error: { code: "task.dependency_failed" } });
    for (const { id } of [base, next, last]) {
      const { task, fence } = await to.lease(agent);
      expect(task.id).toBe(id);
      await Task.complete(to.as(agent), id, { fence });
      await to.quiet();
    }
  });

  test("a dependency that has ended lets those go on that came before it", async () => {
    const agent = await from.agent("a");
    const base = await from.task("base");
    const next = await from.task("next", { dependsOn: [base.id] });
    const early = await exported();
    const { fence } = await from.lease(agent);
    await Task.complete(from.as(agent), base.id, { fence });
    await from.quiet();
    await imported(early.filter((record) => record.kind === "task" && record.id === next.id));
    expect((await to.get(next.id)).status).toBe("scheduled");
    await imported((await exported()).filter((record) => record.kind === "task" && record.id === base.id));
    expect((await to.get(next.id)).status).toBe("queued");
  });

  test("a rate begins with a whole burst, whatever tasks had used up of one they asked for", async () => {
    const agent = await to.agent("a", { maxConcurrency: 10 });
    const hourly = { key: "openai", limit: 1, perSeconds: 3600 };
    for (let n = 0; n < 3; n++) await to.task("t", { rate: hourly });
    expect((await to.lease(agent)).task.type).toBe("t");
    await Limit.put(from.admin, "openai", { rate: { limit: 2, perSeconds: 10 } });
    await move();
    expect(await Agent.lease(to.as(agent), agent, { max: 10, waitSeconds: 0 })).toHaveLength(2);
  });
  test("limits hold for what comes after them", async () => {
    await Limit.put(from.admin, "openai", { concurrency: 1, rate: { limit: 10, perSeconds: 60 } });
    const agent = await from.agent("a", { maxConcurrency: 5 });
    for (let n = 0; n < 3; n++) await from.task("t", { concurrency: [{ key: "openai", limit: 5 }] });
    await move();
    expect(await Limit.get(to.admin, "openai")).toMatchObject({ concurrency: 1, rate: { limit: 10, perSeconds: 60 } });
    expect(await Agent.lease(to.as(agent), agent, { max: 5, waitSeconds: 0 })).toHaveLength(1);
  });

  test("keys and tokens are good there, and only their hashes were carried", async () => {
    const { key } = await Key.create(from.admin, { role: "client", name: "ci" });
    const { agent, token } = await Agent.register(from.admin, Agent.Register.parse({ name: "t", capabilities: [] }));
    const records = await exported();
    expect(JSON.stringify(records)).not.toContain(key.slice(8));
    expect(JSON.stringify(records)).not.toContain(token.slice(8));
    await imported(records);
    expect(await Key.authenticate(to.ports, key)).toMatchObject({ tenant: "acme", actor: { role: "client" } });
    expect(await Key.authenticate(to.ports, token)).toMatchObject({ actor: { role: "agent", id: agent.id } });
  });

  test("a webhook is called there once it has a new secret, for the old one is not in the file", async () => {
    const delivery = { type: "webhook", url: "https://agent.example.com/hook", secret: "a-secret-that-stays" };
    const { agent } = await Agent.register(from.admin, Agent.Register.parse({ name: "w", capabilities: [], delivery }));
    const records = await exported();
    expect(JSON.stringify(records)).not.toContain("a-secret");
    expect(outcomes(await Transfer.take(to.admin, { version: 1, records }))).toEqual(["taken"]);
    expect(await Agent.get(to.admin, agent.id)).toMatchObject({ status: "paused" });
    const { secret } = await Agent.update(
      to.admin,
      agent.id,
      Agent.Patch.parse({ delivery: { ...delivery, secret: undefined } }),
    );
    expect(secret).toMatch(/^whsec_/);
    expect(await Agent.resume(to.admin, agent.id)).toMatchObject({ status: "ready", delivery: { type: "webhook" } });
  });

  test("carries payloads of any size and script, cut into pieces and put together again", async () => {
    const large = JSON.stringify({ text: `${'\u{1f41d}\\"é'.repeat(150_000)}` }) as JsonText;
    const agent = await from.agent("a");
    const task = await from.task("t", { input: large });
    const { fence } = await from.lease(agent);
    await Task.complete(from.as(agent), task.id, { fence, result: large });
    const records = await exported();
    expect(records.filter(({ kind }) => kind === "blob").length).toBeGreaterThan(2);
    for (const record of records) expect(Buffer.byteLength(JSON.stringify(record))).toBeLessThan(1_000_000);
    await imported(records);
    expect(fields(await to.get(task.id))).toEqual(fields(await from.get(task.id)));
    expect(new Set(outcomes(await imported(records)))).toEqual(new Set(["there"]));
    const other = await openSystem();
    const [alone] = await imported(
      records.filter(({ kind }) => kind === "task"),
      other,
    );
    expect(alone?.problem?.code).toBe("transfer.pieces_missing");
    await other.close();
  });

  test("and back again: what was done there is done here, from a page as small as one record", async () => {
    for (let n = 0; n < 25; n++) await from.task("t", { tags: [`n${n}`] });
    const agent = await from.agent("a");
    await move();
    const { task, fence } = await to.lease(agent);
    await Task.complete(to.as(agent), task.id, { fence });
    const home = await openSystem();
    const records = await exported(to, 1);
    expect(records).toEqual(await exported(to, 200));
    expect(new Set(outcomes(await imported(records, home)))).toEqual(new Set(["taken"]));
    expect((await Task.get(home.admin, task.id)).status).toBe("completed");
    expect((await Status.read(home.admin)).tasks.byStatus).toMatchObject({ queued: 24, completed: 1 });
    await home.close();
  });
});

describe("importing where something is already", () => {
  test("the same records twice change nothing, though work went on in between", async () => {
    await Limit.put(from.admin, "k", { concurrency: 2 });
    await Key.create(from.admin, { role: "reader" });
    const agent = await from.agent("a");
    await from.task("held");
    await from.lease(agent);
    for (let n = 0; n < 5; n++) await from.task("t");
    const records = await exported();
    await imported(records);
    const { task, fence } = await to.lease(agent);
    await Task.fail(to.as(agent), task.id, { fence, error: { code: "no", message: "", retryable: false } });
    await Task.retry(to.admin, task.id);
    await to.quiet();
    const before = await exported(to);
    const last = await EventLog.last(to.admin);
    expect(new Set(outcomes(await imported(records)))).toEqual(new Set(["there"]));
    expect(await exported(to)).toEqual(before);
    expect(await EventLog.last(to.admin)).toBe(last);
  });

  test("what is another thing under the same name stays, and it says what to do", async () => {
    await Limit.put(from.admin, "k", { concurrency: 2 });
    await Limit.put(to.admin, "k", { concurrency: 3 });
    await from.agent("a");
    await to.agent("a");
    const id = "tsk_0000000000000000000000";
    await from.task("t", { id });
    await to.task("other", { id });
    const results = await move();
    expect(results.map(({ outcome, problem }) => [outcome, problem?.code])).toEqual([
      ["differs", "transfer.differs"],
      ["differs", "transfer.differs"],
      ["differs", "transfer.differs"],
    ]);
    expect(results.map(({ problem }) => problem?.message)).toEqual([
      expect.stringContaining("waggle limit set"),
      expect.stringContaining("waggle delete agent a"),
      expect.stringContaining("different type"),
    ]);
    expect((await to.get(id)).type).toBe("other");
    expect((await Limit.get(to.admin, "k")).concurrency).toBe(3);
  });

  test("a task that went on where it comes from after it was imported is told apart", async () => {
    const agent = await from.agent("a");
    const task = await from.task("t");
    await move();
    const { fence } = await from.lease(agent);
    await Task.complete(from.as(agent), task.id, { fence });
    const results = await move();
    expect(results.at(-1)?.problem?.message).toContain("went on where it comes from (to completed)");
    expect((await to.get(task.id)).status).toBe("queued");
  });

  test("a key that was revoked stays void, whoever imports it again", async () => {
    const { key, info } = await Key.create(from.admin, { role: "client" });
    await move();
    await Key.revoke(to.admin, info.id);
    const [record] = (await exported()).filter(({ kind }) => kind === "key");
    for (const admin of [to.admin, to.tenant("other")]) {
      const [result] = await Transfer.take(admin, { version: 1, records: [record] });
      expect(result?.problem?.message).toContain("was revoked here and stays void");
    }
    expect(await Key.authenticate(to.ports, key)).toBeUndefined();
    expect((await Key.list(to.admin, { limit: 10 })).items).toEqual([]);
    expect(await Key.authenticate(from.ports, key)).toMatchObject({ actor: { id: info.id } });
  });

  test("a key in use by another tenant is not taken from it", async () => {
    const { key } = await Key.create(from.admin, { role: "client" });
    const [record] = await exported();
    await Transfer.take(to.tenant("other"), { version: 1, records: [record] });
    const [result] = await imported([record as Transfer.Record]);
    expect(result?.problem?.message).toContain("make a new key");
    expect(await Key.authenticate(to.ports, key)).toMatchObject({ tenant: "other" });
  });
});

describe("refusing", () => {
  test("records of a newer version, by that alone, and those that do not fit, by path: nothing of them is taken", async () => {
    const task = await from.task("t");
    const records = await exported();
    expect(await code(Transfer.take(to.admin, { version: 2, records: [{ kind: "bee" }] }))).toBe(
      "transfer.newer_format",
    );
    const wrong = Transfer.take(to.admin, { version: 1, records: [...records, { ...records[0], priority: 10 }] });
    await expect(wrong).rejects.toThrow(/^records\.1: priority: .*9/);
    const strange = Transfer.take(to.admin, { version: 1, records: [{ ...records[0], colour: "red" }] });
    await expect(strange).rejects.toThrow(/colour/);
    expect(await code(to.get(task.id))).toBe("task.not_found");
  });

  test("a cursor that no export gave", async () => {
    expect(await code(Transfer.page(from.admin, { limit: 1, cursor: "nonsense" }))).toBe("request.invalid");
    expect(await code(Transfer.page(from.admin, { limit: 1, cursor: btoa("export:bee/1/x") }))).toBe("request.invalid");
  });
});
