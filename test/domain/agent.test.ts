import { Agent, createId, EventLog, Limit, Status, Task } from "@waggle/core";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { code, diesAfter, mode, openSystem, type System } from "../support/system.ts";

let system: System;
beforeEach(async () => {
  system = await openSystem();
});
afterEach(async () => {
  expect(system.errors).toEqual([]);
  await system.close();
});

const done = async (agentId: string, assignment: Task.Assignment) => {
  await Task.complete(system.as(agentId), assignment.task.id, { fence: assignment.fence });
  await system.quiet();
};
/** Connects like a socket does, noting what is pushed. */
const connect = async (id: string, options: { holding?: { taskId: string; fence: number }[]; name?: string } = {}) => {
  const pushed: Agent.AgentMessage[] = [];
  const connection = await Agent.connect(system.as(id), id, {
    connectionId: options.name ?? "one",
    holding: options.holding,
    push: (message) => pushed.push(message),
  });
  await system.quiet();
  return {
    ...connection,
    pushed,
    tasks: () => pushed.flatMap((message) => ("assign" in message ? message.assign.map(({ task }) => task.id) : [])),
    assignments: () => pushed.flatMap((message) => ("assign" in message ? message.assign : [])),
  };
};
const types = async () =>
  (await EventLog.list(system.admin, { after: 0, limit: 200 })).items
    .filter((event) => event.type.startsWith("agent."))
    .map((event) => event.type);

test("no work goes to a connection that failed as it was made", async () => {
  const id = await system.agent("a");
  const { live } = system.ports;
  const { publish } = live;
  Object.assign(live, {
    publish(channel: string, message: unknown) {
      if (!channel.endsWith("/connection")) return publish(channel, message);
      Object.assign(live, { publish });
      throw new Error("no more");
    },
  });
  const pushed: Agent.AgentMessage[] = [];
  const options = { connectionId: "one", push: (message: Agent.AgentMessage) => void pushed.push(message) };
  await expect(Agent.connect(system.as(id), id, options)).rejects.toThrow("no more");
  const task = await system.task("greet");
  expect((await system.get(task.id)).status).toBe("queued");
  expect(pushed).toEqual([]);
  await connect(id);
  expect((await system.get(task.id)).status).toBe("assigned");
  expect(pushed).toEqual([]);
});

describe("registration", () => {
  test("keeps a name for one agent", async () => {
    await system.agent("a");
    expect(await code(system.agent("a"))).toBe("agent.exists");
  });
  test("leaves room in an agent's row for what it is given: metadata beyond 64 KiB is refused, and named", async () => {
    const metadata = (bytes: number) => `"${"é".repeat((bytes - 2) / 2)}"` as never;
    const refused = { code: "store.item_too_large", extra: { errors: [{ path: "metadata" }] } };
    await expect(system.agent("a", { metadata: metadata(64 * 1024 + 2) })).rejects.toMatchObject(refused);
    const id = await system.agent("a", { metadata: metadata(64 * 1024), maxConcurrency: 1000 });
    const { admin } = system;
    await expect(Agent.update(admin, id, { metadata: metadata(390 * 1024) })).rejects.toMatchObject(refused);
    const task = await system.task("x");
    expect((await system.lease(id)).task.id).toBe(task.id);
  });
  test("with onConflict replace keeps the id, gives a new token and fences what the old one held", async () => {
    const id = await system.agent("a");
    const task = await system.task("x");
    const { fence } = await system.lease(id);
    expect(await system.agent("a", { onConflict: "replace" })).toBe(id);
    await system.quiet();
    expect(await system.get(task.id)).toMatchObject({ status: "queued", attempt: 0 });
    expect(await code(Task.complete(system.as(id), task.id, { fence }))).toBe("task.lease_lost");
    expect((await system.lease(id)).task).toMatchObject({ id: task.id, attempt: 1, fence: fence + 1 });
  });
  test("with onConflict replace, though it dies halfway and nobody comes again, keeps nothing the old one held", async () => {
    const [id, other] = [await system.agent("a", { leaseSeconds: 10 }), await system.agent("b")];
    const task = await system.task("x");
    await system.lease(id);
    diesAfter(system.ports, "transact");
    await expect(system.agent("a", { onConflict: "replace", leaseSeconds: 10 })).rejects.toThrow("died");
    await system.pass(15);
    expect((await system.lease(other)).task.id).toBe(task.id);
  });
  test("of an agent another tenant has is not seen by this one", async () => {
    const id = await system.agent("a");
    expect(await code(Agent.get(system.tenant("other"), id))).toBe("agent.not_found");
    expect((await Agent.list(system.tenant("other"), { limit: 10 })).items).toEqual([]);
  });
});

describe("a list of agents", () => {
  test("by a label has those with that label alone, whatever it is called", async () => {
    const id = await system.agent("a", { labels: { zone: "undefined", "k8s:node": "a:b" } });
    await system.agent("b");
    const by = async (label: string) =>
      (await Agent.list(system.admin, { limit: 10, label })).items.map(({ id }) => id);
    for (const label of ["zone:undefined", "k8s:node:a:b"]) expect(await by(label)).toEqual([id]);
    expect(await by(`toString:${Object.prototype.toString}`)).toEqual([]);
  });
});

describe("what an agent offers", () => {
  test("is told of when it changes, its role as well", async () => {
    const id = await system.agent("a", { role: "writer" });
    await Agent.update(system.admin, id, { role: "reviewer" });
    await Agent.update(system.admin, id, { maxConcurrency: 2 });
    await system.quiet();
    expect(await types()).toEqual(["agent.registered", "agent.updated", "agent.updated"]);
  });
  test("a change leaves what it does not name, and null takes a role, a type and a description away", async () => {
    const id = await system.agent("a", { role: "reviewer", type: "claude", description: "reads code" });
    const first = await Agent.update(system.admin, id, Agent.Patch.parse({ role: null, description: null }));
    expect(first.agent).toMatchObject({ type: "claude", capabilities: [{ name: "work" }] });
    await Agent.update(system.admin, id, Agent.Patch.parse({ type: null }));
    const bare = await Agent.get(system.admin, id);
    expect(Object.keys(bare).filter((name) => ["role", "type", "description"].includes(name))).toEqual([]);
    const task = await system.task("x", { role: "reviewer" });
    await Agent.update(system.admin, id, Agent.Patch.parse({ type: "claude" }));
    await system.quiet();
    expect((await system.get(task.id)).status).toBe("queued");
    await Agent.update(system.admin, id, Agent.Patch.parse({ role: "reviewer" }));
    expect((await system.lease(id)).task.id).toBe(task.id);
  });
});

test("a fleet with more in use than it has slots since it offers fewer has none free, not fewer than none", async () => {
  const id = await system.agent("a", { maxConcurrency: 2 });
  await system.task("x");
  await system.task("x");
  await system.lease(id);
  await system.lease(id);
  await Agent.update(system.admin, id, { maxConcurrency: 1 });
  await system.quiet();
  const metrics = await Status.metrics(system.ports, system.admin.tenant);
  expect(metrics.find(({ name }) => name === "waggle_slots")?.samples.map(({ value }) => value)).toEqual([2, 0]);
});

