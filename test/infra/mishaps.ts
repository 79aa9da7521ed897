import type { Value } from "@waggle/core";
import { type Assigned, type Content, large, plain, rich, type Tools } from "./tools.ts";

/* What goes wrong on the way, and what puts it right. */

/** Agents whose connection is gone when one function or another sends to it; what is sent has a payload from the bucket. */
export async function vanishes({ cloud, call, submit, register, remove, open, say, given }: Tools): Promise<void> {
  const alone = (name: string, more: Content = {}) =>
    register(name, { capabilities: [{ name }], leaseSeconds: 3600, ...more });
  const input = large;

  const byApi = await alone("byApi");
  await open("byApi", byApi);
  for (let i = 0; i < 2; i++) await submit({ requires: [{ capability: "byApi" }], input });
  cloud.gone.add("byApi");
  await call("PATCH", `/v1/agents/${byApi.id}`, { maxConcurrency: 2 });
  await cloud.quiet();
  await remove(byApi);

  const byDispatch = await alone("byDispatch", { maxConcurrency: 2 });
  await open("byDispatch", byDispatch);
  // It was to stop what it had not begun.
  const stopping = await submit({ requires: [{ capability: "byDispatch" }] });
  await call("POST", `/v1/tasks/${stopping}/cancel`, {});
  cloud.gone.add("byDispatch");
  // What is free at once is given by who takes it; this comes by the queue.
  await submit({ requires: [{ capability: "byDispatch" }], input, delaySeconds: 5 });
  await cloud.pass(6);
  await remove(byDispatch);

  const byTimers = await alone("byTimers", { maxConcurrency: 3 });
  await open("byTimers", byTimers);
  const slowly = { requires: [{ capability: "byTimers" }], rate: { key: "slowly", limit: 1, perSeconds: 10 }, input };
  for (let i = 0; i < 2; i++) await submit(slowly);
  const [first] = given("byTimers") as [Assigned];
  await say("byTimers", { op: "complete", taskId: first.task.id, fence: first.fence });
  cloud.gone.add("byTimers");
  await cloud.pass(15);
  await remove(byTimers);

  const url = "https://agents.example.com/gives-back";
  const hook = await alone("gives", { delivery: { type: "webhook", url } });
  const byDeliver = await alone("byDeliver");
  await open("byDeliver", byDeliver);
  cloud.gone.add("byDeliver");
  const [place, pace] = [
    { key: "place", limit: 1 },
    { key: "pace", limit: 1, perSeconds: 500 },
  ];
  cloud.world.set(url, async () => {
    // While it works, others come to wait for what it holds.
    const waits = [
      { type: "t", requires: [{ capability: "byDeliver" }], concurrency: [place], stickyKey: "b", fairKey: "b", input },
      { type: "t", requires: [{ capability: "byDeliver" }], rate: pace },
    ];
    for (const each of waits) {
      const { task } = await call("POST", "/v1/tasks", each);
      await until(async () => (await call("GET", `/v1/tasks/${task.id}`)).task.waiting !== undefined);
    }
    return { status: 200, body: JSON.stringify({ result: 1 }) };
  });
  await submit({ requires: [{ capability: "gives" }], concurrency: [place], rate: pace });
  cloud.world.set(url, async () => {
    await call("DELETE", `/v1/agents/${hook.id}?mode=graceful&graceSeconds=600`);
    return { status: 200, body: JSON.stringify({ result: 1 }) };
  });
  await submit({ requires: [{ capability: "gives" }] });
  await remove(byDeliver);
}

