import type { CreateTask, RegisterAgent } from "@waggle/sdk";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Api, openServer, remote, type TestAgent, type TestServer } from "../support/api.ts";
import { eventually } from "../support/eventually.ts";
import { connect, type Socket } from "../support/socket.ts";

let server: TestServer;
beforeAll(async () => {
  server = await openServer();
});
afterAll(() => server?.stop());

/** Agents by name in a tenant of their own, each having asked for work once. */
async function fleet(agents: Readonly<Record<string, Partial<RegisterAgent>>>) {
  const api = await server.tenant();
  const members = new Map<string, TestAgent>();
  for (const [name, options] of Object.entries(agents)) members.set(name, await api.register({ name, ...options }));
  return { api, of: (name: string) => members.get(name) as TestAgent, members };
}

/** Connects every member; answers the name of the agent a task goes to, which then completes it. */
async function race(api: Api, members: ReadonlyMap<string, TestAgent>) {
  const sockets = new Map<string, Socket>();
  for (const [name, agent] of members) sockets.set(name, await connect(agent));
  return async (task: Partial<CreateTask>): Promise<string> => {
    const { id } = await api.delegate(task);
    const [name, socket, fence] = await eventually("the task has an agent", () => {
      for (const [name, socket] of sockets) {
        const assignment = socket.waiting.find(({ task }) => task.id === id);
        if (assignment) return [name, socket, assignment.fence] as const;
      }
      return;
    });
    expect(await socket.ask({ op: "complete", taskId: id, fence })).toMatchObject({ ok: true });
    return name;
  };
}

/** On AWS who gives tasks away looks once a second whether a busy agent is free again: until then another may get one. */
async function expectWinner(winner: Awaited<ReturnType<typeof race>>, task: Partial<CreateTask>, name: string) {
  if (remote) await eventually(`${name} gets it`, async () => (await winner(task)) === name);
  else expect(await winner(task)).toBe(name);
}

test("a task goes only to an agent with every capability it requires, at the level it requires", async () => {
  const { api, members } = await fleet({
    novice: { capabilities: [{ name: "code", level: 0.4 }, { name: "sql" }] },
    narrow: { capabilities: [{ name: "code", level: 1 }] },
    right: { capabilities: [{ name: "code", level: 0.7 }, { name: "sql" }] },
  });
  const winner = await race(api, members);
  const requires = [{ capability: "code", minLevel: 0.6 }, { capability: "sql" }];
  for (let n = 0; n < 3; n++) expect(await winner({ requires })).toBe("right");
});

test("a task nobody can do waits, says why, and goes to the first agent that can", async () => {
  const { api } = await fleet({ other: { capabilities: [{ name: "paint" }] } });
  const { id } = await api.delegate({ requires: [{ capability: "weld" }] });
  const waiting = await eventually("the reason is there", async () => (await api.task(id)).waiting);
  expect(waiting.reason).not.toBe("");
  const explained = await api.get<Record<string, unknown>>(`/v1/tasks/${id}/explain`);
  expect(explained.status).toBe(200);
  expect(explained.text).toMatch(/weld/);
  const welder = await api.register({ capabilities: [{ name: "weld" }] });
  expect((await welder.take()).task.id).toBe(id);
});

test("a task without requirements goes to any agent", async () => {
  const { api, members } = await fleet({ only: { capabilities: [{ name: "whatever" }] } });
  const winner = await race(api, members);
  expect(await winner({})).toBe("only");
});