describe("liveness", () => {
  test("an agent not heard of for its lease is lost and its work goes to another", async () => {
    const [a, b] = [await system.agent("a", { leaseSeconds: 10 }), await system.agent("b", { leaseSeconds: 3600 })];
    const task = await system.task("x");
    const { fence } = await system.lease(a);
    await Task.start(system.as(a), task.id, { fence });
    await system.pass(14);
    expect(await Agent.get(system.admin, a)).toMatchObject({ status: "lost", running: 0 });
    expect((await system.lease(b)).task).toMatchObject({ id: task.id, attempt: 2 });
    expect(await code(Task.complete(system.as(a), task.id, { fence }))).toBe("task.lease_lost");
    await Agent.heartbeat(system.as(a), a, {});
    await system.quiet();
    expect((await Agent.get(system.admin, a)).status).toBe("ready");
    expect(await types()).toEqual(["agent.registered", "agent.registered", "agent.lost", "agent.back"]);
  });
  test("an agent that is heard of stays, whatever it says", async () => {
    const a = await system.agent("a", { leaseSeconds: 10 });
    for (let i = 0; i < 10; i++) {
      await Agent.seen(system.as(a), a);
      await system.pass(4);
    }
    expect((await Agent.get(system.admin, a)).status).toBe("ready");
  });
  // There each sign of life that is shown would be a write.
  test.skipIf(mode.shared)("an agent shows when it was last heard of, and until when it need not be", async () => {
    const a = await system.agent("a", { leaseSeconds: 60 });
    for (let i = 0; i < 3; i++) {
      await system.pass(5);
      await Agent.heartbeat(system.as(a), a, {});
      const now = system.clock.now();
      const heard = {
        lastSeenAt: new Date(now).toISOString(),
        leaseExpiresAt: new Date(now + 60_000).toISOString(),
      };
      expect(await Agent.get(system.admin, a)).toMatchObject(heard);
      expect((await Agent.list(system.admin, { limit: 10 })).items).toMatchObject([heard]);
    }
  });
  test("an agent that takes the place of one that held work is ready as soon as it is heard of", async () => {
    const a = await system.agent("a");
    await system.task("x");
    await system.lease(a);
    await system.agent("a", { onConflict: "replace" });
    await system.quiet();
    expect((await Agent.get(system.admin, a)).status).toBe("connecting");
    await Agent.seen(system.as(a), a);
    expect((await Agent.get(system.admin, a)).status).toBe("ready");
  });
  test.each(["pause", "drain"] as const)("what an operator set outlives a loss: %s", async (set) => {
    const a = await system.agent("a", { leaseSeconds: 10 });
    await Agent.seen(system.as(a), a);
    await Agent[set](system.admin, a);
    await system.pass(14);
    expect((await Agent.get(system.admin, a)).status).toBe("lost");
    const commands = await Agent.heartbeat(system.as(a), a, {});
    await system.quiet();
    const status = set === "pause" ? "paused" : "draining";
    expect([(await Agent.get(system.admin, a)).status, commands[set]]).toEqual([status, true]);
    await system.task("x");
    expect(await Agent.lease(system.as(a), a, { max: 1, waitSeconds: 0 })).toEqual([]);
    expect((await types()).slice(-2)).toEqual(["agent.lost", "agent.back"]);
    expect((await Agent.resume(system.admin, a)).status).toBe("ready");
    expect((await system.lease(a)).task.type).toBe("x");
  });
  test("a lost agent that is resumed is lost until it is heard of, and then takes work, whatever it was before", async () => {
    const a = await system.agent("a", { leaseSeconds: 10 });
    await Agent.seen(system.as(a), a);
    await Agent.pause(system.admin, a);
    await system.pass(14);
    for (let n = 0; n < 2; n++) expect((await Agent.resume(system.admin, a)).status).toBe("lost");
    await system.pass(14);
    expect((await Agent.get(system.admin, a)).status).toBe("lost");
    expect(await types()).toEqual(["agent.registered", "agent.paused", "agent.lost"]);
    await system.task("x");
    expect((await system.lease(a)).task.type).toBe("x");
    await system.quiet();
    expect((await types()).at(-1)).toBe("agent.back");
  });
  test("an agent that waits for work longer than its lease is there as long as it waits", async () => {
    const a = await system.agent("a", { leaseSeconds: 5 });
    await Agent.seen(system.as(a), a);
    const waiting = Agent.lease(system.as(a), a, { max: 1, waitSeconds: 20 });
    await system.pass(15);
    expect((await Agent.get(system.admin, a)).status).toBe("ready");
    await system.task("x");
    await system.pass(1);
    expect((await waiting).map(({ task }) => task.type)).toEqual(["x"]);
    expect(await types()).not.toContain("agent.lost");
  });
  test("an agent lost ten times over its attempts leaves a dead letter, not a loop", async () => {
    const a = await system.agent("a", { leaseSeconds: 3 });
    const task = await system.task("poison", { retry: { maxAttempts: 2 } });
    for (let i = 0; i < 2; i++) {
      const { fence } = await system.lease(a);
      await Task.start(system.as(a), task.id, { fence });
      await system.pass(4);
    }
    expect(await system.get(task.id)).toMatchObject({ status: "failed", error: { code: "agent.lost" } });
  });
  test("work an agent says it no longer has is given to another", async () => {
    const a = await system.agent("a", { leaseSeconds: 10 });
    const task = await system.task("x");
    await system.lease(a);
    await system.pass(5);
    await Agent.heartbeat(system.as(a), a, { holding: [] });
    expect((await system.get(task.id)).status).toBe("assigned");
    await system.pass(6);
    await Agent.heartbeat(system.as(a), a, { holding: [] });
    await system.quiet();
    expect((await system.get(task.id)).status).toBe("queued");
  });
});

test("work whose answer was lost is given to others in a quarter of an hour, though its agent lives and says nothing of it", async () => {
  const a = await system.agent("a", { leaseSeconds: 600, maxConcurrency: 2 });
  const [lost, begun] = [await system.task("x"), await system.task("x")];
  await system.lease(a);
  await system.lease(a);
  await Task.start(system.as(a), begun.id, { fence: 1 });
  for (let i = 0; i < 8; i++) {
    await system.pass(110, 110);
    await Agent.heartbeat(system.as(a), a, {});
  }
  expect((await system.get(lost.id)).status).toBe("assigned");
  for (let i = 0; i < 8; i++) {
    await system.pass(110, 110);
    await Agent.heartbeat(system.as(a), a, {});
  }
  await system.quiet();
  expect(await system.get(lost.id)).toMatchObject({ status: "queued", attempt: 0 });
  expect(await system.get(begun.id)).toMatchObject({ status: "running", attempt: 1 });
});

describe("an agent that asks and says what it holds", () => {
  const ask = (id: string, holding: { taskId: string; fence: number }[]) =>
    Agent.lease(system.as(id), id, { max: 2, waitSeconds: 0, holding });
  test("is given again what an answer that was lost had for it", async () => {
    const a = await system.agent("a", { maxConcurrency: 2 });
    const [first, second] = [await system.task("x"), await system.task("x")];
    const lost = [await system.lease(a), await system.lease(a)];
    expect((await ask(a, [])).map(({ task, fence }) => [task.id, fence])).toEqual(
      expect.arrayContaining(lost.map(({ task, fence }) => [task.id, fence])),
    );
    const [one] = await ask(a, [{ taskId: first.id, fence: 1 }]);
    expect(one).toMatchObject({ task: { id: second.id, attempt: 1 }, fence: 1 });
    expect(
      await ask(
        a,
        lost.map(({ task, fence }) => ({ taskId: task.id, fence })),
      ),
    ).toEqual([]);
  });
  test("is not given again what it has begun: that an earlier process of it may be at", async () => {
    const a = await system.agent("a", { maxConcurrency: 2 });
    const { id } = await system.task("x");
    await system.lease(a);
    await Task.start(system.as(a), id, { fence: 1 });
    expect(await ask(a, [])).toEqual([]);
  });
});

