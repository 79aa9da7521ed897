import { Agent, createId, dispatch, Key, type Ports, systemScope, Task } from "@waggle/core";
import { minuteHandler, scalingHandler } from "@waggle/edge";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type Fleet, openFleet } from "../support/processes.ts";

let fleet: Fleet;
beforeEach(async () => {
  fleet = await openFleet();
  await Key.create(fleet.process().scope(), { role: "admin" });
});
afterEach(async () => {
  expect(fleet.errors).toEqual([]);
  await fleet.close();
});

const minute = async () => {
  const did = await minuteHandler(fleet.process().ports, (_, error) => void fleet.errors.push(error))();
  await fleet.quiet();
  return did;
};
const agent = async (connectionId?: string, maxConcurrency = 1) => {
  const scope = fleet.process().scope();
  const input = Agent.Register.parse({ name: "a", capabilities: [{ name: "x" }], leaseSeconds: 30, maxConcurrency });
  const { agent } = await Agent.register(scope, input);
  if (connectionId !== undefined) await Agent.attach(fleet.process().scope(), agent.id, { connectionId });
  return agent.id;
};
const task = async (more: Record<string, unknown> = {}) => {
  const scope = fleet.process().scope();
  const { task } = await Task.create(scope, Task.Create.parse({ type: "t", requires: [{ capability: "x" }], ...more }));
  return task.id;
};
const get = (id: string) => Task.get(fleet.process().scope(), id);
/** The row, found by its kind in the change stream's way: by key. */
const rowOf = async (kind: "task" | "agent", id: string) => {
  for (let shard = 0; shard < 16; shard++) {
    const key = { pk: `acme#${kind === "task" ? "T" : "A"}#${shard}`, sk: id };
    if (await fleet.engine.ports.store.get(key)) return key;
  }
  throw new Error(`there is no ${kind} ${id}`);
};

test("a minute later a task whose message was lost is found, and given to whoever is free", async () => {
  await agent("one");
  const id = await task({ delaySeconds: 3600 });
  const key = await rowOf("task", id);
  // As if the message that announced it had gone.
  const set = { status: "queued", queuedAt: fleet.clock.now() };
  await fleet.engine.ports.store.write({ update: key, kind: "task", set });
  await fleet.quiet();
  expect(await minute()).toMatchObject({ orphaned: 0 });
  await fleet.pass(31, 31);
  expect(await minute()).toMatchObject({ orphaned: 1 });
  expect((await get(id)).status).toBe("assigned");
});

test("one that was just orphaned is found by the next run, however many are before it in the list that is read", async () => {
  await agent("one");
  const id = await task({ delaySeconds: 3600 });
  const set = { status: "queued", queuedAt: fleet.clock.now() };
  const { store } = fleet.engine.ports;
  await store.write({ update: await rowOf("task", id), kind: "task", set });
  await fleet.quiet();
  const lists = Array.from({ length: 8 }, (_, shard) => `acme#X#status#${shard}#queued`);
  const rows = await store.batchGet(lists.map((pk) => ({ pk, sk: id })));
  const pk = rows.find((row) => row !== undefined)?.pk as string;
  // Of tasks that are older: more than two runs read.
  const older = Array.from({ length: 500 }, (_, n) => ({
    pk,
    sk: `tsk_${String(n).padStart(22, "0")}`,
    kind: "index",
  }));
  await store.batchWrite(older.map((put) => ({ put })));
  await fleet.pass(6, 6);
  expect(await minute()).toMatchObject({ orphaned: 1 });
  expect((await get(id)).status).toBe("assigned");
  await store.batchWrite(older.map((row) => ({ delete: row })));
});

test("a task that waits beside a free agent is given to it", async () => {
  const id = await task();
  await fleet.quiet();
  expect((await get(id)).waiting).toBeDefined();
  // As if it had died before it looked for what waits.
  await agent("one");
  expect(await minute()).toMatchObject({ waiting: 1 });
  expect((await get(id)).status).toBe("assigned");
});

