import { Agent, EventLog, type Item, Key, Limit, Retention, type RowKey, Task, type Write } from "@waggle/core";
import { Audit } from "@waggle/core/audit";
import type { EmbeddedEngine } from "@waggle/engine-embedded";
import { afterEach, beforeEach, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { code, mode, openSystem, type System } from "../support/system.ts";

let system: System;
beforeEach(async () => {
  system = await openSystem();
});
afterEach(async () => {
  await system.close();
});

const findings = async () => (await Audit.run(system.ports)).findings;

/** One of everything a store can hold. */
async function populate() {
  await Key.create(system.admin, { role: "admin" });
  const limited = { concurrency: [{ key: "scarce", limit: 1 }] };
  const agentId = await system.agent("a", { maxConcurrency: 4 });
  const scope = system.as(agentId);
  await Agent.seen(scope, agentId);
  const done = await system.task("done", { tags: ["x"], stickyKey: "s", fairKey: "f" });
  const running = await system.task("limited", limited);
  const waiting = await system.task("limited", limited);
  const assignments = await Agent.lease(scope, agentId, { max: 4, waitSeconds: 0 });
  const fences = new Map(assignments.map(({ task, fence }) => [task.id, fence]));
  // What comes after is noted apart.
  await system.ports.store.projected();
  const following = await system.task("following", { dependsOn: [running.id], parentId: done.id });
  await Task.complete(scope, done.id, Task.Complete.parse({ fence: fences.get(done.id), result: '"r"' }));
  await Task.start(scope, running.id, { fence: fences.get(running.id) as number });
  const parked = await system.task("parked", { requires: [{ capability: "nobody" }], timeouts: { queueSeconds: 60 } });
  const far = await system.task("far", { delaySeconds: 7200 });
  const failing = await system.task("failing", { retry: { maxAttempts: 1 } });
  const lease = await system.lease(agentId);
  expect(lease.task.id).toBe(failing.id);
  const error = { code: "bad", message: "bad" };
  await Task.fail(scope, failing.id, Task.Fail.parse({ fence: lease.fence, error }));
  await Limit.put(system.admin, "scarce", { concurrency: 1 });
  await system.quiet();
  return {
    agentId,
    done: done.id,
    running: running.id,
    waiting: waiting.id,
    following: following.id,
    parked: parked.id,
    far: far.id,
    failing: failing.id,
  };
}

const all: Item[] = [];
/** Every row of the store, by what a test wants of it. */
async function row(wanted: (item: Item) => boolean): Promise<Item> {
  all.splice(0);
  for (const pk of system.ports.inspect?.partitions() ?? [])
    all.push(...(await system.ports.store.query({ pk, limit: 1000 })).items);
  const item = all.find(wanted);
  if (!item) throw new Error("there is no such row");
  return item;
}
const of = (kind: string, id?: string) => (item: Item) => item.kind === kind && (id === undefined || item.id === id);
const inside = (letters: string) => (item: Item) => item.pk.startsWith(`acme#${letters}`);

type Ids = Awaited<ReturnType<typeof populate>>;
const drop = ({ pk, sk }: RowKey): Write => ({ delete: { pk, sk } });
const change = ({ pk, sk, kind }: Item, set: Record<string, never | unknown>): Write => ({
  update: { pk, sk },
  kind,
  set: set as never,
});
const put = (pk: string, sk: string, kind: string, more: Record<string, unknown> = {}): Write => ({
  put: { pk, sk, kind, ...(more as object) },
});

/** What is done to the store, behind the back of all that keeps it, and what is found then: nothing else. */
const damages: Record<string, (ids: Ids) => Promise<{ writes: Write[]; found: string[] }>> = {
  "task.stuck": async ({ parked }) => ({
    writes: [
      drop(await row(inside("L#"))),
      { update: await row(of("task", parked)), kind: "task", remove: ["parked"] },
    ],
    found: [parked],
  }),
  "task.unparked": async ({ parked }) => ({ writes: [drop(await row(inside("L#")))], found: [parked] }),
  "task.holder": async ({ agentId, running }) => ({
    writes: [
      { update: await row(of("agent", agentId)), kind: "agent", set: { state: "stopped" }, remove: ["deadlineAt"] },
      drop(await row(of("name"))),
      drop(await row(({ kind, role }) => kind === "bearer" && role === "agent")),
    ],
    found: [running],
  }),
  "task.dependency": async ({ following }) => ({ writes: [drop(await row(inside("D#")))], found: [following] }),
  "task.deadline": async ({ parked }) => ({
    writes: [change(await row(of("task", parked)), { deadlineAt: 5e12 })],
    found: [parked],
  }),
  "task.payload": async ({ done }) => ({
    writes: [change(await row(of("task", done)), { inputBlob: "acme/none/input" })],
    found: [done],
  }),
  "agent.slots": async ({ agentId }) => ({
    writes: [change(await row(of("agent", agentId)), { used: 3 })],
    found: [agentId],
  }),
  "agent.deadline": async ({ agentId }) => ({
    writes: [change(await row(of("agent", agentId)), { deadlineAt: 5e12 })],
    found: [agentId],
  }),
  "agent.name": async ({ agentId }) => ({ writes: [drop(await row(of("name")))], found: [agentId] }),
  "agent.token": async ({ agentId }) => ({
    writes: [drop(await row(({ kind, role }) => kind === "bearer" && role === "agent"))],
    found: [agentId],
  }),
  "name.dangling": async () => ({
    writes: [put("acme#N#ghost", "name", "name", { agentId: "agt_none" })],
    found: ["ghost"],
  }),
  "key.bearer": async () => ({
    writes: [drop(await row(({ kind, role }) => kind === "bearer" && role === "admin"))],
    found: [(await row(of("key"))).sk],
  }),
  "bearer.dangling": async () => ({
    writes: [put("K#stray", "key", "bearer", { tenant: "acme", role: "admin", id: "key_none" })],
    found: ["key_none"],
  }),
  "timer.missing": async ({ far }) => ({ writes: [drop(await row(of("timers")))], found: [far] }),
  "timer.unswept": async () => ({
    writes: [put("TIMER", "cursor", "cursor", { minute: 9 }), put("TIMER#5#0", "x", "timers", { timers: [] })],
    found: ["TIMER#5#0"],
  }),
  "lane.dangling": async ({ done }) => ({
    writes: [put((await row(inside("L#"))).pk, "000#1", "parked", { taskId: done })],
    found: [done],
  }),
  "lane.unregistered": async ({ parked }) => {
    const { lane } = (await row(of("task", parked))) as Item & { lane: string };
    return { writes: [drop({ pk: "acme#LANES", sk: lane })], found: [lane] };
  },
  "limit.running": async () => ({ writes: [change(await row(of("gate")), { running: 2 })], found: ["scarce"] }),
  "limit.waiting": async () => ({ writes: [change(await row(of("gate")), { waiting: 0 })], found: ["scarce"] }),
  "limit.dangling": async ({ done }) => ({
    writes: [put("acme#W#scarce", "000#1", "parked", { taskId: done })],
    found: [done],
  }),
  "sticky.dangling": async () => ({
    writes: [change(await row(of("sticky")), { agentId: "agt_none" })],
    found: ["s"],
  }),
  "dependant.dangling": async ({ done, following }) => ({
    writes: [put(`acme#D#${done}`, following, "dependant")],
    found: [following],
  }),
  "dependant.unflagged": async ({ running }) => ({
    writes: [{ update: await row(of("task", running)), kind: "task", remove: ["dependants"] }],
    found: [running],
  }),
  "idempotency.expired": async () => ({
    writes: [put("acme#I#old", "key", "idempotency", { expiresAt: 1 })],
    found: ["old"],
  }),
  "list.missing": async ({ done }) => ({ writes: [drop(await row(inside("X#tag#")))], found: [done] }),
  "list.dangling": async ({ far }) => ({ writes: [put("acme#X#tag#3#y", far, "index")], found: [far] }),
  "count.wrong": async () => ({ writes: [change(await row(of("counters")), { "tasks.queued": 7 })], found: ["acme"] }),
  "event.gap": async () => ({ writes: [change(await row(of("events-head")), { last: 1000 })], found: ["acme"] }),
  "event.order": async ({ far }) => {
    const log = (await row(({ kind, entries }) => kind === "events" && JSON.stringify(entries).includes(far))) as Item;
    const entries = log.entries as (readonly unknown[])[];
    const first = entries.findIndex(([, , id]) => id === far);
    // In its place, so that the numbers stay.
    return {
      writes: [
        change(log, {
          entries: entries.map((entry, i) => (i === first ? ["task.progress", ...entry.slice(1)] : entry)),
        }),
      ],
      found: [far],
    };
  },
  "event.status": async ({ running }) => ({
    writes: [change(await row(of("task", running)), { fence: 9 })],
    found: [running],
  }),
  "event.unlisted": async () => {
    const notes = await row(of("task-events"));
    return { writes: [drop(notes)], found: [notes.pk.split("#")[2] as string] };
  },
  "row.misplaced": async () => ({
    writes: [put("acme#T#0", "odd", "odd", { id: "odd", tenant: "acme" })],
    found: ["odd"],
  }),
  "row.unknown": async () => ({ writes: [put("acme#ZZ#1", "x", "what")], found: ["acme#ZZ#1"] }),
};

test("a store in use is found to be whole, and each kind of row is read", async () => {
  await populate();
  const report = await Audit.run(system.ports);
  expect(report.findings).toEqual([]);
  expect(report).toMatchObject({ found: 0, unsettled: 0, complete: true });
  expect(Object.keys(report.rows).sort().join(" ")).toBe(
    "agent bearer counters dependant events fair gate index key lane limit name parked sticky task task-events tenant timers",
  );
});

test("each kind of damage is found, said of the row it was done to, and nothing else is", async () => {
  const ids = await populate();
  const { store } = system.ports;
  const wrong: unknown[] = [];
  for (const [code, damage] of Object.entries(damages)) {
    const { writes, found } = await damage(ids);
    const keys = writes.map((write) =>
      "put" in write ? write.put : "update" in write ? write.update : (write as { delete: RowKey }).delete,
    );
    const before = await store.batchGet(keys);
    for (const write of writes) await store.write(write);
    await system.quiet();
    const saw = await findings();
    const expected = found.map((subject) => `${code} ${subject}`);
    const got = saw.map((each) => `${each.code} ${each.subject}`);
    if (got.join() !== expected.join()) wrong.push([expected, saw]);
    for (const [i, { pk, sk }] of keys.entries()) {
      const item = before[i];
      await store.write(item ? { put: item } : { delete: { pk, sk } });
    }
    await system.quiet();
  }
  expect(wrong).toEqual([]);
  expect(await findings()).toEqual([]);
});

test("a task that is gone, and a message that failed for good, are found", async () => {
  const { done } = await populate();
  const { store, queues } = system.ports;
  await store.write(drop(await row(of("task", done))));
  await queues.intake.send([{ body: "x" }]);
  for (let receives = 0; receives < 5; receives++) {
    const [message] = await queues.intake.receive({ max: 1 });
    await queues.intake.retry([message?.receipt as string], 0);
  }
  await system.quiet();
  expect((await findings()).map(({ code }) => code).sort()).toEqual(["queue.dead", "task.lost"]);
  for (const code of ["queue.dead", "task.lost"]) system.damaged.add(code);
});

test("what others change while it is read is not taken for damage, and what stays wrong is", async () => {
  const { agentId } = await populate();
  const agent = await row(of("agent", agentId));
  await system.ports.store.write(change(agent, { used: 3 }));
  await system.ports.store.write(change(await row(of("gate")), { waiting: 5 }));
  const pause = async () => void (await system.ports.store.write(change(await row(of("gate")), { waiting: 1 })));
  const report = await Audit.run(system.ports, { pause });
  expect(report.findings.map(({ code, subject }) => `${code} ${subject}`)).toEqual([`agent.slots ${agentId}`]);
  expect(report).toMatchObject({ found: 1, unsettled: 1 });
  system.damaged.add("agent.slots");
});

test("a tenant's admin is told of its own rows alone", async () => {
  await populate();
  await system.ports.store.write(put("other#ZZ#1", "x", "what"));
  await Key.create(system.tenant("other"), { role: "admin" });
  expect((await Audit.run(system.ports, { tenant: "acme" })).findings).toEqual([]);
  expect((await Audit.run(system.ports, { tenant: "other" })).findings).toMatchObject([{ code: "row.unknown" }]);
  expect(await findings()).toMatchObject([{ code: "row.unknown", subject: "other#ZZ#1" }]);
  system.damaged.add("row.unknown");
});

test("rows that expire may be gone: events from the log's beginning on, and tasks that have ended", async () => {
  const { done } = await populate();
  const { store } = system.ports;
  await store.projected();
  const log = await row(({ kind, first }) => kind === "events" && first === 1);
  const later = await row(({ kind, first }) => kind === "events" && first !== 1);
  await store.write(change(later, { expiresAt: 5e12 }));
  await store.write(drop(log));
  await store.write(drop(await row(of("task", done))));
  await system.quiet();
  // Not yet past its retention.
  expect((await findings()).map(({ code }) => code)).toEqual(["task.lost"]);
  await Retention.put(system.admin, { taskSeconds: 60 });
  await system.pass(61, 1);
  expect(await findings()).toEqual([]);
});

test("events that were kept shorter than those before them leave a hole in the log that is no damage", async () => {
  await populate();
  const { checkpoint } = system.engine as EmbeddedEngine;
  const old = await EventLog.last(system.admin);
  await Retention.put(system.admin, { eventSeconds: 60 });
  const short = await system.task("short");
  const gone = await EventLog.last(system.admin);
  const sequences = async () =>
    (await EventLog.list(system.admin, { after: gone, limit: 200 })).items.map(({ sequence }) => sequence);
  system.clock.advance(61_000);
  await eventually("they are deleted", async () => {
    await checkpoint();
    system.clock.advance(5_000);
    await system.quiet();
    return (await code(EventLog.list(system.admin, { after: old, limit: 1 }))) === "event.gone" || undefined;
  });
  // At its end, and with something after it.
  expect(await findings()).toEqual([]);
  const task = await system.task("new");
  expect(await findings()).toEqual([]);
  expect((await sequences())[0]).toBe(gone + 1);
  await Retention.put(system.admin, { eventSeconds: 0 });
  expect(await findings()).toEqual([]);
  // What the log tells after it is compared as ever.
  await system.ports.store.write(change(await row(of("task", task.id)), { status: "scheduled", scheduledAt: 5e12 }));
  await system.quiet();
  expect((await findings()).map(({ subject }) => subject)).not.toContain(short.id);
  expect((await findings()).map(({ code, subject }) => `${code} ${subject}`)).toContain(`event.status ${task.id}`);
  await system.ports.store.write(drop(await row(of("events-head"))));
  for (const { code } of await findings()) system.damaged.add(code);
});

test("a task that retention deleted is not missed when tasks are kept longer again, and one that is lost after that is", async () => {
  const { done, agentId } = await populate();
  await Retention.put(system.admin, { taskSeconds: 60 });
  await system.pass(70, 1);
  await eventually("it is deleted", async () => {
    await (system.engine as EmbeddedEngine).checkpoint();
    system.clock.advance(5_000);
    await system.quiet();
    return (await code(system.get(done))) === "task.not_found";
  });
  await Retention.put(system.admin, { taskSeconds: 86_400 });
  await system.pass(10, 1);
  await Retention.put(system.admin, { taskSeconds: 0 });
  expect(await findings()).toEqual([]);
  await system.pass(1);
  const { task, fence } = await system.lease(agentId);
  await Task.complete(system.as(agentId), task.id, { fence });
  await system.quiet();
  await system.ports.store.write(drop(await row(of("task", task.id))));
  await system.quiet();
  expect(await findings()).toMatchObject([{ code: "task.lost", subject: task.id }]);
  system.damaged.add("task.lost");
});

test("where an engine names no partitions, the rows are read that others lead to", async () => {
  const { agentId } = await populate();
  const { inspect: _, ...ports } = system.ports;
  expect(await Audit.run(ports)).toMatchObject({ findings: [], complete: false });
  const agent = await row(of("agent", agentId));
  await system.ports.store.write(change(agent, { used: 3 }));
  expect((await Audit.run(ports)).findings).toMatchObject([{ code: "agent.slots", subject: agentId }]);
  system.damaged.add("agent.slots");
});

test("on a store that others share it is read many rows at a time, and the same is found", async () => {
  await system.close();
  mode.shared = true;
  system = await openSystem();
  mode.shared = false;
  await Key.create(system.admin, { role: "admin" });
  const agentId = await system.agent("a");
  for (let n = 0; n < 40; n++) await system.task("t", { tags: [`tag-${n}`] });
  await system.quiet();
  const { inspect: _, ...ports } = system.ports;
  let reading = 0;
  let most = 0;
  const query: typeof ports.store.query = async (asked) => {
    most = Math.max(most, ++reading);
    const page = await ports.store.query(asked);
    reading--;
    return page;
  };
  const watched = { ...ports, store: { ...ports.store, query } };
  expect(await Audit.run(watched)).toMatchObject({ found: 0, complete: false });
  expect(most).toBeGreaterThan(8);
  await ports.store.write(
    drop(await row(({ kind, pk }) => kind === "index" && pk.includes("#X#tag#") && pk.endsWith("tag-7"))),
  );
  await ports.store.write(change(await row(of("agent", agentId)), { used: 3 }));
  const found = (await Audit.run(watched)).findings.map(({ code }) => code);
  expect(found.sort()).toEqual(["agent.slots", "list.missing"]);
  for (const code of found) system.damaged.add(code);
});

test("of counters, those of slots are compared where processes share a store, and what an older version counted is not", async () => {
  await system.close();
  mode.shared = true;
  system = await openSystem();
  mode.shared = false;
  await system.agent("a", { maxConcurrency: 3 });
  await system.quiet();
  await system.ports.store.projected();
  const counters = await row(of("counters"));
  await system.ports.store.write(change(counters, { "roles.reviewer": 1 }));
  expect(await findings()).toEqual([]);
  await system.ports.store.write(change(counters, { "slots.all": 9 }));
  expect(await findings()).toMatchObject([
    { code: "count.wrong", problem: expect.stringContaining("counts 9 slots.all; there are 3") },
  ]);
  system.damaged.add("count.wrong");
});

test("what is not read in time is not half an answer: the call says that there is more", async () => {
  await populate();
  let now = system.ports.clock.now();
  const clock = { ...system.ports.clock, now: () => (now += 1000) };
  expect(await code(Audit.run({ ...system.ports, clock }, { budgetMs: 5_000 }))).toBe("audit.too_large");
});