describe("label selectors", () => {
  const labels = { region: "eu", memory: 16, tier: "gold" };
  const cases: readonly [string, object, boolean][] = [
    ["eq of the same text", { key: "region", op: "eq", value: "eu" }, true],
    ["eq of another text", { key: "region", op: "eq", value: "us" }, false],
    ["eq of a number", { key: "memory", op: "eq", value: 16 }, true],
    ["eq of a number written as text", { key: "memory", op: "eq", value: "16" }, false],
    ["ne of another text", { key: "region", op: "ne", value: "us" }, true],
    ["ne of the same text", { key: "region", op: "ne", value: "eu" }, false],
    ["in a list that has it", { key: "region", op: "in", value: ["us", "eu"] }, true],
    ["in a list that has it not", { key: "region", op: "in", value: ["us", "ap"] }, false],
    ["exists", { key: "tier", op: "exists" }, true],
    ["exists of a label that is not there", { key: "none", op: "exists" }, false],
    ["exists: false of a label that is not there", { key: "none", op: "exists", value: false }, true],
    ["gt below", { key: "memory", op: "gt", value: 15 }, true],
    ["gt of the same", { key: "memory", op: "gt", value: 16 }, false],
    ["gte of the same", { key: "memory", op: "gte", value: 16 }, true],
    ["lt above", { key: "memory", op: "lt", value: 17 }, true],
    ["lt of the same", { key: "memory", op: "lt", value: 16 }, false],
    ["lte of the same", { key: "memory", op: "lte", value: 16 }, true],
    ["gt of a label that is not there", { key: "none", op: "gt", value: 0 }, false],
  ];
  test.each(cases)("%s: %o → %s", async (_, selector, matches) => {
    const { api, of } = await fleet({ agent: { capabilities: [], labels } });
    const { id } = await api.delegate({ labels: [selector as never] });
    if (matches) expect((await of("agent").take()).task.id).toBe(id);
    else {
      await eventually("the reason is there", async () => (await api.task(id)).waiting);
      expect(await of("agent").lease()).toEqual([]);
    }
  });

  test("a preferred label decides between agents and excludes none", async () => {
    const { api, members } = await fleet({
      us: { capabilities: [], labels: { region: "us" } },
      eu: { capabilities: [], labels: { region: "eu" } },
    });
    const winner = await race(api, members);
    const labels = [{ key: "region", op: "eq", value: "eu", required: false, weight: 5 } as const];
    for (let n = 0; n < 3; n++) await expectWinner(winner, { labels }, "eu");
    const elsewhere = [{ key: "region", op: "eq", value: "mars", required: false, weight: 5 } as const];
    expect(["us", "eu"]).toContain(await winner({ labels: elsewhere }));
  });
});

test("a task for one agent waits for that agent, others idle or not", async () => {
  const { api, of } = await fleet({ asked: { capabilities: [] }, idle: { capabilities: [] } });
  await api.delegate({ agentId: of("asked").id });
  const first = await of("asked").take();
  const second = await api.delegate({ agentId: of("asked").id });
  expect(await of("idle").lease(1, 1)).toEqual([]);
  expect((await api.task(second.id)).status).toBe("queued");
  await of("asked").complete(first);
  expect((await of("asked").take()).task.id).toBe(second.id);
});

test.each([
  ["a capability", { requires: [{ capability: "other" }] }],
  ["a level", { requires: [{ capability: "x", minLevel: 0.9 }] }],
  ["a label", { labels: [{ key: "zone", op: "eq", value: "b" }] }],
  ["a role", { role: "other" }],
  ["slots", { slots: 2 }],
] as const)("a task for one agent that asks for %s it lacks waits, and holds up nobody", async (_, lacking) => {
  const { api, of } = await fleet({ asked: { capabilities: [{ name: "x", level: 0.5 }], labels: { zone: "a" } } });
  const agentId = of("asked").id;
  const never = await api.delegate({ agentId, ...lacking } as Partial<CreateTask>);
  const plain = await api.delegate({ agentId });
  const taken = await of("asked").take();
  expect(taken.task.id).toBe(plain.id);
  await of("asked").complete(taken);
  expect(await of("asked").lease(1, 0)).toEqual([]);
  expect((await api.task(never.id)).waiting?.reason).toContain("no eligible agent");
});

test("a task for a role goes to agents of that role", async () => {
  const { api, members } = await fleet({
    reviewer: { capabilities: [], role: "reviewer" },
    writer: { capabilities: [], role: "writer" },
  });
  const winner = await race(api, members);
  for (let n = 0; n < 3; n++) expect(await winner({ role: "reviewer" })).toBe("reviewer");
});