describe("leaving", () => {
  test("ends though its last task ends in the moment it is told to, or whoever ends that dies before it looks", async () => {
    const [told, dead, removed] = [await system.agent("a"), await system.agent("b"), await system.agent("c")];
    for (const id of [told, dead, removed]) {
      const task = await system.task("x");
      await system.lease(id);
      const { store } = system.ports;
      const { transact, get } = store;
      const complete = () => Task.complete(system.as(id), task.id, { fence: 1 });
      if (id === dead) {
        await Agent.drain(system.admin, id);
        const dying: typeof get = async (key) => {
          if (key.sk === id && (await get(key))?.used === 0) throw new Error("died");
          return get(key);
        };
        Object.assign(store, { get: dying });
        await complete().catch(() => {});
        Object.assign(store, { get });
      } else {
        Object.assign(store, {
          transact: async (writes: Parameters<typeof transact>[0]) => {
            Object.assign(store, { transact });
            await complete();
            return transact(writes);
          },
        });
        if (id === told) await Agent.drain(system.admin, id);
        else await Agent.remove(system.admin, id, { mode: "graceful", graceSeconds: 3600 });
      }
      await system.pass(20);
    }
    const events = await types();
    expect(events.filter((type) => type === "agent.drained")).toHaveLength(2);
    expect((await Agent.get(system.admin, removed)).status).toBe("stopped");
  });
  test("drained, an agent gets no new work, finishes what it has, and says so", async () => {
    const a = await system.agent("a", { maxConcurrency: 2 });
    await system.task("x");
    const held = await system.lease(a);
    await Agent.drain(system.admin, a);
    await system.task("x");
    expect(await Agent.lease(system.as(a), a, { max: 1, waitSeconds: 0 })).toEqual([]);
    await done(a, held);
    expect((await Agent.get(system.admin, a)).status).toBe("draining");
    expect(await types()).toEqual(["agent.registered", "agent.draining", "agent.drained"]);
    await Agent.resume(system.admin, a);
    expect((await system.lease(a)).task.type).toBe("x");
  });
  test("paused, an agent keeps what it has and takes no more until it is resumed", async () => {
    const a = await system.agent("a");
    await Agent.pause(system.admin, a);
    await system.task("x");
    expect(await Agent.lease(system.as(a), a, { max: 1, waitSeconds: 0 })).toEqual([]);
    await Agent.resume(system.admin, a);
    await system.lease(a);
  });
  test("removed gracefully, it stops when its work is done and its name is free", async () => {
    const a = await system.agent("a");
    await system.task("x");
    const held = await system.lease(a);
    expect((await Agent.remove(system.admin, a, { mode: "graceful", graceSeconds: 60 })).status).toBe("draining");
    await done(a, held);
    expect((await Agent.get(system.admin, a)).status).toBe("stopped");
    expect(await system.agent("a")).not.toBe(a);
  });
  test("removed gracefully and paused before its work is done, it stops when that is done", async () => {
    const a = await system.agent("a");
    await system.task("x");
    const held = await system.lease(a);
    await Agent.remove(system.admin, a, { mode: "graceful", graceSeconds: 60 });
    expect((await Agent.pause(system.admin, a)).status).toBe("draining");
    await done(a, held);
    expect((await Agent.get(system.admin, a)).status).toBe("stopped");
  });
  test("removed gracefully, it is stopped when the grace is over, and its work goes on elsewhere", async () => {
    const a = await system.agent("a");
    const task = await system.task("x");
    await system.lease(a);
    await Agent.remove(system.admin, a, { mode: "graceful", graceSeconds: 5 });
    await system.pass(6);
    expect((await Agent.get(system.admin, a)).status).toBe("stopped");
    expect((await system.get(task.id)).status).toBe("queued");
  });
  test("removed by force, it is fenced now and its work requeued without using up an attempt", async () => {
    const a = await system.agent("a");
    const task = await system.task("x");
    const { fence } = await system.lease(a);
    await Task.start(system.as(a), task.id, { fence });
    expect((await Agent.remove(system.admin, a, { mode: "force", graceSeconds: 0 })).status).toBe("stopped");
    await system.quiet();
    expect(await system.get(task.id)).toMatchObject({ status: "queued", attempt: 0 });
    expect(await code(Task.complete(system.as(a), task.id, { fence }))).toBe("task.lease_lost");
    expect(await code(Agent.remove(system.admin, "agt_nobody", { mode: "force", graceSeconds: 0 }))).toBe(
      "agent.not_found",
    );
  });
});

describe("matching", () => {
  test("gives a task only to an agent with every capability at its level", async () => {
    const junior = await connect(await system.agent("junior", { capabilities: [{ name: "work", level: 0.4 }] }));
    const senior = await connect(
      await system.agent("senior", { capabilities: [{ name: "work", level: 0.9 }], maxConcurrency: 5 }),
    );
    const hard = await system.task("x", { requires: [{ capability: "work", minLevel: 0.8 }] });
    const impossible = await system.task("x", { requires: [{ capability: "work" }, { capability: "fly" }] });
    expect(junior.tasks()).toEqual([]);
    expect(senior.tasks()).toEqual([hard.id]);
    expect((await system.get(impossible.id)).waiting?.reason).toMatch(/no eligible agent.*lacks capability fly/);
    const why = await Task.explain(system.admin, impossible.id);
    expect(why).toMatchObject({
      agents: { known: 2, eligible: 0 },
      summary: "no agent may serve it: see the refusals",
    });
  });
  test("respects a named agent, a role and required labels", async () => {
    const a = await connect(await system.agent("a", { role: "red", labels: { zone: "a" }, maxConcurrency: 9 }));
    const b = await connect(await system.agent("b", { role: "blue", labels: { zone: "b" }, maxConcurrency: 9 }));
    const ids = [
      await system.task("x", { agentId: b.agent.id }),
      await system.task("x", { role: "red" }),
      await system.task("x", { labels: [{ key: "zone", op: "eq", value: "b" }] }),
    ].map((task) => task.id);
    expect(a.tasks()).toEqual([ids[1]]);
    expect(b.tasks()).toEqual([ids[0], ids[2]]);
    expect(await code(system.task("x", { agentId: "agt_nobody" }))).toBe("request.invalid");
  });
  test("tells why this agent: strategy, score and reasons", async () => {
    await connect(await system.agent("a"));
    const task = await system.task("x", { strategy: "least_loaded" });
    expect((await system.get(task.id)).decision).toEqual({
      strategy: "least_loaded",
      score: 1,
      reasons: [
        "1 of 1 free agents looked at",
        "0 of its 1 slots were in use",
        "it has the least load: 0 % of its slots",
      ],
    });
  });
  test.each([
    ["best_fit", /^it fits best, by preferred labels, level, record and room: 0\.\d+ of 1$/],
    ["round_robin", /^it was given work longest ago$/],
    ["weighted", /^it has had the least work for its weight$/],
    ["sticky", /^nobody it would stick to is free, and it fits best: 0\.\d+ of 1$/],
    ["cheapest", /^it costs the least: 3$/],
    ["fastest", /^it has no record yet$/],
    ["random_two", /^of two taken at random it has the least load: 0 % of its slots$/],
  ])("says in words why %s chose it", async (strategy, words) => {
    await connect(await system.agent("a", { capabilities: [{ name: "work", cost: 3 }] }));
    await connect(await system.agent("b", { capabilities: [{ name: "work", cost: 4 }] }));
    const task = await system.task("x", { strategy });
    expect((await system.get(task.id)).decision?.reasons.at(-1)).toMatch(words);
  });
  test("tells how well an agent fits that came free while the task waited", async () => {
    const agent = await system.agent("a", { capabilities: [{ name: "work", cost: 3 }] });
    const task = await system.task("x", { strategy: "cheapest" });
    await system.lease(agent);
    expect((await system.get(task.id)).decision).toMatchObject({
      score: -3,
      reasons: [expect.any(String), expect.any(String), "it came free while the task waited"],
    });
  });
  test("names those that may serve a task, however many may not", async () => {
    for (let n = 0; n < 51; n++) await system.agent(`other-${n}`, { capabilities: [] });
    const fit = await system.agent("fit");
    const task = await system.task("x");
    const { candidates } = await Task.explain(system.admin, task.id);
    expect(candidates).toHaveLength(50);
    expect((candidates as unknown[])[0]).toMatchObject({ agentId: fit, eligible: true, score: expect.any(Number) });
  });
  test("round robin goes round", async () => {
    const fleet = [];
    for (const name of ["a", "b", "c"]) fleet.push(await connect(await system.agent(name, { maxConcurrency: 9 })));
    for (let i = 0; i < 6; i++) await system.task("x", { strategy: "round_robin" });
    expect(fleet.map((agent) => agent.tasks().length)).toEqual([2, 2, 2]);
  });
  test("keeps a sticky key with one agent while it has room", async () => {
    const fleet = [];
    for (const name of ["a", "b", "c"]) fleet.push(await connect(await system.agent(name, { maxConcurrency: 20 })));
    for (let i = 0; i < 12; i++) await system.task("x", { strategy: "least_loaded", stickyKey: `session-${i % 2}` });
    const served = fleet.map((agent) => agent.tasks().length).sort();
    expect(served).toEqual([0, 6, 6]);
  });
  test("counts slots by what a task costs", async () => {
    const a = await connect(await system.agent("a", { maxConcurrency: 4 }));
    const big = await system.task("x", { slots: 3 });
    const second = await system.task("x", { slots: 2 });
    expect(a.tasks()).toEqual([big.id]);
    expect(await Agent.get(system.admin, a.agent.id)).toMatchObject({ running: 3, freeSlots: 1 });
    await done(a.agent.id, a.assignments()[0]!);
    expect(a.tasks()).toEqual([big.id, second.id]);
  });
});

