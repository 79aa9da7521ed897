import type { Agent, Task } from "@waggle/sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Api, agentOf, openServer, type Problem, remote, type TestServer, unique } from "../support/api.ts";
import { eventually } from "../support/eventually.ts";

let server: TestServer;
let api: Api;
beforeAll(async () => {
  server = await openServer();
  api = await server.tenant();
});
afterAll(() => server?.stop());

type Registered = { agent: Agent; token: string } & Problem;
const register = (content: object) => api.post<Registered>("/v1/agents", content);

test("registers an agent and answers what it said, an id and a token of its own", async () => {
  const said = {
    name: unique("full"),
    role: "worker",
    type: "coder",
    description: "does it",
    capabilities: [{ name: "code", level: 0.8, cost: 2 }, { name: "review" }],
    labels: { region: "eu", gpu: 2 },
    maxConcurrency: 4,
    metadata: { any: ["thing"] },
    leaseSeconds: 30,
  };
  const { status, body } = await register(said);
  expect(status).toBe(201);
  expect(body.agent).toMatchObject({ ...said, freeSlots: 4, running: 0 });
  expect(body.agent.id).toMatch(/^agt_/);
  expect(body.agent.stats).toEqual({ completed: 0, failed: 0, successRate: expect.any(Number), averageSeconds: 0 });
  expect(body.token.length).toBeGreaterThan(20);
  expect(body.agent.createdAt).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  expect(JSON.stringify((await api.get(`/v1/agents/${body.agent.id}`)).body)).not.toContain(body.token);
});

test("refuses a second agent of the same name, however many try at once", async () => {
  const name = unique("one");
  const answers = await Promise.all(Array.from({ length: 8 }, () => register({ name, capabilities: [] })));
  expect(answers.filter(({ status }) => status === 201)).toHaveLength(1);
  const refused = answers.filter(({ status }) => status !== 201);
  expect(refused.map(({ status, body }) => [status, body.code])).toEqual(refused.map(() => [409, "agent.exists"]));
});

test("replacing keeps the id, ends the old token, and gives back what the old one held without using an attempt", async () => {
  const own = await server.tenant();
  const name = unique("replaced");
  const first = await own.register({ name, capabilities: [{ name: "x" }] });
  const task = await own.delegate({ requires: [{ capability: "x" }], retry: { maxAttempts: 1 } });
  const held = await first.take();
  await first.start(held);

  const answer = await own.post<Registered>("/v1/agents", {
    name,
    capabilities: [{ name: "x" }],
    onConflict: "replace",
  });
  expect(answer.status).toBe(201);
  expect(answer.body.agent.id).toBe(first.id);
  expect((await first.heartbeat()).status).toBe(401);

  const second = agentOf(first.id, answer.body.token, own.as(answer.body.token));
  const stale = await second.complete(held, "old");
  expect([stale.status, stale.body.code]).toEqual([409, "task.lease_lost"]);
  const again = await second.take();
  expect(again.task.id).toBe(task.id);
  expect(again.fence).toBeGreaterThan(held.fence);
  expect(again.task.attempt).toBe(1);
  expect((await second.complete(again, "new")).body.task.status).toBe("completed");
});

test("lists agents by status, role, type, capability and label", async () => {
  const own = await server.tenant();
  const a = await own.register({ role: "r1", type: "t1", capabilities: [{ name: "c1" }], labels: { zone: "a" } });
  const b = await own.register({ role: "r2", type: "t2", capabilities: [{ name: "c2" }], labels: { zone: "b" } });
  await b.lease();
  const ids = async (query: string) =>
    (await own.get<{ items: Agent[] }>(`/v1/agents?${query}`)).body.items.map(({ id }) => id);
  expect(await ids("role=r1")).toEqual([a.id]);
  expect(await ids("type=t2")).toEqual([b.id]);
  expect(await ids("capability=c1")).toEqual([a.id]);
  expect(await ids("label=zone:b")).toEqual([b.id]);
  expect(await ids("label=zone:c")).toEqual([]);
  expect(await ids("status=ready")).toContain(b.id);
  expect(await ids("status=stopped")).toEqual([]);
  expect(await ids("")).toEqual([b.id, a.id]);
});