test("best fit, the default, takes the agent best at what is required, and says so", async () => {
  const { api, members } = await fleet({
    good: { capabilities: [{ name: "code", level: 0.6 }] },
    best: { capabilities: [{ name: "code", level: 0.95 }] },
  });
  const winner = await race(api, members);
  expect(await winner({ requires: [{ capability: "code" }] })).toBe("best");
  const [task] = (
    await api.get<{ items: { decision?: { strategy: string; score: number; reasons: string[] } }[] }>("/v1/tasks")
  ).body.items;
  expect(task?.decision).toMatchObject({ strategy: "best_fit", score: expect.any(Number) });
  expect(task?.decision?.reasons.length).toBeGreaterThan(0);
});

test("cheapest takes the agent that costs least", async () => {
  const { api, members } = await fleet({
    dear: { capabilities: [{ name: "code", level: 1, cost: 9 }] },
    cheap: { capabilities: [{ name: "code", level: 0.5, cost: 1 }] },
  });
  const winner = await race(api, members);
  const task = { requires: [{ capability: "code" }], strategy: "cheapest" as const };
  for (let n = 0; n < 3; n++) await expectWinner(winner, task, "cheap");
});

test("least loaded takes the agent with the largest share of free slots", async () => {
  const { api, of, members } = await fleet({
    loaded: { capabilities: [{ name: "x" }], maxConcurrency: 4 },
    free: { capabilities: [{ name: "x" }], maxConcurrency: 4 },
  });
  const winner = await race(api, members);
  await api.delegate({ agentId: of("loaded").id });
  await api.delegate({ agentId: of("loaded").id });
  await eventually("one is half full", async () => (await api.agent(of("loaded").id)).running === 2);
  const task = { requires: [{ capability: "x" }], strategy: "least_loaded" as const };
  for (let n = 0; n < 3; n++) expect(await winner(task)).toBe("free");
});

test("round robin gives every agent its turn", async () => {
  const { api, members } = await fleet({
    a: { capabilities: [{ name: "x" }] },
    b: { capabilities: [{ name: "x" }] },
    c: { capabilities: [{ name: "x" }] },
  });
  const winner = await race(api, members);
  const seen: string[] = [];
  for (let n = 0; n < 6; n++) {
    seen.push(await winner({ requires: [{ capability: "x" }], strategy: "round_robin" }));
  }
  expect([...seen.slice(0, 3)].sort()).toEqual(["a", "b", "c"]);
  expect([...seen.slice(3)].sort()).toEqual(["a", "b", "c"]);
});

test("tasks with one sticky key go to one agent", async () => {
  const { api, members } = await fleet({
    a: { capabilities: [{ name: "x" }] },
    b: { capabilities: [{ name: "x" }] },
    c: { capabilities: [{ name: "x" }] },
  });
  const winner = await race(api, members);
  const task = { requires: [{ capability: "x" }], stickyKey: "session-1", strategy: "sticky" as const };
  const seen = new Set<string>();
  for (let n = 0; n < 5; n++) seen.add(await winner(task));
  expect(seen.size).toBe(1);
});

test("a task of several slots takes as many, and waits until they are free together", async () => {
  const { api, of } = await fleet({ agent: { capabilities: [{ name: "x" }], maxConcurrency: 3 } });
  const requires = [{ capability: "x" }];
  await api.delegate({ requires, slots: 2 });
  const first = await of("agent").take();
  expect(await api.agent(of("agent").id)).toMatchObject({ running: 2, freeSlots: 1 });
  const wide = await api.delegate({ requires, slots: 2 });
  expect(await of("agent").lease(5)).toEqual([]);
  await of("agent").complete(first);
  expect((await of("agent").take()).task.id).toBe(wide.id);
});

test("two agents never get one task, however fast they ask", async () => {
  const { api, members } = await fleet(
    Object.fromEntries(
      Array.from({ length: 6 }, (_, n) => [`a${n}`, { capabilities: [{ name: "x" }], maxConcurrency: 50 }]),
    ),
  );
  const made = await Promise.all(Array.from({ length: 40 }, () => api.delegate({ requires: [{ capability: "x" }] })));
  const taken: string[] = [];
  await eventually("every task is taken", async () => {
    const assignments = await Promise.all([...members.values()].map((agent) => agent.lease(10)));
    taken.push(...assignments.flat().map(({ task }) => task.id));
    return taken.length >= made.length;
  });
  expect([...taken].sort()).toEqual(made.map(({ id }) => id).sort());
});