describe("waiting tasks are taken", () => {
  test("by priority, then first come, first served", async () => {
    const a = await system.agent("a", { maxConcurrency: 9 });
    const made: Record<string, string> = {};
    for (const [name, priority] of [
      ["low", 1],
      ["mid-1", 5],
      ["high", 9],
      ["mid-2", 5],
    ] as const)
      made[name] = (await system.task("x", { priority })).id;
    const order = [];
    for (let i = 0; i < 4; i++) order.push((await system.lease(a)).task.id);
    expect(order).toEqual([made.high, made["mid-1"], made["mid-2"], made.low]);
  });
  test("by priority across lanes an agent may serve", async () => {
    const a = await system.agent("a", { capabilities: [{ name: "work" }, { name: "fly" }], maxConcurrency: 9 });
    const walk = await system.task("x", { requires: [{ capability: "work" }], priority: 4 });
    const fly = await system.task("x", { requires: [{ capability: "fly" }], priority: 6 });
    const any = await system.task("x", { requires: [], priority: 5 });
    const order = [];
    for (let i = 0; i < 3; i++) order.push((await system.lease(a)).task.id);
    expect(order).toEqual([fly.id, any.id, walk.id]);
  });
  test("in fair shares: a flood of one key does not hold up the others", async () => {
    const a = await system.agent("a");
    for (let i = 0; i < 30; i++) await system.task("flood", { fairKey: "flooder" });
    for (let i = 0; i < 3; i++) for (const key of ["x", "y"]) await system.task(key, { fairKey: key });
    const order: string[] = [];
    for (let i = 0; i < 12; i++) {
      const assignment = await system.lease(a);
      order.push(assignment.task.type);
      await done(a, assignment);
    }
    expect(order.filter((type) => type !== "flood")).toHaveLength(6);
    expect(order.slice(0, 9).filter((type) => type === "flood").length).toBeLessThanOrEqual(4);
  });
  test("by an agent that comes, without being asked for", async () => {
    const task = await system.task("x");
    expect((await system.get(task.id)).waiting?.reason).toBe("no agent is registered");
    const a = await connect(await system.agent("a"));
    expect(a.tasks()).toEqual([task.id]);
  });
  test("by an agent that learns the capability", async () => {
    const a = await connect(await system.agent("a", { capabilities: [] }));
    const task = await system.task("x");
    expect(a.tasks()).toEqual([]);
    await Agent.update(system.admin, a.agent.id, { capabilities: [{ name: "work" }] });
    await system.quiet();
    expect(a.tasks()).toEqual([task.id]);
  });
  test("after the server was started again, in the same order", async () => {
    const ids = [];
    for (const priority of [3, 7, 5]) ids.push((await system.task("x", { priority })).id);
    system = await system.reopen();
    const a = await system.agent("a", { maxConcurrency: 9 });
    const order = [];
    for (let i = 0; i < 3; i++) order.push((await system.lease(a)).task.id);
    expect(order).toEqual([ids[1], ids[2], ids[0]]);
  });
  test("by an agent that asks, however many before them were cancelled or expired meanwhile", async () => {
    const a = await system.agent("a");
    const tasks = [];
    for (let i = 0; i < 30; i++)
      tasks.push(await system.task("x", i % 2 === 0 ? {} : { timeouts: { queueSeconds: 5 } }));
    const last = await system.task("last");
    for (const [i, { id }] of tasks.entries()) if (i % 2 === 0) await Task.cancel(system.admin, id, {});
    await system.pass(6);
    expect((await system.lease(a)).task.id).toBe(last.id);
  });
  test("in the answer of complete, when the agent asks for more", async () => {
    const a = await system.agent("a");
    await system.task("x");
    const second = await system.task("x");
    const { task, fence } = await system.lease(a);
    const answer = await Task.complete(system.as(a), task.id, { fence, take: 2 });
    expect(answer.assignments?.map(({ task }) => task.id)).toEqual([second.id]);
    const next = answer.assignments![0]!;
    expect(await Task.complete(system.as(a), second.id, { fence: next.fence })).not.toHaveProperty("assignments");
  });
  // Where processes share the store the reconciler sees to it.
  test.skipIf(mode.shared)("by an agent that keeps a slot free for a larger one, once that is cancelled", async () => {
    const a = await connect(await system.agent("a", { maxConcurrency: 2 }));
    for (let i = 0; i < 2; i++) await system.task("x");
    const big = await system.task("big", { slots: 2, priority: 9 });
    const small = await system.task("small");
    await done(a.agent.id, a.assignments()[0]!);
    expect((await system.get(small.id)).status).toBe("queued");
    await Task.cancel(system.admin, big.id, {});
    await system.quiet();
    expect((await system.get(small.id)).status).toBe("assigned");
  });
  describe.skipIf(mode.shared)("a larger one is waited for", () => {
    const both = { capabilities: [{ name: "work" }, { name: "lift" }], maxConcurrency: 2 };
    const lift = { requires: [{ capability: "lift" }], slots: 2 };
    test("by an agent that is connected, whatever comes meanwhile, unless that is more urgent", async () => {
      const a = await connect(await system.agent("a", both));
      const first = await system.task("first");
      const big = await system.task("big", lift);
      const later = [await system.task("later"), await system.task("sticky", { stickyKey: "s", priority: 5 })];
      const urgent = await system.task("urgent", { priority: 9 });
      expect(a.tasks()).toEqual([first.id, urgent.id]);
      for (const assignment of a.assignments()) await done(a.agent.id, assignment);
      expect(a.tasks()).toEqual([first.id, urgent.id, big.id]);
      await done(a.agent.id, a.assignments()[2]!);
      await system.quiet();
      expect(a.tasks().slice(3).sort()).toEqual(later.map(({ id }) => id).sort());
    });
    test("by an agent whose waiting call has room for one", async () => {
      const a = await system.agent("a", both);
      await system.task("first");
      const first = await system.lease(a);
      const waiting = Agent.lease(system.as(a), a, { max: 2, waitSeconds: 20 });
      await system.quiet();
      const big = await system.task("big", lift);
      const small = await system.task("small");
      await system.pass(1);
      expect((await system.get(small.id)).status).toBe("queued");
      expect(await Task.explain(system.admin, small.id)).toMatchObject({
        summary: "it waits for one of 1 eligible agent to be free",
        candidates: [{ freeSlots: 1, refusal: "keeps its free slots for a larger task that comes first" }],
      });
      await done(a, first);
      expect((await waiting).map(({ task }) => task.id)).toEqual([big.id]);
    });
    test("by those alone that may serve it", async () => {
      const a = await connect(await system.agent("a", both));
      await system.task("first");
      await system.task("big", lift);
      const b = await connect(await system.agent("b"));
      const small = await system.task("small");
      expect([a.tasks().length, b.tasks()]).toEqual([1, [small.id]]);
    });
    const leaves: readonly [string, (big: string) => Promise<unknown>][] = [
      [
        "another has taken it",
        async () => connect(await system.agent("other", { ...both, capabilities: [{ name: "lift" }] })),
      ],
      ["it was cancelled", (big) => Task.cancel(system.admin, big, {})],
      ["its time is up", () => system.pass(31)],
    ];
    test.each(leaves)("no longer once %s: what came after it is given out", async (_, leave) => {
      const a = await connect(await system.agent("a", { ...both, leaseSeconds: 3600 }));
      await system.task("first");
      const big = await system.task("big", { ...lift, timeouts: { queueSeconds: 30 } });
      const small = await system.task("small");
      expect((await system.get(small.id)).status).toBe("queued");
      await leave(big.id);
      await system.quiet();
      expect(a.tasks()).toContain(small.id);
    });
    test("no longer once it has to wait for a limit instead", async () => {
      const concurrency = [{ key: "lifts", limit: 1 }];
      const a = await connect(await system.agent("a", both));
      const lifter = await connect(await system.agent("lifter", { ...both, capabilities: [{ name: "lift" }] }));
      await connect(await system.agent("flier", { capabilities: [{ name: "fly" }] }));
      await system.task("first");
      await system.task("busy", lift);
      const big = await system.task("big", { ...lift, concurrency });
      const small = await system.task("small");
      await system.task("holds the limit", { requires: [{ capability: "fly" }], concurrency });
      expect((await system.get(small.id)).status).toBe("queued");
      await done(lifter.agent.id, lifter.assignments()[0]!);
      await system.quiet();
      expect([(await system.get(big.id)).status, a.tasks().at(-1)]).toEqual(["queued", small.id]);
    });
    test("by agents that are not asked to look again each time one is taken, while another like it is next", async () => {
      for (let i = 0; i < 40; i++) await system.task("big", lift);
      // What waits is read anew, a part at a time.
      system = await system.reopen();
      const { dispatch } = system.ports.queues;
      const { send } = dispatch;
      let asked = 0;
      Object.assign(dispatch, {
        async send(messages: Parameters<typeof send>[0]) {
          asked += messages.filter(({ body }) => JSON.stringify(body).includes("agentId")).length;
          await send(messages);
        },
      });
      const fleet = [];
      for (const name of ["a", "b", "c"])
        fleet.push(await connect(await system.agent(name, { ...both, maxConcurrency: 3 })));
      let ended = 0;
      for (let moved = true; moved; ) {
        moved = false;
        for (const { agent, assignments } of fleet)
          for (const assignment of assignments()) {
            if ((await system.get(assignment.task.id)).status !== "assigned") continue;
            await done(agent.id, assignment);
            ended++;
            moved = true;
          }
      }
      expect([ended, asked]).toEqual([40, 0]);
    });
    test("not by an agent that can never serve it", async () => {
      const a = await connect(await system.agent("a", { ...both, maxConcurrency: 1 }));
      await system.task("big", lift);
      const small = await system.task("small");
      expect(a.tasks()).toEqual([small.id]);
    });
  });
  test("by a call that waits beside a complete that asked for less than came free", async () => {
    const a = await system.agent("a", { maxConcurrency: 2 });
    const big = await system.task("big", { slots: 2 });
    const { fence } = await system.lease(a);
    const waiting = Agent.lease(system.as(a), a, { max: 1, waitSeconds: 20 });
    const [first, second] = [await system.task("x"), await system.task("x")];
    const { assignments } = await Task.complete(system.as(a), big.id, { fence, take: 1 });
    await system.pass(1);
    expect((await system.get(second.id)).status).toBe("assigned");
    const given = [...(assignments ?? []), ...(await waiting)].map(({ task }) => task.id);
    expect(given.sort()).toEqual([first.id, second.id].sort());
  });
  test("by a long poll the moment they come", async () => {
    const a = await system.agent("a");
    const waiting = Agent.lease(system.as(a), a, { max: 3, waitSeconds: 20 });
    await system.quiet();
    const task = await system.task("x");
    expect((await waiting).map((assignment) => assignment.task.id)).toEqual([task.id]);
  });
  test("by a long poll the moment they come, however many slots they need, and no more than it asked for", async () => {
    const a = await system.agent("a", { maxConcurrency: 4 });
    const waiting = Agent.lease(system.as(a), a, { max: 1, waitSeconds: 20 });
    await system.quiet();
    const big = await system.task("big", { slots: 3 });
    const small = await system.task("small");
    await system.pass(1);
    expect((await system.get(big.id)).status).toBe("assigned");
    expect((await system.get(small.id)).status).toBe("queued");
    expect((await waiting).map(({ task }) => task.id)).toEqual([big.id]);
  });
  test("by an agent that polls, each once and none lost, however its calls and the tasks cross", async () => {
    const a = await system.agent("a", { maxConcurrency: 7 });
    const got: string[] = [];
    const poll = async (max: number) => {
      while (got.length < 120) {
        const assignments = await Agent.lease(system.as(a), a, { max, waitSeconds: 20 });
        for (const { task, fence } of assignments) {
          got.push(task.id);
          await Task.complete(system.as(a), task.id, { fence });
        }
      }
    };
    const polls = [poll(1), poll(3), poll(2)];
    const made: string[] = [];
    for (let i = 0; i < 24; i++) {
      const tasks = Array.from({ length: 5 }, () => ({ type: "x", requires: [{ capability: "work" }] }));
      const { results } = await Task.createBatch(system.admin, { tasks, atomic: false });
      for (const result of results) if ("task" in result) made.push(result.task.id);
      if (i % 3 === 0) await system.quiet();
    }
    let over = false;
    const all = Promise.all(polls).finally(() => {
      over = true;
    });
    // A call that came too late for the last task ends with its time.
    const passed = async () => {
      if (!over) await system.pass(21, 21);
      return over;
    };
    await eventually("no call waits", passed, { seconds: 100 });
    await all;
    expect(got.sort()).toEqual(made.sort());
    expect(await Agent.get(system.admin, a)).toMatchObject({ running: 0, stats: { completed: 120 } });
  });
  test("by the next call, when the one it was given to has gone", async () => {
    const a = await system.agent("a");
    const gone = new AbortController();
    const waiting = Agent.lease(system.as(a), a, { max: 1, waitSeconds: 20 }, gone.signal);
    await system.quiet();
    const made = Task.create(system.admin, Task.Create.parse({ type: "x", requires: [{ capability: "work" }] }));
    gone.abort();
    const { task } = await made;
    const first = await waiting;
    await system.quiet();
    const next = first.length > 0 ? first : await Agent.lease(system.as(a), a, { max: 1, waitSeconds: 0 });
    expect(next.map((assignment) => assignment.task.id)).toEqual([task.id]);
  });
  test("by nobody when a short wait is over, at the time it was asked to be", async () => {
    const a = await system.agent("a");
    let over = false;
    const waiting = Agent.lease(system.as(a), a, { max: 1, waitSeconds: 2 }).then((tasks) => {
      over = true;
      return tasks;
    });
    await system.quiet();
    // Where several processes share the store, the clock in hand ends waits below 250 ms at once.
    const almost = system.ports.shared ? 1.75 : 1.99;
    await system.pass(almost);
    expect(over).toBe(false);
    await system.pass(2.01 - almost);
    expect(over).toBe(true);
    expect(await waiting).toEqual([]);
  });

  test("by nobody when a long poll ends or is given up", async () => {
    const a = await system.agent("a");
    const ending = Agent.lease(system.as(a), a, { max: 1, waitSeconds: 5 });
    await system.pass(6);
    expect(await ending).toEqual([]);
    const gone = new AbortController();
    const left = Agent.lease(system.as(a), a, { max: 1, waitSeconds: 20 }, gone.signal);
    await system.quiet();
    gone.abort();
    expect(await left).toEqual([]);
    const task = await system.task("x");
    expect((await system.get(task.id)).status).toBe("queued");
  });
});