/** What a crash between two calls, or a lost message, leaves behind; made by writing past the API. */
export async function repairs({ cloud, call, submit, register, open, end }: Tools): Promise<void> {
  const { store } = cloud.engine.ports;
  const rowOf = async (kind: "agent" | "task", id: string) => {
    for (let shard = 0; shard < 16; shard++) {
      const key = { pk: `default#${kind === "task" ? "T" : "A"}#${shard}`, sk: id };
      if (await store.get(key)) return key;
    }
    throw new Error(`there is no ${kind} ${id}`);
  };
  const set = async (kind: "agent" | "task", id: string, values: Readonly<Record<string, Value>>) => {
    await store.write({ update: await rowOf(kind, id), kind, set: values });
  };
  const now = () => cloud.clock.now();
  const lasting = (name: string, more: Content = {}) =>
    register(name, { capabilities: [{ name }], leaseSeconds: 3600, ...more });

  // Who stored a task that waits for another died before it looked whether that one had ended.
  const over = await submit({ delaySeconds: 5000 });
  await call("POST", `/v1/tasks/${over}/cancel`, {});
  await set("task", await submit({ delaySeconds: 5000 }), { unmet: [over] });
  await cloud.pass(40, 10);
  await cloud.minute();

  // More than is looked at in one run.
  for (let i = 0; i < 3; i++) {
    const tasks = Array.from({ length: 100 }, () => ({ ...plain, delaySeconds: 50_000 }));
    await call("POST", "/v1/tasks/batch", { tasks });
  }
  await cloud.quiet();
  await cloud.minute();

  // Tasks whose messages were lost, one of them for an agent whose connection is gone.
  const found = await lasting("found", { maxConcurrency: 5 });
  await open("found", found);
  const orphans: string[] = [];
  for (const key of ["found", "lost"]) {
    const more = { concurrency: [{ key, limit: 1 }], input: large, delaySeconds: 5000 };
    orphans.push(await submit({ ...rich, ...more, requires: [{ capability: "found" }] }));
  }
  for (const id of orphans) await set("task", id, { status: "queued", queuedAt: now() - 40_000 });
  await cloud.quiet();
  cloud.gone.add("found");
  cloud.cold("minute");
  await cloud.minute();
  // Deadlines whose timers were lost.
  const late = await submit({ ...rich, timeouts: { queueSeconds: 600 } });
  await set("task", late, { queuedAt: now() - 700_000, deadlineAt: now() - 100_000 });
  await set("agent", found.id, { state: "draining", stopAt: now() - 100_000 });
  cloud.cold("minute");
  await cloud.minute();

  // A message that came before its task.
  await cloud.take("dispatch", { tenant: "default", id: "tsk_0000000000000000000000" });

  // Who was to stop an agent that has nothing left died before it did.
  const idle = await lasting("idle-leaves");
  await set("agent", idle.id, { state: "draining", stopAt: now() + 1_000_000 });
  await cloud.take("dispatch", { tenant: "default", agentId: idle.id });
  const delivery = { type: "webhook", url: "https://agents.example.com/leaves" };
  const called = await lasting("called-leaves", { delivery });
  await submit({ requires: [{ capability: "called-leaves" }] });
  const { items } = await call("GET", `/v1/tasks?agentId=${called.id}`);
  await end("complete", { task: items[0], fence: items[0].fence }, called);
  // Or before it looked for what waits.
  await set("agent", called.id, { state: "paused" });
  const next = await submit({
    ...rich,
    concurrency: [],
    requires: [{ capability: "called-leaves" }],
    stickyKey: "called",
  });
  await set("agent", called.id, { state: "active" });
  cloud.cold("outbox");
  await cloud.again();
  await cloud.quiet();
  const { task } = await call("GET", `/v1/tasks/${next}`);
  await end("complete", { task, fence: task.fence }, called);
  await set("agent", called.id, { state: "draining", stopAt: now() + 1_000_000 });
  cloud.cold("outbox");
  await cloud.again();

  await cloud.quiet();
}

/** A lease longer than a queue delays a message: its end is written down, and looked at again when it was renewed. */
export async function lasts({ cloud, call, register, remove }: Tools): Promise<void> {
  const agent = await register("lasting", { leaseSeconds: 3600 });
  for (let minutes = 0; minutes < 80; minutes += 5) {
    if (minutes === 0 || minutes === 50)
      await call("POST", `/v1/agents/${agent.id}/heartbeat`, {}, { key: agent.token });
    await cloud.minute();
    await cloud.pass(300, 150);
  }
  await remove(agent);
}

/** Messages nobody can make sense of come again until they are given up. */
export async function breaks({ cloud }: Tools): Promise<void> {
  const { queues } = cloud.engine.ports;
  const before = cloud.errors.length;
  for (const name of ["dispatch", "timers", "deliver", "intake"] as const) await queues[name].send([{ body: null }]);
  await cloud.pass(30);
  const failed = cloud.errors.splice(before).length;
  if (failed < 8) throw new Error(`${failed} failures were told of`);
}

/** Until it holds; whoever waits is not waited for. */
async function until(holds: () => Promise<boolean>): Promise<void> {
  for (let turns = 0; turns < 5_000; turns++) {
    if (await holds()) return;
    await new Promise((resolve) => setImmediate(resolve));
  }
  throw new Error("what was waited for did not come");
}