test.each([["when its caller asks again"], ["a minute later"]])(
  "a task goes on though its process died before it saw that what it waits for has ended: %s",
  async (when) => {
    const a = await agent("one");
    const first = await task();
    await fleet.quiet();
    await Task.complete(fleet.process().scope({ role: "agent", id: a }), first, { fence: 1 });
    await fleet.quiet();
    const id = createId("tsk", fleet.clock.now(), fleet.engine.ports.random);
    const asked = Task.Create.parse({ id, type: "t", requires: [{ capability: "x" }], dependsOn: [first] });
    // At the call after which the task is there, and not yet looked after.
    for (let nth = 1; !(await get(id).catch(() => undefined)); nth++) {
      const process = fleet.process();
      process.crash(nth, "after");
      await Task.create(process.scope(), asked).catch(() => {});
    }
    await fleet.quiet();
    expect(await get(id)).toMatchObject({ status: "scheduled", fence: 0 });
    if (when === "a minute later") {
      expect(await minute()).toMatchObject({ unmet: 0 });
      await fleet.pass(31, 31);
      await Agent.heartbeat(fleet.process().scope({ role: "agent", id: a }), a, {});
      expect(await minute()).toMatchObject({ unmet: 1 });
    } else {
      await Task.create(fleet.process().scope(), asked);
      await fleet.quiet();
    }
    expect((await get(id)).status).toBe("assigned");
  },
);

test("a task that was not told hours ago that what it waits for has ended goes on within half an hour", async () => {
  const a = await agent("one");
  const first = await task();
  const id = await task({ dependsOn: [first] });
  await fleet.engine.ports.store.write({ delete: { pk: `acme#D#${first}`, sk: id } });
  await Task.complete(fleet.process().scope({ role: "agent", id: a }), first, { fence: 1 });
  await fleet.pass(7200, 600);
  let unmet = 0;
  for (let left = 30; left > 0 && unmet === 0; left--) {
    await fleet.pass(60, 60);
    ({ unmet = 0 } = await minute());
  }
  expect(unmet).toBe(1);
  expect((await get(id)).status).toBe("queued");
});

test("a minute later a task that waits at a limit goes on though whoever left it died before it looked", async () => {
  const id = await agent("one", 2);
  const concurrency = [{ key: "k", limit: 1 }];
  const first = await task({ concurrency });
  await fleet.quiet();
  const next = await task({ concurrency });
  await fleet.quiet();
  expect((await get(next)).waiting?.reason).toBe("limit k: 1 of 1 running");
  const dying = fleet.process();
  const { store } = dying.ports;
  const { get: read } = store;
  (store as { get: typeof read }).get = async (key) => {
    if (key.pk.includes("#G#")) throw new Error("the process has died");
    return read(key);
  };
  const completing = Task.complete(dying.scope({ role: "agent", id }), first, { fence: 1 });
  await expect(completing).rejects.toThrow("died");
  await fleet.quiet();
  expect((await get(next)).status).toBe("queued");
  await minute();
  expect((await get(next)).status).toBe("assigned");
});

test("slots in use that no task accounts for are free again", async () => {
  const id = await agent("one");
  await fleet.engine.ports.store.write({ update: await rowOf("agent", id), kind: "agent", add: { used: 1 } });
  expect(await minute()).toMatchObject({ drifted: 1 });
  expect(await Agent.get(fleet.process().scope(), id)).toMatchObject({ running: 0, freeSlots: 1 });
  expect(await minute()).toMatchObject({ drifted: 0 });
});