describe("limits", () => {
  test("are explained as they are now, whatever was so when the task came to wait", async () => {
    const agent = await system.agent("a", { maxConcurrency: 5 });
    const concurrency = [{ key: "k", limit: 1 }];
    const rate = { key: "r", limit: 2, perSeconds: 10, weight: 2 };
    for (const more of [{ concurrency }, { rate }]) {
      await system.task("first", more);
      await system.lease(agent);
    }
    const [counted, timed] = [await system.task("x", { concurrency }), await system.task("x", { rate })];
    expect(await Task.explain(system.admin, counted.id)).toMatchObject({
      summary: "limit k: 1 of 1 running",
      limits: [{ key: "k", running: 1, waiting: 1, concurrency: 1 }],
    });
    const { perSeconds, limit } = rate;
    const roomAt = new Date(system.clock.now() + 10_000).toISOString();
    expect(await Task.explain(system.admin, timed.id)).toMatchObject({
      summary: "rate r: 2 per 10 s are used up",
      limits: [{ key: "r", running: 1, waiting: 1, rate: { limit, perSeconds }, weight: 2, roomAt }],
    });
    await Limit.put(system.admin, "k", { concurrency: 2 });
    await system.lease(agent);
    const last = await system.task("x", { concurrency });
    await Limit.put(system.admin, "k", { concurrency: 1 });
    expect(await Task.explain(system.admin, last.id)).toMatchObject({
      summary: "limit k: 2 of 1 running",
      limits: [{ key: "k", running: 2, waiting: 1, concurrency: 1 }],
    });
  });
  const running = async () => (await Task.list(system.admin, { limit: 50, status: "assigned" })).items;
  test("keep per key and in total together, and let the next one in as one ends", async () => {
    const a = await connect(await system.agent("a", { maxConcurrency: 20 }));
    for (const customer of ["one", "one", "one", "two", "two", "three"]) {
      await system.task(customer, {
        concurrency: [
          { key: `customer:${customer}`, limit: 2 },
          { key: "total", limit: 4 },
        ],
      });
    }
    expect((await running()).map((task) => task.type).sort()).toEqual(["one", "one", "two", "two"]);
    const waiting = (await Task.list(system.admin, { limit: 50, status: "queued" })).items;
    expect(waiting.map((task) => task.waiting?.reason).sort()).toEqual([
      "limit customer:one: 2 of 2 running",
      "limit total: 4 of 4 running",
    ]);
    for (let ended = 0; ended < 6; ended++) {
      const assignment = a.assignments()[ended]!;
      await done(a.agent.id, assignment);
      const now = await running();
      expect(now.length).toBe(Math.min(4, 5 - ended));
    }
    expect(await Limit.get(system.admin, "total")).toMatchObject({ running: 0, waiting: 0 });
    expect(await Limit.get(system.admin, "customer:one")).toMatchObject({ running: 0, waiting: 0 });
  });
  test("of the operator hold over what tasks ask, from the moment they are set", async () => {
    const a = await connect(await system.agent("a", { maxConcurrency: 20 }));
    await Limit.put(system.admin, "k", { concurrency: 1 });
    for (let i = 0; i < 4; i++) await system.task("x", { concurrency: [{ key: "k", limit: 10 }] });
    expect(a.tasks()).toHaveLength(1);
    await Limit.put(system.admin, "k", { concurrency: 3 });
    await system.quiet();
    expect(a.tasks()).toHaveLength(3);
  });
  test("are listed page by page, whatever their names are written in", async () => {
    const keys = ["ascii", "größe", "蜜蜂", "🐝 hive"];
    for (const key of keys) await Limit.put(system.admin, key, { concurrency: 1 });
    const seen: string[] = [];
    for (let cursor: string | undefined; ; ) {
      const page = await Limit.list(system.admin, { limit: 1, cursor });
      seen.push(...page.items.map((limit) => limit.key));
      if (!page.nextCursor) break;
      cursor = page.nextCursor;
    }
    expect(seen).toEqual(keys);
  });
  test("of rate let a burst through, and then as time gives", async () => {
    const a = await connect(await system.agent("a", { maxConcurrency: 50, leaseSeconds: 3600 }));
    for (let i = 0; i < 6; i++) await system.task("x", { rate: { key: "calls", limit: 2, perSeconds: 10 } });
    expect(a.tasks()).toHaveLength(2);
    await system.pass(4.8);
    expect(a.tasks()).toHaveLength(2);
    await system.pass(0.6);
    expect(a.tasks()).toHaveLength(3);
    await system.pass(15);
    expect(a.tasks()).toHaveLength(6);
  });
  test("of rate let no more through though others come and end between the look and the step", async () => {
    const id = await system.agent("a", { maxConcurrency: 9 });
    await connect(id);
    const concurrency = [{ key: "k", limit: 9 }];
    const ending = await system.task("ending", { concurrency });
    await Limit.put(system.admin, "k", { rate: { limit: 1, perSeconds: 1000 } });
    const create = async () => (await Task.create(system.admin, Task.Create.parse({ type: "x", concurrency }))).task.id;
    const { batchGet } = system.ports.store;
    let crossed = "";
    let crossing = false;
    const slow: typeof batchGet = async (keys) => {
      const rows = await batchGet(keys);
      if (crossing || !keys.some(({ pk }) => pk.includes("#G#k"))) return rows;
      crossing = true;
      crossed = await create();
      while ((await system.get(crossed)).status !== "assigned") await new Promise((next) => setImmediate(next));
      await Task.complete(system.as(id), ending.id, { fence: 1 });
      return rows;
    };
    Object.assign(system.ports.store, { batchGet: slow });
    const late = await create();
    await system.quiet();
    Object.assign(system.ports.store, { batchGet });
    expect((await system.get(crossed)).status).toBe("assigned");
    expect((await system.get(late)).waiting?.reason).toBe("rate k: 1 per 1000 s are used up");
  });
  test("of rate set one timer, however many tasks wait", async () => {
    await connect(await system.agent("a", { maxConcurrency: 50, leaseSeconds: 3600 }));
    const before = (await system.ports.queues.timers.depth()).delayed;
    for (let i = 0; i < 12; i++) await system.task("x", { rate: { key: "calls", limit: 2, perSeconds: 10 } });
    for (let step = 0; step < 3; step++) {
      expect((await system.ports.queues.timers.depth()).delayed - before).toBeLessThanOrEqual(1);
      await system.pass(5);
    }
    await system.pass(60);
    expect(await running()).toHaveLength(12);
  });
  test("of rate are corrected by what a call really used", async () => {
    const a = await connect(await system.agent("a", { maxConcurrency: 50, leaseSeconds: 3600 }));
    const rate = { key: "tokens", limit: 100, perSeconds: 100, weight: 10 };
    await system.task("x", { rate });
    const { task, fence } = a.assignments()[0]!;
    await Task.complete(system.as(a.agent.id), task.id, { fence, usage: { units: 95 } });
    await system.task("x", { rate });
    await system.quiet();
    expect(a.tasks()).toHaveLength(1);
    await system.pass(6);
    expect(a.tasks()).toHaveLength(2);
  });
  test("of rate go on after a correction that is no whole number of milliseconds", async () => {
    const a = await connect(await system.agent("a", { maxConcurrency: 50, leaseSeconds: 3600 }));
    const rate = { key: "calls", limit: 7, perSeconds: 10 };
    for (let units = 2; units < 5; units++) {
      await system.task("x", { rate });
      const { task, fence } = a.assignments().at(-1)!;
      await Task.complete(system.as(a.agent.id), task.id, { fence, usage: { units } });
      await system.pass(10);
      expect(a.tasks()).toHaveLength(units - 1);
    }
  });
  test("of rate stand in the way of no outcome, however much a call says it used", async () => {
    const a = await system.agent("a");
    const task = await system.task("x", { rate: { key: "calls", limit: 0.001, perSeconds: 86_400 } });
    const { fence } = await system.lease(a);
    await Task.complete(system.as(a), task.id, { fence, usage: { units: 9e125 } });
    expect(await system.get(task.id)).toMatchObject({ status: "completed", usage: { units: 9e125 } });
  });
  test("are not leaked by cancel, timeout, release or loss of the agent", async () => {
    const a = await system.agent("a", { maxConcurrency: 20, leaseSeconds: 30 });
    const concurrency = [{ key: "k", limit: 1 }];
    const make = () =>
      system.task("x", { concurrency, timeouts: { runSeconds: 5 }, retry: { maxAttempts: 1 }, cancelGraceSeconds: 0 });
    const start = async () => {
      const { task, fence } = await system.lease(a);
      await Task.start(system.as(a), task.id, { fence });
      return { id: task.id, fence };
    };
    const idle = async () => expect(await Limit.get(system.admin, "k")).toMatchObject({ running: 0 });
    await make();
    await Task.cancel(system.admin, (await start()).id, {});
    await system.quiet();
    await idle();
    await make();
    await start();
    await system.pass(6);
    await idle();
    await make();
    const released = await start();
    await Task.release(system.as(a), released.id, { fence: released.fence });
    await system.quiet();
    await idle();
    await start();
    await system.pass(40);
    await idle();
    expect(await Agent.get(system.admin, a)).toMatchObject({ running: 0 });
  });
  test.each([
    ["raises", () => Limit.put(system.admin, "k", { concurrency: 2 })],
    ["removes", () => Limit.remove(system.admin, "k")],
  ])("that an operator %s let those in that wait though whoever did so died before it looked", async (_, change) => {
    await system.agent("a", { maxConcurrency: 9 });
    const a = await system.agent("b", { maxConcurrency: 9 });
    await Limit.put(system.admin, "k", { concurrency: 1 });
    const concurrency = [{ key: "k", limit: 9 }];
    await system.task("first", { concurrency });
    await system.lease(a);
    const next = await system.task("next", { concurrency });
    // What the first change had looked at later is past.
    await system.pass(3);
    diesAfter(system.ports, "transact");
    await expect(change()).rejects.toThrow("died");
    await system.pass(3);
    expect((await system.lease(a)).task.id).toBe(next.id);
  });
  // Where processes share the store the reconciler sees to it (reconcile.test.ts).
  test.skipIf(mode.shared)("let the next task in though whoever ended the last died before it looked", async () => {
    const a = await system.agent("a", { maxConcurrency: 9 });
    const concurrency = [{ key: "k", limit: 1 }];
    const first = await system.task("first", { concurrency });
    const { fence } = await system.lease(a);
    const next = await system.task("next", { concurrency });
    expect((await system.get(next.id)).waiting?.reason).toBe("limit k: 1 of 1 running");
    const { get } = system.ports.store;
    const dying: typeof get = async (key) => {
      if (key.pk.includes("#G#")) throw new Error("died");
      return get(key);
    };
    Object.assign(system.ports.store, { get: dying });
    const completing = Task.complete(system.as(a), first.id, { fence });
    await expect(completing).rejects.toThrow("died");
    Object.assign(system.ports.store, { get });
    await system.quiet();
    expect((await system.lease(a)).task.id).toBe(next.id);
  });
  test("keep the place of those that waited for them, among those that wait for an agent", async () => {
    const concurrency = [{ key: "k", limit: 1 }];
    const only = await system.agent("a");
    const tasks = [];
    for (let i = 0; i < 4; i++) tasks.push(await system.task(`t${i}`, { concurrency }));
    const done = [];
    for (let i = 0; i < 4; i++) {
      const { task, fence } = await system.lease(only);
      done.push(task.id);
      // One that came after them waits behind them.
      if (i === 0) tasks.push(await system.task("last"));
      await Task.complete(system.as(only), task.id, { fence });
      await system.quiet();
    }
    expect(done).toEqual(tasks.slice(0, 4).map(({ id }) => id));
  });
  test("do not hold up tasks behind the one that waits for them", async () => {
    const a = await system.agent("a", { maxConcurrency: 9 });
    await system.task("first", { concurrency: [{ key: "k", limit: 1 }] });
    await system.task("blocked", { concurrency: [{ key: "k", limit: 1 }] });
    await system.task("free");
    expect((await system.lease(a)).task.type).toBe("first");
    expect((await system.lease(a)).task.type).toBe("free");
  });
  test.skipIf(mode.brief)("let in as many as there is room for, however many agents come free at once", async () => {
    const concurrency = [{ key: "k", limit: 60 }];
    const ids = await Promise.all(Array.from({ length: 40 }, (_, i) => system.agent(`a${i}`)));
    const agents = await Promise.all(ids.map((id) => connect(id)));
    for (let i = 0; i < 80; i++) await system.task("x", { concurrency });
    expect(await running()).toHaveLength(40);
    const first = agents.map((agent) => [agent.agent.id, agent.assignments()[0]!] as const);
    await Promise.all(first.map(([id, { task, fence }]) => Task.complete(system.as(id), task.id, { fence })));
    await system.pass(20);
    expect(await running()).toHaveLength(40);
  });
  test("do not hold up a task behind them when an agent with room comes, however many wait for them", async () => {
    for (let i = 0; i < 20; i++) await system.task("limited", { concurrency: [{ key: "k", limit: 1 }] });
    const free = await system.task("free");
    const a = await connect(await system.agent("a", { maxConcurrency: 2 }));
    await system.pass(5);
    expect(a.tasks()).toContain(free.id);
    expect(await running()).toHaveLength(2);
  });
});

