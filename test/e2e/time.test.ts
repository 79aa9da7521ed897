import { afterAll, beforeAll, expect, test } from "vitest";
import { openServer, remote, type TestServer } from "../support/api.ts";

// What waits for clocks runs side by side: each test has a tenant of its own.
let server: TestServer;
beforeAll(async () => {
  server = await openServer();
});
afterAll(() => server?.stop());

const requires = [{ capability: "x" }];
const worker = async () => {
  const api = await server.tenant();
  return { api, agent: await api.register({ capabilities: [{ name: "x" }], maxConcurrency: 4 }) };
};
/** A deadline fires within 5 s of its time. */
const late = 5;

test.concurrent("a task nobody starts in time expires, and is not given out afterwards", async () => {
  const api = await server.tenant();
  const { id } = await api.delegate({ requires, timeouts: { queueSeconds: 0.5 } });
  const task = await api.taskWhen(id, "expired", 0.5 + late);
  expect(task.finishedAt).toBeDefined();
  const agent = await api.register({ capabilities: [{ name: "x" }] });
  expect(await agent.lease(1, 1)).toEqual([]);
});

test.concurrent("a task that is started in time is not expired by its queue timeout", async () => {
  const { api, agent } = await worker();
  const { id } = await api.delegate({ requires, timeouts: { queueSeconds: 2.5 } });
  const held = await agent.take();
  await agent.start(held);
  expect(await agent.lease(1, 4)).toEqual([]);
  expect((await api.task(id)).status).toBe("running");
  expect((await agent.complete(held)).body.task.status).toBe("completed");
});

test.concurrent("a run that takes too long ends, is tried again, and its late result is refused", async () => {
  const { api, agent } = await worker();
  const retry = { maxAttempts: 2, initialSeconds: 0 };
  const { id } = await api.delegate({ requires, timeouts: { runSeconds: 0.5 }, retry });
  const held = await agent.take();
  await agent.start(held);
  const again = await agent.take();
  expect([again.task.id, again.task.attempt]).toEqual([id, 2]);
  expect((await agent.complete(held)).body.code).toBe("task.lease_lost");
  await agent.start(again);
  expect((await agent.complete(again, "quick")).body.task.status).toBe("completed");
});

test.concurrent("a run that takes too long is tried again after its back-off", async () => {
  const { api, agent } = await worker();
  const retry = { maxAttempts: 2, initialSeconds: 1, factor: 1 };
  const { id } = await api.delegate({ requires, timeouts: { runSeconds: 0.3 }, retry });
  await agent.start(await agent.take());
  const again = await agent.take();
  expect([again.task.id, again.task.attempt]).toEqual([id, 2]);
});

test.concurrent("a task that was delayed still expires when nobody starts it in time", async () => {
  const api = await server.tenant();
  const { id } = await api.delegate({ requires, delaySeconds: 0.5, timeouts: { queueSeconds: 0.5 } });
  await api.taskWhen(id, "expired", 1 + late);
});

test.concurrent("a task whose every run takes too long fails", async () => {
  const { api, agent } = await worker();
  const { id } = await api.delegate({ requires, timeouts: { runSeconds: 0.3 }, retry: { maxAttempts: 1 } });
  await agent.start(await agent.take());
  const task = await api.taskWhen(id, "failed", 0.3 + late);
  expect(task.error?.code).toMatch(/timeout|timed_out/);
});

test.concurrent("the total time ends a task in whatever state it is", async () => {
  const { api, agent } = await worker();
  // Elsewhere an agent may not have it within a second.
  const totalSeconds = remote ? 5 : 1;
  const timeouts = { totalSeconds };
  const waiting = await api.delegate({ requires: [{ capability: "none" }], timeouts });
  const running = await api.delegate({ requires, timeouts });
  const delayed = await api.delegate({ requires, timeouts, delaySeconds: 600 });
  const held = await agent.take();
  await agent.start(held);
  for (const { id } of [waiting, running, delayed]) await api.taskWhen(id, "expired", totalSeconds + late);
  const refused = await agent.complete(held);
  expect([refused.status, refused.body.code]).toEqual([409, "task.lease_lost"]);
  expect(await api.agent(agent.id)).toMatchObject({ running: 0, freeSlots: 4 });
});

test.concurrent("an attempt that goes silent is tried again; one that reports is left alone", async () => {
  const { api, agent } = await worker();
  const task = { requires, timeouts: { heartbeatSeconds: 1.5 }, retry: { maxAttempts: 2, initialSeconds: 0 } };
  const [silent, alive] = [
    await api.delegate({ ...task, type: "silent" }),
    await api.delegate({ ...task, type: "alive" }),
  ];
  const [first, second] = [await agent.take(), await agent.take()];
  for (const held of [first, second]) await agent.start(held);
  const talking = [first, second].find(({ task }) => task.id === alive.id) as typeof first;
  const reporting = setInterval(() => void agent.beat(talking, { progress: { percent: 1 } }), 500);
  try {
    const again = await agent.take();
    expect([again.task.id, again.task.attempt]).toEqual([silent.id, 2]);
    expect((await agent.complete(talking)).body.task).toMatchObject({ status: "completed", attempt: 1 });
  } finally {
    clearInterval(reporting);
  }
});

test.concurrent("a delayed task is scheduled until its time, then given out within 5 s", async () => {
  const { api, agent } = await worker();
  const began = Date.now();
  const byDelay = await api.delegate({ requires, delaySeconds: 2 });
  const byTime = await api.delegate({ requires, notBefore: new Date(began + 2000).toISOString() });
  expect([byDelay.status, byTime.status]).toEqual(["scheduled", "scheduled"]);
  expect(await agent.lease(2)).toEqual([]);
  const taken = [await agent.take(), await agent.take()];
  expect(Date.now() - began).toBeGreaterThanOrEqual(1990);
  expect(Date.now() - began).toBeLessThan((2 + late) * 1000);
  expect(taken.map(({ task }) => task.id).sort()).toEqual([byDelay.id, byTime.id].sort());
});

test.concurrent("a time that is past starts at once", async () => {
  const { api, agent } = await worker();
  const { id } = await api.delegate({ requires, notBefore: "2020-01-01T00:00:00Z" });
  expect((await agent.take()).task.id).toBe(id);
});

test.concurrent("waitSeconds answers when the task ends, and with the task as it is when the time is up", async () => {
  const { api, agent } = await worker();
  const { id } = await api.delegate({ requires });
  const unfinished = await api.get<{ task: { status: string } }>(`/v1/tasks/${id}?waitSeconds=1`);
  expect(["queued", "assigned"]).toContain(unfinished.body.task.status);
  const waiting = api.get<{ task: { status: string; result: unknown } }>(`/v1/tasks/${id}?waitSeconds=20`);
  await agent.complete(await agent.take(), { done: true });
  expect((await waiting).body.task).toMatchObject({ status: "completed", result: { done: true } });
});

test.concurrent("a submission with waitSeconds answers its result, or the task as it is when the time is up", async () => {
  const { api, agent } = await worker();
  const submit = (waitSeconds: number) =>
    api.post<{ task: { status: string; result: unknown } }>(`/v1/tasks?waitSeconds=${waitSeconds}`, {
      type: "t",
      requires,
    });
  const done = submit(20);
  await agent.complete(await agent.take(), { done: true });
  expect([(await done).status, (await done).body.task]).toMatchObject([
    201,
    { status: "completed", result: { done: true } },
  ]);
  const unfinished = await submit(0.2);
  expect(unfinished.status).toBe(201);
  expect(["queued", "assigned"]).toContain(unfinished.body.task.status);
});