test("a cursor walks every agent once", async () => {
  const own = await server.tenant();
  const made: string[] = [];
  for (let n = 0; n < 7; n++) made.push((await own.register()).id);
  const seen: string[] = [];
  for (let cursor: string | undefined = ""; cursor !== undefined; ) {
    const query: string = cursor === "" ? "" : `&cursor=${encodeURIComponent(cursor)}`;
    const { body } = await own.get<{ items: Agent[]; nextCursor?: string }>(`/v1/agents?limit=3${query}`);
    expect(body.items.length).toBeLessThanOrEqual(3);
    seen.push(...body.items.map(({ id }) => id));
    cursor = body.nextCursor;
  }
  expect(seen).toEqual([...made].reverse());
});

test("a cursor of another list is refused", async () => {
  const own = await server.tenant();
  for (let n = 0; n < 2; n++) await own.delegate();
  const { nextCursor } = (await own.get<{ nextCursor: string }>("/v1/tasks?limit=1")).body;
  for (const path of ["/v1/agents", "/v1/dead-letters", "/v1/limits", "/v1/keys"]) {
    const { status, body } = await own.get<{ errors: { path: string }[] }>(`${path}?cursor=${nextCursor}`);
    expect([path, status, body.errors?.[0]?.path]).toEqual([path, 400, "cursor"]);
  }
});

test("a patch changes what it names, and the next task is matched by it", async () => {
  const own = await server.tenant();
  const agent = await own.register({ capabilities: [{ name: "old" }], labels: { a: 1 }, description: "before" });
  const task = await own.delegate({ requires: [{ capability: "new" }] });
  expect(await agent.lease()).toEqual([]);
  const patch = { capabilities: [{ name: "new" }], maxConcurrency: 3 };
  const answer = await own.call<{ agent: Agent }>("PATCH", `/v1/agents/${agent.id}`, patch);
  expect(answer.status).toBe(200);
  expect(answer.body.agent).toMatchObject({ ...patch, labels: { a: 1 }, description: "before" });
  expect((await agent.take()).task.id).toBe(task.id);
});

test("a paused agent is given nothing until it is resumed, and finishes what it has", async () => {
  const own = await server.tenant();
  const agent = await own.register({ capabilities: [{ name: "x" }], maxConcurrency: 2 });
  await own.delegate({ requires: [{ capability: "x" }] });
  const held = await agent.take();
  const paused = await own.post<{ agent: Agent }>(`/v1/agents/${agent.id}/pause`);
  expect(paused.body.agent.status).toBe("paused");
  const task = await own.delegate({ requires: [{ capability: "x" }] });
  expect(await agent.lease()).toEqual([]);
  expect((await agent.heartbeat()).body.commands.pause).toBe(true);
  expect((await agent.complete(held)).status).toBe(200);
  expect((await own.post(`/v1/agents/${agent.id}/resume`)).status).toBe(200);
  expect((await agent.take()).task.id).toBe(task.id);
});

test("a draining agent takes no new work and finishes what it has", async () => {
  const own = await server.tenant();
  const agent = await own.register({ capabilities: [{ name: "x" }], maxConcurrency: 2 });
  await own.delegate({ requires: [{ capability: "x" }] });
  const held = await agent.take();
  const draining = await own.post<{ agent: Agent }>(`/v1/agents/${agent.id}/drain`);
  expect(draining.body.agent.status).toBe("draining");
  const waiting = await own.delegate({ requires: [{ capability: "x" }] });
  expect(await agent.lease()).toEqual([]);
  expect((await agent.heartbeat()).body.commands.drain).toBe(true);
  expect((await agent.complete(held, 1)).body.task.status).toBe("completed");
  expect((await own.task(waiting.id)).status).toBe("queued");
});

test("removed by force, an agent's work goes to another with no attempt used", async () => {
  const own = await server.tenant();
  const [leaving, staying] = [await own.register({ capabilities: [{ name: "x" }] }), await own.register()];
  const task = await own.delegate({ requires: [{ capability: "x" }], retry: { maxAttempts: 1 } });
  const held = await leaving.take();
  await leaving.start(held);
  expect((await own.call("DELETE", `/v1/agents/${leaving.id}?mode=force`)).status).toBe(200);
  expect((await leaving.complete(held)).status).not.toBe(200);
  await own.call("PATCH", `/v1/agents/${staying.id}`, { capabilities: [{ name: "x" }] });
  const again = await staying.take();
  expect([again.task.id, again.task.attempt]).toEqual([task.id, 1]);
  expect((await staying.complete(again, "done")).body.task.status).toBe("completed");
});