describe("a connection", () => {
  test("replaced by a second one is told to stop; the second gets the work", async () => {
    const id = await system.agent("a");
    const first = await connect(id, { name: "one" });
    const second = await connect(id, { name: "two" });
    const task = await system.task("x");
    expect(first.pushed.some((message) => "stop" in message)).toBe(true);
    expect(first.tasks()).toEqual([]);
    expect(second.tasks()).toEqual([task.id]);
  });
  test("that came together with another is the one that gets the work, or the other is", async () => {
    const id = await system.agent("a");
    const both = await Promise.all([connect(id, { name: "one" }), connect(id, { name: "two" })]);
    const task = await system.task("x");
    expect(both.flatMap((each) => each.tasks())).toEqual([task.id]);
    const [stopped, ...more] = both.filter(({ pushed }) => pushed.some((message) => "stop" in message));
    expect(stopped?.tasks()).toEqual([]);
    expect(more).toEqual([]);
  });
  test("closed gets nothing more; opened again it gets what it had not begun, and loses what it had and forgot", async () => {
    const id = await system.agent("a", { maxConcurrency: 2 });
    const first = await connect(id);
    const [begun, fresh] = [await system.task("begun"), await system.task("fresh")];
    await Task.start(system.as(id), begun.id, { fence: 1 });
    await first.disconnect();
    const second = await connect(id, { name: "two" });
    // A push may come twice where several processes push.
    const pushed = system.ports.shared ? [...new Set(second.tasks())] : second.tasks();
    expect(pushed.sort()).toEqual([begun.id, fresh.id].sort());
    expect(await system.get(begun.id)).toMatchObject({ attempt: 2, fence: 2 });
    expect(await system.get(fresh.id)).toMatchObject({ attempt: 1, fence: 1 });
  });
  test("opened again with what it still works on keeps it", async () => {
    const id = await system.agent("a");
    const first = await connect(id);
    const task = await system.task("x");
    await Task.start(system.as(id), task.id, { fence: 1 });
    await first.disconnect();
    const second = await connect(id, { name: "two", holding: [{ taskId: task.id, fence: 1 }] });
    expect(second.tasks()).toEqual([]);
    expect(await system.get(task.id)).toMatchObject({ status: "running", fence: 1 });
  });
  test("is told of a cancel and of a revoked lease", async () => {
    const id = await system.agent("a");
    const socket = await connect(id);
    const task = await system.task("x", { cancelGraceSeconds: 3 });
    await Task.cancel(system.admin, task.id, {});
    await system.pass(4);
    expect(socket.pushed).toContainEqual({ cancel: [task.id] });
    expect(socket.pushed).toContainEqual({ revoked: [task.id] });
  });
});

