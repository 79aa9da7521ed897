import type { Task } from "@waggle/sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openServer, type TestServer } from "../support/api.ts";
import { eventually } from "../support/eventually.ts";

let server: TestServer;
beforeAll(async () => {
  server = await openServer();
});
afterAll(() => server?.stop());

const requires = [{ capability: "x" }];
const worker = async () => {
  const api = await server.tenant();
  const agent = await api.register({ capabilities: [{ name: "x" }], maxConcurrency: 2 });
  const cancel = (id: string, content?: object) => api.post<{ task: Task }>(`/v1/tasks/${id}/cancel`, content);
  return { api, agent, cancel };
};

test("a task that waits is cancelled at once, and nobody gets it", async () => {
  const { api, agent, cancel } = await worker();
  const queued = await api.delegate({ requires });
  const delayed = await api.delegate({ requires, delaySeconds: 600 });
  expect((await cancel(queued.id, { reason: "changed my mind" })).body.task.status).toBe("cancelled");
  expect((await cancel(delayed.id)).body.task.status).toBe("cancelled");
  expect(await agent.lease(2, 1)).toEqual([]);
  expect((await api.task(queued.id)).history.at(-1)?.reason).toMatch(/changed my mind/);
});

test("a running task's agent is told, and the task ends as cancelled when the agent stops", async () => {
  const { api, agent, cancel } = await worker();
  await api.delegate({ requires });
  const held = await agent.take();
  await agent.start(held);
  const answer = await cancel(held.task.id);
  expect([answer.status, answer.body.task.cancelRequested]).toEqual([200, true]);
  expect((await agent.heartbeat()).body.commands.cancel).toEqual([held.task.id]);
  expect((await agent.beat(held)).body.commands.cancel).toEqual([held.task.id]);
  expect((await agent.fail(held, { code: "cancelled" })).body.task.status).toBe("cancelled");
  expect(await api.agent(agent.id)).toMatchObject({ running: 0, freeSlots: 2 });
});

test("an agent that ignores a cancel is fenced when the grace is over, and its slot is free", async () => {
  const { api, agent, cancel } = await worker();
  await api.delegate({ requires, cancelGraceSeconds: 1 });
  const held = await agent.take();
  await agent.start(held);
  await cancel(held.task.id);
  const task = await api.taskWhen(held.task.id, "cancelled", 6);
  expect(task.finishedAt).toBeDefined();
  await eventually("the slot is free", async () => (await api.agent(agent.id)).freeSlots === 2);
  const late = await agent.complete(held, "too late");
  expect([late.status, late.body.code]).toEqual([409, "task.lease_lost"]);
  expect((await api.task(held.task.id)).status).toBe("cancelled");
});

test("cancelling what has ended answers its recorded outcome", async () => {
  const { api, agent, cancel } = await worker();
  await api.delegate({ requires });
  const held = await agent.take();
  await agent.complete(held, 42);
  const answer = await cancel(held.task.id);
  expect([answer.status, answer.body.task.status, answer.body.task.result]).toEqual([200, "completed", 42]);
});

test("cancelling twice is as cancelling once", async () => {
  const { api, cancel } = await worker();
  const { id } = await api.delegate({ requires });
  const [first, second] = [await cancel(id), await cancel(id)];
  expect([first.body.task.status, second.body.task.status]).toEqual(["cancelled", "cancelled"]);
  expect(second.body.task.finishedAt).toBe(first.body.task.finishedAt);
});

test("a cancelled task is not tried again", async () => {
  const { api, agent, cancel } = await worker();
  await api.delegate({ requires, retry: { maxAttempts: 5, initialSeconds: 0 } });
  const held = await agent.take();
  await cancel(held.task.id);
  await agent.fail(held);
  expect((await api.task(held.task.id)).status).toBe("cancelled");
  expect(await agent.lease(1, 1)).toEqual([]);
});

test("a task whose retry waits out its back-off is cancelled at once", async () => {
  const { api, agent, cancel } = await worker();
  await api.delegate({ requires, retry: { initialSeconds: 600, maxSeconds: 600 } });
  const held = await agent.take();
  await agent.fail(held);
  expect((await cancel(held.task.id)).body.task.status).toBe("cancelled");
});
