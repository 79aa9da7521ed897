import type { Task, WaggleEvent } from "@waggle/sdk";
import { afterAll, afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Api, agentOf, apiOf, openServer, remote, type TestServer } from "../support/api.ts";
import { eventually } from "../support/eventually.ts";
import { connect } from "../support/socket.ts";

const requires = [{ capability: "x" }];

// A server that somebody else runs cannot be killed from here.
describe.skipIf(remote)("after kill -9 and a new start", () => {
  let server: TestServer;
  let api: Api;
  beforeEach(async () => {
    server = await openServer();
    api = server.admin;
  });
  afterEach(() => server?.stop());
  const restart = () => server.server?.restart("SIGKILL");

  test("every task that was acknowledged is there, while submits were in flight", async () => {
    const acknowledged: Task[] = [];
    let stopped = false;
    const submitting = Array.from({ length: 8 }, async (_, lane) => {
      for (let n = 0; !stopped; n++) {
        const answer = await api
          .post<{ task: Task }>("/v1/tasks", { type: "t", input: { lane, n } })
          .catch(() => undefined);
        if (answer?.status === 201) acknowledged.push(answer.body.task);
        else if (answer === undefined) return;
      }
    });
    await eventually("a few hundred are acknowledged", () => acknowledged.length >= 300);
    await restart();
    stopped = true;
    await Promise.all(submitting);
    for (const task of acknowledged) {
      const found = await api.task(task.id);
      expect([found.input, found.status]).toEqual([task.input, "queued"]);
    }
    const events = await eventually("every creation is told", async () => {
      const seen = await api.events();
      const created = new Set(seen.filter(({ type }) => type === "task.created").map(({ taskId }) => taskId));
      return acknowledged.every(({ id }) => created.has(id)) && seen;
    });
    expect(events.map(({ sequence }) => sequence)).toEqual(events.map((_, index) => index + 1));
  });

  test("an agent's token, its work and its fence are good as before", async () => {
    const agent = await api.register({ capabilities: [{ name: "x" }] });
    const { id } = await api.delegate({ requires });
    const held = await agent.take();
    await agent.start(held);
    await restart();
    const done = await agent.complete(held, "survived");
    expect([done.status, done.body.task.status]).toEqual([200, "completed"]);
    expect(await api.task(id)).toMatchObject({ status: "completed", result: "survived" });
    expect(await api.agent(agent.id)).toMatchObject({ running: 0, freeSlots: 1 });
  });

  test("a recorded outcome stays the outcome, and is answered again", async () => {
    const agent = await api.register({ capabilities: [{ name: "x" }] });
    await api.delegate({ requires });
    const held = await agent.take();
    await agent.complete(held, "once");
    await restart();
    const again = await agent.complete(held, "twice");
    expect([again.status, again.body.task.result]).toEqual([200, "once"]);
  });

  test("what waited is given out, in order, and so is what had been assigned to nobody's knowledge", async () => {
    const agent = await api.register({ capabilities: [{ name: "x" }], leaseSeconds: 3 });
    const ids: string[] = [];
    for (let n = 0; n < 4; n++) ids.push((await api.delegate({ requires })).id);
    await restart();
    const served: string[] = [];
    for (let n = 0; n < 4; n++) {
      const held = await agent.take();
      served.push(held.task.id);
      await agent.complete(held);
    }
    expect(served).toEqual(ids);
  });

  test("delays, back-offs, deadlines and dependencies go on", async () => {
    const agent = await api.register({ capabilities: [{ name: "x" }], maxConcurrency: 5 });
    const delayed = await api.delegate({ type: "delayed", requires, delaySeconds: 2 });
    const expiring = await api.delegate({ requires: [{ capability: "none" }], timeouts: { queueSeconds: 2 } });
    const blocker = await api.delegate({ type: "blocker", requires });
    const dependant = await api.delegate({ type: "dependant", requires, dependsOn: [blocker.id] });
    const held = await agent.take();
    expect(held.task.id).toBe(blocker.id);
    await agent.start(held);
    await restart();
    expect((await agent.complete(held)).status).toBe(200);
    const taken = [await agent.take(), await agent.take()].map(({ task }) => task.id);
    expect(taken.sort()).toEqual([delayed.id, dependant.id].sort());
    await api.taskWhen(expiring.id, "expired", 8);
  });

  test("an idempotency key still answers the first task", async () => {
    const headers = { "idempotency-key": "survivor" };
    const first = await api.post<{ task: Task }>("/v1/tasks", { type: "t" }, headers);
    await restart();
    const again = await api.post<{ task: Task }>("/v1/tasks", { type: "t" }, headers);
    expect([again.status, again.body.task.id]).toEqual([201, first.body.task.id]);
    expect((await api.get<{ items: Task[] }>("/v1/tasks")).body.items).toHaveLength(1);
  });

  test("keys and revocations, limits and pauses are as they were", async () => {
    const key = await api.post<{ id: string; key: string }>("/v1/keys", { role: "client" });
    const gone = await api.post<{ id: string; key: string }>("/v1/keys", { role: "client" });
    await api.call("DELETE", `/v1/keys/${gone.body.id}`);
    await api.call("PUT", "/v1/limits/x", { concurrency: 4 });
    const agent = await api.register();
    await api.post(`/v1/agents/${agent.id}/pause`);
    await restart();
    expect((await api.as(key.body.key).get("/v1/tasks")).status).toBe(200);
    expect((await api.as(gone.body.key).get("/v1/tasks")).status).toBe(401);
    expect((await api.get<{ limit: { concurrency: number } }>("/v1/limits/x")).body.limit.concurrency).toBe(4);
    expect((await api.agent(agent.id)).status).toBe("paused");
  });

  test("a connected agent comes back to its work", async () => {
    const agent = await api.register({ capabilities: [{ name: "x" }] });
    const { id } = await api.delegate({ requires });
    const before = await connect(agent);
    const { fence } = await before.take();
    await before.ask({ op: "start", taskId: id, fence });
    await restart();
    await before.closed;
    const after = await connect(agent, [{ taskId: id, fence }]);
    expect(await after.ask({ op: "complete", taskId: id, fence, result: 1 })).toMatchObject({ ok: true });
    await after.close();
  });

  test("a reader of the event stream goes on where it was", async () => {
    for (let n = 0; n < 5; n++) await api.delegate({ type: "before" });
    const before = await eventually("five are told", async () => {
      const seen = await api.events("task.created");
      return seen.length === 5 && seen;
    });
    await restart();
    for (let n = 0; n < 5; n++) await api.delegate({ type: "after" });
    const last = (before.at(-1) as WaggleEvent).sequence;
    await eventually("the rest is told", async () => {
      const { body } = await api.get<{ items: WaggleEvent[] }>(`/v1/events?after=${last}&types=task.created&limit=200`);
      return body.items.length === 5;
    });
    const all = await api.events();
    expect(all.map(({ sequence }) => sequence)).toEqual(all.map((_, index) => index + 1));
  });

  test("the server serves again within a second", async () => {
    for (let n = 0; n < 200; n++) await api.delegate({ input: { n } });
    await server.server?.process.end("SIGKILL");
    const began = performance.now();
    await restart();
    await api.delegate();
    // A new process of Node alone takes a tenth of this; the goal itself is measured by the benchmark.
    expect(performance.now() - began).toBeLessThan(10_000);
  });
});

describe.skipIf(remote)("one folder", () => {
  const opened: TestServer[] = [];
  afterAll(() => Promise.all(opened.map((server) => server.stop())));

  test("serves one process at a time, and the second says so", async () => {
    const first = await openServer();
    opened.push(first);
    const dataDir = first.server?.dataDir as string;
    await expect(openServer({ dataDir })).rejects.toThrow(/use|lock/i);
    expect((await first.admin.get("/v1/tasks")).status).toBe(200);
  });

  test("keeps its admin key for its owner alone, and a token opens nothing after a new start of another folder", async () => {
    const [one, two] = [await openServer(), await openServer()];
    opened.push(one, two);
    const agent = await one.admin.register();
    const foreign = agentOf(agent.id, agent.token, apiOf(two.admin.url, agent.token));
    expect((await foreign.heartbeat()).status).toBe(401);
    expect((await two.admin.as(one.admin.key).get("/v1/tasks")).status).toBe(401);
  });
});