test("slots that drifted are put right in whatever order a store reads the members of a row", async () => {
  const id = await agent("one");
  const key = await rowOf("agent", id);
  await fleet.engine.ports.store.write({ update: key, kind: "agent", add: { used: 1 } });
  const { ports } = fleet.process();
  const { get } = ports.store;
  let reads = 0;
  (ports.store as { get: typeof get }).get = async (each) => {
    const row = await get(each);
    if (row?.sk !== id) return row;
    const members = Object.entries(row);
    const first = ++reads % members.length;
    return Object.fromEntries([...members.slice(first), ...members.slice(0, first)]) as typeof row;
  };
  expect(await minuteHandler(ports)()).toMatchObject({ drifted: 1 });
});

test("an agent whose task was ended by a process that died before it gave the slot back has it back, and the task to its credit", async () => {
  const id = await agent("one");
  const work = await task();
  await fleet.quiet();
  const { fence } = await Task.get(fleet.process().scope(), work);
  const dying = fleet.process();
  // It reads how long the tenant keeps tasks, and ends the task; the agent's row is next.
  dying.crash(2, "after");
  const ending = Task.complete(dying.scope({ role: "agent", id }), work, Task.Complete.parse({ fence }));
  await expect(ending).rejects.toThrow("died");
  expect((await get(work)).status).toBe("completed");
  expect(await Agent.get(fleet.process().scope(), id)).toMatchObject({ freeSlots: 0 });
  expect(await minute()).toMatchObject({ drifted: 1 });
  expect(await Agent.get(fleet.process().scope(), id)).toMatchObject({
    running: 0,
    freeSlots: 1,
    stats: { completed: 1 },
  });
  expect(await minute()).toMatchObject({ drifted: 0 });
});

test("slots that were left behind by an attempt do not keep its agent from the next, and are not given back twice", async () => {
  const id = await agent("one");
  const work = await task({ retry: { maxAttempts: 2, initialSeconds: 1 } });
  await fleet.quiet();
  const { fence } = await Task.get(fleet.process().scope(), work);
  const dying = fleet.process();
  dying.crash(2, "after");
  const failing = { fence, error: { code: "tool.broken", message: "out of reach" } };
  await expect(Task.fail(dying.scope({ role: "agent", id }), work, Task.Fail.parse(failing))).rejects.toThrow("died");
  await fleet.pass(20);
  await minute();
  await fleet.quiet();
  const again = await Task.get(fleet.process().scope(), work);
  expect(again).toMatchObject({ status: "assigned", attempt: 2 });
  expect(await Agent.get(fleet.process().scope(), id)).toMatchObject({ running: 1, freeSlots: 0 });
});

/** A process that dies when it comes to write a task. */
const dyingAtTask = () => {
  const dying = fleet.process();
  const { store } = dying.ports;
  const { write } = store;
  (store as { write: typeof write }).write = async (each) => {
    const isTask = "put" in each ? each.put.kind === "task" : "update" in each && each.kind === "task";
    if (!isTask) return write(each);
    throw new Error("the process has died");
  };
  return dying;
};
const asked = Task.Create.parse({ type: "t", requires: [{ capability: "x" }] });

test("a slot taken for a task that never came is free again, once nobody can be about to bring it", async () => {
  const id = await agent("one");
  await expect(Task.create(dyingAtTask().scope(), asked)).rejects.toThrow("died");
  expect(await Agent.get(fleet.process().scope(), id)).toMatchObject({ freeSlots: 0 });
  expect(await minute()).toMatchObject({ drifted: 0 });
  await fleet.pass(20, 20);
  expect(await minute()).toMatchObject({ drifted: 0 });
  await Agent.seen(fleet.process().scope({ role: "agent", id }), id);
  await fleet.pass(20, 20);
  await Agent.seen(fleet.process().scope({ role: "agent", id }), id);
  await fleet.pass(20, 20);
  expect(await minute()).toMatchObject({ drifted: 1 });
  expect(await Agent.get(fleet.process().scope(), id)).toMatchObject({ running: 0, freeSlots: 1 });
});