test("an agent has all its slots though the store took nothing as it was to be given work", async () => {
  const id = await system.agent("a");
  const socket = await connect(id);
  const { store } = system.ports;
  const { transact, write } = store;
  const refuse = async () => {
    throw new Error("no room");
  };
  const tasks = [{ type: "x", requires: [{ capability: "work" }] }];
  Object.assign(store, { transact: refuse, write: refuse });
  await expect(Task.create(system.admin, Task.Create.parse(tasks[0]))).rejects.toThrow("no room");
  await expect(Task.createBatch(system.admin, { tasks, atomic: false })).rejects.toThrow("no room");
  Object.assign(store, { transact, write });
  const task = await system.task("y");
  expect(socket.tasks()).toEqual([task.id]);
});

test("what a lost agent held goes to others though whoever found it lost died before it took that back", async () => {
  const [lost, other] = [await system.agent("lost", { leaseSeconds: 10 }), await system.agent("other")];
  const task = await system.task("x");
  const { fence } = await system.lease(lost);
  await Task.start(system.as(lost), task.id, { fence });
  const { store } = system.ports;
  const { projected, batchGet } = store;
  const dying = async () => {
    Object.assign(store, { projected, batchGet });
    throw new Error("died");
  };
  while ((await Agent.get(system.admin, lost)).status !== "lost") {
    await Agent.seen(system.as(other), other);
    system.clock.advance(500);
    // What it holds is read by a list, or by the marks of its row.
    if (system.clock.now() >= Date.parse((await Agent.get(system.admin, lost)).leaseExpiresAt as string))
      Object.assign(store, mode.shared ? { batchGet: dying } : { projected: dying });
    await system.quiet();
  }
  Object.assign(store, { projected, batchGet });
  expect(system.errors.splice(0)).not.toEqual([]);
  await system.pass(2);
  expect((await system.lease(other)).task.id).toBe(task.id);
});