test("removed gracefully, an agent finishes what it runs and is then stopped", async () => {
  const own = await server.tenant();
  const agent = await own.register({ capabilities: [{ name: "x" }] });
  await own.delegate({ requires: [{ capability: "x" }] });
  const held = await agent.take();
  await agent.start(held);
  expect((await own.call("DELETE", `/v1/agents/${agent.id}?mode=graceful&graceSeconds=60`)).status).toBe(200);
  expect((await own.agent(agent.id)).status).toBe("draining");
  const answer = await agent.complete(held, "in time");
  expect([answer.status, answer.body.task.status]).toEqual([200, "completed"]);
  await eventually("the agent is stopped", async () => (await own.agent(agent.id)).status === "stopped");
});

test("work that outlasts the grace of a removal goes to another agent", async () => {
  const own = await server.tenant();
  const [leaving, staying] = [await own.register({ capabilities: [{ name: "x" }] }), await own.register()];
  const task = await own.delegate({ requires: [{ capability: "x" }], retry: { maxAttempts: 1 } });
  const held = await leaving.take();
  await own.call("DELETE", `/v1/agents/${leaving.id}?graceSeconds=1`);
  await own.call("PATCH", `/v1/agents/${staying.id}`, { capabilities: [{ name: "x" }] });
  const again = await staying.take();
  expect(again.task.id).toBe(task.id);
  expect(again.fence).toBeGreaterThan(held.fence);
});

test("an agent that falls silent is lost within 5 s of its lease, its work done by another, and is back with a sign of life", async () => {
  const own = await server.tenant();
  const silent = await own.register({ capabilities: [{ name: "x" }], leaseSeconds: 3 });
  const task = await own.delegate({ requires: [{ capability: "x" }] });
  const held = await silent.take();
  await silent.start(held);
  await eventually("the agent is lost", async () => (await own.agent(silent.id)).status === "lost", { seconds: 8 });
  const other = await own.register({ capabilities: [{ name: "x" }] });
  const again = await other.take();
  expect(again.task.id).toBe(task.id);
  const stale = await silent.complete(held, "too late");
  expect([stale.status, stale.body.code]).toEqual([409, "task.lease_lost"]);
  expect((await other.complete(again, "in time")).status).toBe(200);
  expect((await own.task(task.id)).result).toBe("in time");
  expect((await silent.heartbeat()).status).toBe(200);
  expect((await own.agent(silent.id)).status).toBe("ready");
  const told = await eventually("it is told that the agent is back", async () => {
    const types = (await own.events("agent.*")).filter(({ agentId }) => agentId === silent.id).map(({ type }) => type);
    return types.includes("agent.back") && types;
  });
  expect(told).toEqual(["agent.registered", "agent.lost", "agent.back"]);
});

test("heartbeats keep an agent and its lease alive beyond the lease's length", async () => {
  const own = await server.tenant();
  const agent = await own.register({ capabilities: [{ name: "x" }], leaseSeconds: 3 });
  await own.delegate({ requires: [{ capability: "x" }] });
  const held = await agent.take();
  await agent.start(held);
  const until = performance.now() + 9_000;
  await eventually(
    "9 s of heartbeats have passed",
    async () => {
      expect((await agent.heartbeat()).status).toBe(200);
      return performance.now() > until;
    },
    { seconds: 15, everyMs: 800 },
  );
  expect((await agent.complete(held, "still mine")).body.task.status).toBe("completed");
});