test("slots of hundreds of tasks that never came are all free again, a hundred each minute", async () => {
  const id = await agent("one", 300);
  const left = Array.from(
    { length: 250 },
    () => [`held:${createId("tsk", fleet.clock.now(), fleet.engine.ports.random)}`, 1] as const,
  );
  const { write } = fleet.engine.ports.store;
  await write({
    update: await rowOf("agent", id),
    kind: "agent",
    add: { used: 250 },
    set: Object.fromEntries(left),
  });
  const live = () => Agent.seen(fleet.process().scope({ role: "agent", id }), id);
  const looking = fleet.process();
  const writes: number[] = [];
  (looking.ports.store as { write: typeof write }).write = async (each) => {
    if ("update" in each && each.remove) writes.push(each.remove.length);
    return write(each);
  };
  for (let minutes = 0; minutes < 5; minutes++) {
    await minuteHandler(looking.ports)();
    for (let third = 0; third < 3; third++) {
      await fleet.pass(20, 20);
      await live();
    }
  }
  expect(writes).toEqual([100, 100, 50]);
  expect(await Agent.get(fleet.process().scope(), id)).toMatchObject({ running: 0, freeSlots: 300 });
});

test("a slot that is being taken for a task is not taken away in between", async () => {
  const id = await agent("one");
  const slow = fleet.process();
  const { store } = slow.ports;
  const { write } = store;
  (store as { write: typeof write }).write = async (each) => {
    if ("put" in each && each.put.kind === "task") expect(await minute()).toMatchObject({ drifted: 0 });
    return write(each);
  };
  const { task } = await Task.create(slow.scope(), asked);
  expect((await get(task.id)).agentId).toBe(id);
  expect(await minute()).toMatchObject({ drifted: 0 });
  expect(await Agent.get(fleet.process().scope(), id)).toMatchObject({ running: 1, freeSlots: 0 });
});

test("a slot is not taken away from a task that comes while it is looked for", async () => {
  const id = await agent("one");
  const [slow, looking] = [fleet.process(), fleet.process()];
  const { write } = slow.ports.store;
  const { batchGet } = looking.ports.store;
  let looks = 0;
  (slow.ports.store as { write: typeof write }).write = async (each) => {
    if (!("put" in each) || each.put.kind !== "task") return write(each);
    let written: Awaited<ReturnType<typeof write>> | undefined;
    (looking.ports.store as { batchGet: typeof batchGet }).batchGet = async (keys) => {
      if (keys.some(({ sk }) => sk === each.put.sk) && ++looks === 2) written = await write(each);
      return batchGet(keys);
    };
    expect(await minuteHandler(looking.ports)()).toMatchObject({ drifted: 0 });
    return written ?? write(each);
  };
  const { task } = await Task.create(slow.scope(), asked);
  expect(looks).toBe(2);
  expect(await Agent.get(fleet.process().scope(), id)).toMatchObject({ running: 1, freeSlots: 0 });
  const scope = fleet.process().scope({ role: "agent", id });
  await fleet.pass(31, 31);
  await Agent.heartbeat(scope, id, { holding: [] });
  expect(await get(task.id)).toMatchObject({ status: "queued" });
});

test("a slot taken for a queued task by a process that died is the task's, whoever gives it to its agent", async () => {
  const id = await agent("one", 2);
  const later = await task({ delaySeconds: 600 });
  const key = await rowOf("task", later);
  const set = { status: "queued", queuedAt: fleet.clock.now() };
  await fleet.engine.ports.store.write({ update: key, kind: "task", set, remove: ["deadlineAt", "scheduledAt"] });
  await expect(dispatch(dyingAtTask().scope(), later)).rejects.toThrow("died");
  expect(await Agent.get(fleet.process().scope(), id)).toMatchObject({ running: 1, freeSlots: 1 });
  expect(await dispatch(fleet.process().scope(), later)).toBe(true);
  expect(await get(later)).toMatchObject({ status: "assigned", agentId: id, attempt: 1 });
  await fleet.quiet();
  expect(await Agent.get(fleet.process().scope(), id)).toMatchObject({ running: 1, freeSlots: 1 });
  expect(await minute()).toMatchObject({ drifted: 0 });
});