describe("tasks that name their agent", () => {
  const failed = { status: "failed", error: { code: "task.agent_removed" } };
  test("fail when it is removed: those that wait, that it held, and that come to wait for it later", async () => {
    const [id, other] = [await system.agent("a"), await system.agent("other")];
    const only = { agentId: id };
    const limited = await system.task("limited", { concurrency: [{ key: "k", limit: 1 }] });
    await system.lease(other);
    const held = await system.task("held", only);
    expect((await system.lease(id)).task.id).toBe(held.id);
    const tasks = [
      held,
      await system.task("waits", only),
      await system.task("waits for more of it", { ...only, slots: 2 }),
      await system.task("waits at a limit", { ...only, concurrency: [{ key: "k", limit: 1 }] }),
      await system.task("later", { ...only, delaySeconds: 5 }),
    ] as const;
    const after = await system.task("after", { requires: [], dependsOn: [tasks[1].id] });
    await Agent.remove(system.admin, id, { mode: "force", graceSeconds: 0 });
    await system.quiet();
    const now = await Promise.all(tasks.map((task) => system.get(task.id)));
    expect(now.slice(0, 3)).toMatchObject([failed, failed, failed]);
    expect(await system.get(after.id)).toMatchObject({ error: { code: "task.dependency_failed" } });
    await Task.complete(system.as(other), limited.id, { fence: 1 });
    await system.pass(6);
    for (const task of tasks) expect(await system.get(task.id)).toMatchObject(failed);
    expect(await Limit.get(system.admin, "k")).toMatchObject({ running: 0, waiting: 0 });
    expect(await code(Task.retry(system.admin, held.id))).toBe("task.not_retryable");
  });
  test("are answered to whoever submits them again, though it was removed since", async () => {
    const id = await system.agent("a");
    const input = Task.Create.parse({ type: "x", agentId: id });
    const named = { ...input, id: createId("tsk", system.clock.now(), system.ports.random) };
    const submits = [
      () => Task.create(system.admin, input, { idempotency: { key: "k", hash: "h" } }),
      () => Task.create(system.admin, named),
    ];
    const tasks = [];
    for (const submit of submits) tasks.push((await submit()).task);
    await Agent.remove(system.admin, id, { mode: "force", graceSeconds: 0 });
    for (const [i, submit] of submits.entries())
      expect(await submit()).toMatchObject({ task: { id: tasks[i]?.id }, replayed: true });
    expect(await code(Task.create(system.admin, input))).toBe("request.invalid");
  });
  test("wait on for one that is paused, lost or replaced by another process", async () => {
    const id = await system.agent("a", { leaseSeconds: 5 });
    const task = await system.task("x", { agentId: id });
    await Agent.seen(system.as(id), id);
    await Agent.pause(system.admin, id);
    await system.pass(10);
    await system.agent("a", { onConflict: "replace" });
    await system.quiet();
    expect((await system.lease(id)).task.id).toBe(task.id);
  });
});

describe("a server that was away", () => {
  // Where others share the store, no process that starts was "the server".
  test.skipIf(mode.shared)("gives agents a whole lease to be heard of again before it takes their work", async () => {
    const id = await system.agent("a", { leaseSeconds: 10 });
    const task = await system.task("x", { timeouts: { heartbeatSeconds: 8 } });
    const { fence } = await system.lease(id);
    await Task.start(system.as(id), task.id, { fence });
    system = await system.reopen({ awaySeconds: 60 });
    await system.pass(5);
    expect((await system.get(task.id)).status).toBe("running");
    await Task.heartbeat(system.as(id), task.id, { fence });
    await Agent.seen(system.as(id), id);
    await system.pass(5);
    expect(await system.get(task.id)).toMatchObject({ status: "running", fence });
    await system.pass(16);
    expect((await Agent.get(system.admin, id)).status).toBe("lost");
    expect((await system.get(task.id)).agentId).toBeUndefined();
  });
});

describe("signatures people make up as they go", () => {
  // Where processes share the store, what waits under one is looked up there.
  const forgotten = test.skipIf(mode.shared);
  forgotten("are not forgotten in the moment a task comes to wait there", { timeout: 600_000 }, async () => {
    for (const name of ["a", "b", "c", "d"]) await connect(await system.agent(name, { maxConcurrency: 1000 }));
    let signatures = 0;
    const next = () => ({ type: "x", labels: [{ key: "n", op: "ne", value: signatures++ }] });
    while (signatures < 4000)
      await Task.createBatch(system.admin, { tasks: Array.from({ length: 100 }, next), atomic: false });
    // As many as are remembered at once. Each of these is a step further than the one after it when the next one comes.
    const coming: Promise<unknown>[] = [];
    for (let i = 0; i < 97; i++) {
      coming.push(Task.create(system.admin, Task.Create.parse(next())));
      await Promise.resolve();
    }
    await Promise.all(coming);
    await system.quiet();
    const late = await system.agent("late", { maxConcurrency: 1000 });
    expect(await Agent.lease(system.as(late), late, { max: 100, waitSeconds: 0 })).toHaveLength(97);
  });
  test("do not hide the tasks that wait under them, however many there are", { timeout: 1_200_000 }, async () => {
    // Lanes are read a thousand at a time where processes share the store, else four thousand are remembered. With faults each call
    // takes several.
    const many = mode.repeats ? 1500 : 5000;
    for (let i = 0; i < many; i += 100) {
      const tasks = Array.from({ length: 100 }, (_, j) => ({ type: "x", requires: [{ capability: `c${i + j}` }] }));
      const { results } = await Task.createBatch(system.admin, { tasks, atomic: false });
      await system.quiet();
      for (const result of results.slice(0, 99))
        if ("task" in result) await Task.cancel(system.admin, result.task.id, {});
    }
    await system.quiet();
    const id = await system.agent("a", {
      capabilities: [{ name: "c99" }, { name: `c${many - 1}` }],
      maxConcurrency: 2,
    });
    expect((await system.lease(id)).task.requires).toEqual([{ capability: "c99" }]);
    expect((await system.lease(id)).task.requires).toEqual([{ capability: `c${many - 1}` }]);
  });
});