test("an agent's figures follow what it did", async () => {
  const own = await server.tenant();
  const agent = await own.register({ capabilities: [{ name: "x" }], maxConcurrency: 2 });
  const requires = [{ capability: "x" }];
  await own.delegate({ requires });
  await own.delegate({ requires, retry: { maxAttempts: 1 } });
  const [first, second] = [await agent.take(), await agent.take()];
  expect(await own.agent(agent.id)).toMatchObject({ status: "busy", running: 2, freeSlots: 0 });
  await agent.complete(first);
  await agent.fail(second);
  const after = await eventually("the figures are there", async () => {
    const seen = await own.agent(agent.id);
    return seen.stats.completed + seen.stats.failed === 2 && seen;
  });
  expect(after).toMatchObject({ status: "ready", running: 0, freeSlots: 2 });
  expect(after.stats).toMatchObject({ completed: 1, failed: 1, successRate: 0.5 });
});

test("what is not there is 404, for agents and for what one does to them", async () => {
  const nobody = "agt_00000000000000000000000000";
  const answers = await Promise.all([
    api.get(`/v1/agents/${nobody}`),
    api.call("DELETE", `/v1/agents/${nobody}`),
    api.call("PATCH", `/v1/agents/${nobody}`, { description: "x" }),
    api.post(`/v1/agents/${nobody}/drain`),
    api.get("/v1/agents/nonsense"),
  ]);
  expect(answers.map(({ status, body }) => [status, body.code])).toEqual(answers.map(() => [404, "agent.not_found"]));
});

test("a lease waits for work that comes while it waits", async () => {
  const own = await server.tenant();
  const agent = await own.register({ capabilities: [{ name: "x" }] });
  const waiting = agent.lease(1, 10);
  const task = (await own.post<{ task: Task }>("/v1/tasks", { type: "t", requires: [{ capability: "x" }] })).body.task;
  expect((await waiting).map((assignment) => assignment.task.id)).toEqual([task.id]);
});

test("a lease of an agent that is full waits until it has room", async () => {
  const own = await server.tenant();
  const agent = await own.register({ capabilities: [{ name: "x" }] });
  await own.delegate({ requires: [{ capability: "x" }] });
  const held = await agent.take();
  const next = await own.delegate({ requires: [{ capability: "x" }] });
  const waiting = agent.lease(1, 20);
  expect((await agent.complete(held)).status).toBe(200);
  expect((await waiting).map(({ task }) => task.id)).toEqual([next.id]);
});

test("a lease of an agent that is paused waits until it is resumed, or the time is up", async () => {
  const own = await server.tenant();
  const agent = await own.register({ capabilities: [{ name: "x" }] });
  await own.post(`/v1/agents/${agent.id}/pause`);
  const task = await own.delegate({ requires: [{ capability: "x" }] });
  const began = performance.now();
  expect(await agent.lease(1, 1)).toEqual([]);
  expect(performance.now() - began).toBeGreaterThan(900);
  const waiting = agent.lease(1, 20);
  await own.post(`/v1/agents/${agent.id}/resume`);
  expect((await waiting).map((assignment) => assignment.task.id)).toEqual([task.id]);
});

test("a lease of several takes no more than the free slots", async () => {
  const own = await server.tenant();
  const agent = await own.register({ capabilities: [{ name: "x" }], maxConcurrency: 3 });
  for (let n = 0; n < 5; n++) await own.delegate({ requires: [{ capability: "x" }] });
  const taken: string[] = [];
  await eventually("three slots are taken", async () => {
    taken.push(...(await agent.lease(10)).map(({ task }) => task.id));
    return taken.length >= 3;
  });
  expect(new Set(taken).size).toBe(3);
  expect(await agent.lease(10)).toEqual([]);
});

test("complete with take brings the next work in the same answer, and never unasked", async () => {
  const own = await server.tenant();
  const agent = await own.register({ capabilities: [{ name: "x" }] });
  for (let n = 0; n < 3; n++) {
    const { id } = await own.delegate({ requires: [{ capability: "x" }] });
    // On AWS a task has its place among the waiting a moment later.
    if (remote) await eventually("it has its place", async () => (await own.task(id)).waiting);
  }
  const first = await agent.take();
  const second = (await agent.complete(first, 1, { take: 1 })).body;
  expect(second.task.status).toBe("completed");
  expect(second.assignments).toHaveLength(1);
  const third = (await agent.complete(second.assignments?.[0] as never, 2)).body;
  expect(third.assignments).toBeUndefined();
});