test("a task that was cancelled while its slot was taken gives it back", async () => {
  const id = await agent("one");
  const later = await task({ delaySeconds: 600 });
  const key = await rowOf("task", later);
  const set = { status: "queued", queuedAt: fleet.clock.now() };
  await fleet.engine.ports.store.write({ update: key, kind: "task", set, remove: ["deadlineAt", "scheduledAt"] });
  const slow = fleet.process();
  const { store } = slow.ports;
  const { write } = store;
  (store as { write: typeof write }).write = async (each) => {
    if ("update" in each && each.kind === "task") await Task.cancel(fleet.process().scope(), later, {});
    return write(each);
  };
  expect(await dispatch(slow.scope(), later)).toBe(true);
  expect((await get(later)).status).toBe("cancelled");
  expect(await Agent.get(fleet.process().scope(), id)).toMatchObject({ running: 0, freeSlots: 1 });
});

test("a task whose agent was stopped while it was given to it goes on", async () => {
  const id = await agent("one");
  const slow = fleet.process();
  const { store } = slow.ports;
  const { write } = store;
  (store as { write: typeof write }).write = async (each) => {
    if ("put" in each && each.put.kind === "task")
      await Agent.remove(fleet.process().scope(), id, { mode: "force", graceSeconds: 0 });
    return write(each);
  };
  const { task } = await Task.create(slow.scope(), asked);
  await fleet.quiet();
  expect((await get(task.id)).agentId).toBe(id);
  expect(await minute()).toMatchObject({ stranded: 1 });
  const after = await get(task.id);
  expect(after).toMatchObject({ status: "queued", attempt: 0 });
  expect(after.agentId).toBeUndefined();
});

test("an agent whose timer was lost is found lost, and its work goes on", async () => {
  const id = await agent("one");
  const work = await task();
  await fleet.quiet();
  expect((await get(work)).agentId).toBe(id);
  // No timer fires while time passes so.
  const expired = { expiresAt: fleet.clock.now() - 60_000 };
  await fleet.engine.ports.store.write({ update: await rowOf("agent", id), kind: "agent", set: expired });
  expect(await minute()).toMatchObject({ overdue: 1 });
  expect((await Agent.get(fleet.process().scope(), id)).status).toBe("lost");
  expect((await get(work)).status).toBe("queued");
});

test("a deadline whose timer was lost is kept", async () => {
  const id = await task({ timeouts: { queueSeconds: 600 } });
  await fleet.quiet();
  const past = { queuedAt: fleet.clock.now() - 700_000, deadlineAt: fleet.clock.now() - 100_000 };
  await fleet.engine.ports.store.write({ update: await rowOf("task", id), kind: "task", set: past });
  expect(await minute()).toMatchObject({ expired: 1 });
  expect((await get(id)).status).toBe("expired");
});

test("what was assigned and not begun for long is pushed again", async () => {
  const id = await agent("one");
  const work = await task();
  await fleet.pass(20);
  await Agent.heartbeat(fleet.process().scope({ role: "agent", id }), id, {});
  await fleet.pass(12);
  const before = fleet.sent.length;
  expect(await minute()).toMatchObject({ undelivered: 1 });
  expect(fleet.sent.slice(before).map(({ text }) => JSON.parse(text).assignments?.[0].task.id)).toEqual([work]);
});

test("a tenant at rest costs few reads, and is looked through now and then all the same", async () => {
  const id = await agent("one");
  const work = await task();
  await fleet.quiet();
  await Task.complete(fleet.process().scope({ role: "agent", id }), work, { fence: 1 });
  const reads = async () => {
    const { ports } = fleet.process();
    const { query } = ports.store;
    let count = 0;
    (ports.store as { query: typeof query }).query = (each) => {
      if (each.pk.startsWith("acme#X#status#")) count++;
      return query(each);
    };
    await minuteHandler(ports)();
    await fleet.quiet();
    return count;
  };
  expect(await reads()).toBeGreaterThan(0);
  await fleet.pass(60, 20);
  expect(await reads()).toBe(0);
  const waiting = await task({ requires: [{ capability: "y" }] });
  await fleet.quiet();
  expect(await reads()).toBeGreaterThan(0);
  await Task.cancel(fleet.process().scope(), waiting, {});
  await fleet.pass(29 * 60, 20);
  expect(await reads()).toBeGreaterThan(0);
});

test("a lane nobody used for long is forgotten, and made again when it is needed", async () => {
  const first = await task();
  await fleet.quiet();
  await Task.cancel(fleet.process().scope(), first, {});
  expect(await minute()).toMatchObject({ dropped: 0 });
  await fleet.pass(3700, 3700);
  expect(await minute()).toMatchObject({ dropped: 1 });
  const second = await task();
  await fleet.quiet();
  await agent("one");
  expect(await minute()).toMatchObject({ waiting: 1 });
  expect((await get(second)).status).toBe("assigned");
});

test("a called agent that is lost, and whose timer was lost too, is tried anew; what it accepted it keeps", async () => {
  const agentId = await agent("one");
  const key = await rowOf("agent", agentId);
  const accepted = await task();
  await fleet.quiet();
  const scope = { ...fleet.process().scope(), actor: { role: "agent", id: agentId } as const };
  await Task.start(scope, accepted, { fence: (await get(accepted)).fence });
  // As if it were called, and no timer had come of its loss.
  const { store } = fleet.engine.ports;
  await store.write({ update: await rowOf("task", accepted), kind: "task", set: { silenceSeconds: 60 } });
  const delivery = { type: "queue", queueUrl: "https://sqs.eu-west-1.amazonaws.com/123456789012/work" };
  const set = { delivery, state: "lost", probeAt: fleet.clock.now() - 10_000 };
  await store.write({ update: key, kind: "agent", set, remove: ["expiresAt"] });
  expect(await minute()).toMatchObject({ overdue: 1 });
  expect(await store.get(key)).toMatchObject({ state: "active", probing: true, used: 1 });
  expect((await get(accepted)).status).toBe("running");
  expect(await minute()).toMatchObject({ overdue: 0 });
});

test("scaling knows what waits, for how long, and the slots there are", async () => {
  await agent("one");
  await task();
  await task();
  await fleet.pass(20);
  expect(await scalingHandler(fleet.process().ports)()).toEqual([
    { tenant: "acme", slots: 1, slotsInUse: 1, queues: [{ capability: "x", waiting: 1, oldestSeconds: 20 }] },
  ]);
});

test("a run that is cut short is gone on with by the next, so that every tenant has its turn", async () => {
  const { ports } = fleet.process();
  const names = Array.from({ length: 70 }, (_, n) => `tenant-${String(n).padStart(3, "0")}`);
  for (const name of names) await Key.create(systemScope(ports, name, "test"), { role: "admin" });
  const looked: string[] = [];
  let left = 40;
  const short: Ports = {
    ...ports,
    store: {
      ...ports.store,
      async get(key) {
        const tenant = key.pk.split("#")[0] as string;
        if (key.pk.endsWith("#R") && tenant !== "") {
          if (left-- <= 0) throw new Error("no time was left");
          looked.push(tenant);
        }
        return await ports.store.get(key);
      },
    },
  };
  await expect(minuteHandler(short)()).rejects.toThrow("no time was left");
  const first = new Set(looked.splice(0));
  left = 60;
  await minuteHandler(short)().catch(() => {});
  expect(names.filter((name) => !first.has(name) && !looked.includes(name))).toEqual([]);
  left = 1000;
  looked.splice(0);
  expect(await minuteHandler(short)()).toMatchObject({ tenants: names.length + 1 });
  expect(new Set(looked).size).toBe(names.length + 1);
});
