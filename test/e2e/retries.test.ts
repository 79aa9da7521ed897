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
  return { api, agent: await api.register({ capabilities: [{ name: "x" }], maxConcurrency: 10 }) };
};
type DeadLetters = { items: Task[]; nextCursor?: string };

test("a failed attempt is tried again after its back-off, and the next one may succeed", async () => {
  const { api, agent } = await worker();
  const { id } = await api.delegate({ requires, retry: { maxAttempts: 3, initialSeconds: 1, factor: 1 } });
  const first = await agent.take();
  const failed = await agent.fail(first, { code: "flaky", message: "try again" });
  expect([failed.status, failed.body.task.status]).toEqual([200, "scheduled"]);
  const second = await agent.take();
  expect([second.task.id, second.task.attempt]).toEqual([id, 2]);
  expect(second.fence).toBeGreaterThan(first.fence);
  const done = await agent.complete(second, "at last");
  expect(done.body.task).toMatchObject({ status: "completed", result: "at last", attempt: 2 });
  expect(done.body.task.error).toBeUndefined();
});

test("a task fails for good after its attempts, with the last error, and is a dead letter", async () => {
  const { api, agent } = await worker();
  const { id } = await api.delegate({ requires, retry: { maxAttempts: 2, initialSeconds: 0 } });
  await agent.fail(await agent.take(), { code: "one", message: "first" });
  const ended = await agent.fail(await agent.take(), { code: "two", message: "second" });
  expect(ended.body.task).toMatchObject({ status: "failed", attempt: 2, error: { code: "two", message: "second" } });
  const letters = await eventually("the dead letter is listed", async () => {
    const { body } = await api.get<DeadLetters>("/v1/dead-letters");
    return body.items.length > 0 && body.items;
  });
  expect(letters.map((task) => [task.id, task.error?.code])).toEqual([[id, "two"]]);
  expect(await agent.lease(1, 1)).toEqual([]);
});

test("an error that is not retryable ends the task at once, by the agent's word or by the task's list", async () => {
  const { api, agent } = await worker();
  const retry = { maxAttempts: 5, initialSeconds: 0, nonRetryable: ["bad_input"] };
  await api.delegate({ requires, retry });
  const byWord = await agent.fail(await agent.take(), { code: "any", retryable: false });
  expect(byWord.body.task).toMatchObject({ status: "failed", attempt: 1 });
  await api.delegate({ requires, retry });
  const byList = await agent.fail(await agent.take(), { code: "bad_input" });
  expect(byList.body.task).toMatchObject({ status: "failed", attempt: 1 });
});

test("a failure that does not say what and why is refused, naming what it lacks, and the attempt goes on", async () => {
  const api = await server.tenant();
  const agent = await api.register({ capabilities: [{ name: "x" }] });
  await api.delegate({ requires: [{ capability: "x" }] });
  const held = await agent.take();
  const fail = (error: unknown) =>
    agent.api.post<{ errors: { path: string; message: string }[] }>(`/v1/tasks/${held.task.id}/fail`, {
      fence: held.fence,
      error,
    });
  const { status, body } = await fail({});
  expect([status, body.errors.map(({ path }) => path)]).toEqual([400, ["error.code", "error.message"]]);
  expect((await fail({ code: "x" })).body.errors).toEqual([
    { path: "error.message", message: "required: expected string" },
  ]);
  expect((await agent.complete(held)).body.task.status).toBe("completed");
});

test("back-off grows by its factor up to its cap, with jitter below it", async () => {
  const { api, agent } = await worker();
  await api.delegate({ requires, retry: { maxAttempts: 4, initialSeconds: 1000, factor: 4, maxSeconds: 2000 } });
  const ended = await agent.fail(await agent.take());
  const wait = (task: Task) => (Date.parse(task.scheduledAt ?? "") - Date.now()) / 1000;
  expect(wait(ended.body.task)).toBeLessThanOrEqual(1000);
  expect(wait(ended.body.task)).toBeGreaterThan(-1);
});

test("what an attempt noted comes back to the next one", async () => {
  const { api, agent } = await worker();
  await api.delegate({ requires, retry: { initialSeconds: 0 } });
  const first = await agent.take();
  await agent.start(first);
  await agent.beat(first, { progress: { percent: 40, message: "halfway" }, details: { page: 12 } });
  expect(await api.task(first.task.id)).toMatchObject({ progress: { percent: 40, message: "halfway" } });
  await agent.fail(first);
  expect((await agent.take()).task.details).toEqual({ page: 12 });
});

test("releasing gives a task back unharmed, with no attempt used", async () => {
  const { api, agent } = await worker();
  const { id } = await api.delegate({ requires, retry: { maxAttempts: 1 } });
  const first = await agent.take();
  await agent.start(first);
  expect((await agent.release(first)).status).toBe(200);
  const second = await agent.take();
  expect([second.task.id, second.task.attempt]).toEqual([id, 1]);
  expect((await agent.complete(first)).body.code).toBe("task.lease_lost");
  expect((await agent.complete(second)).status).toBe(200);
});

test("repeating an outcome answers the one that was recorded; a later, different word changes nothing", async () => {
  const { api, agent } = await worker();
  await api.delegate({ requires });
  const held = await agent.take();
  await agent.complete(held, "first");
  const again = await agent.complete(held, "second");
  expect([again.status, again.body.task.result]).toEqual([200, "first"]);
  const failing = await agent.fail(held);
  expect((await api.task(held.task.id)).status).toBe("completed");
  expect([200, 409]).toContain(failing.status);
});

test("a failed, cancelled or expired task runs again by hand: same id, fresh attempts", async () => {
  const { api, agent } = await worker();
  const once = { requires, retry: { maxAttempts: 1 } };
  const failed = await api.delegate(once);
  await agent.fail(await agent.take());
  const cancelled = await api.delegate({ ...once, delaySeconds: 600 });
  await api.post(`/v1/tasks/${cancelled.id}/cancel`);
  const expired = await api.delegate({ requires: [{ capability: "none" }], timeouts: { queueSeconds: 0.1 } });
  await api.taskWhen(expired.id, "expired", 6);
  const retry = async (id: string) => (await api.post<{ task: Task }>(`/v1/tasks/${id}/retry`)).body.task;
  expect(await retry(failed.id)).toMatchObject({ id: failed.id, status: "queued" });
  const again = await agent.take();
  expect([again.task.id, again.task.attempt]).toEqual([failed.id, 1]);
  expect((await agent.complete(again, "ok")).body.task.error).toBeUndefined();
  expect((await retry(cancelled.id)).status).toBe("queued");
  expect((await retry(expired.id)).status).toBe("queued");
});

test("retrying what has not failed is refused", async () => {
  const { api, agent } = await worker();
  const { id } = await api.delegate({ requires });
  const queued = await api.post(`/v1/tasks/${id}/retry`);
  expect([queued.status, queued.body.code]).toEqual([409, "task.not_retryable"]);
  await agent.complete(await agent.take());
  const completed = await api.post(`/v1/tasks/${id}/retry`);
  expect([completed.status, completed.body.code]).toEqual([409, "task.not_retryable"]);
});

test("dead letters are redriven one by one or all, and what cannot be is named", async () => {
  const { api, agent } = await worker();
  const ids: string[] = [];
  for (let n = 0; n < 3; n++) {
    ids.push((await api.delegate({ requires, retry: { maxAttempts: 1 } })).id);
    await agent.fail(await agent.take());
  }
  const listed = async () => (await api.get<DeadLetters>("/v1/dead-letters")).body.items.map(({ id }) => id);
  await eventually("all are listed", async () => (await listed()).length === 3);
  const some = await api.post<{ redriven: number; skipped: { taskId: string; code: string }[] }>(
    "/v1/dead-letters/redrive",
    {
      taskIds: [ids[0], "tsk_00000000000000000000000000"],
    },
  );
  expect([some.status, some.body.redriven]).toEqual([200, 1]);
  expect(some.body.skipped.map(({ taskId }) => taskId)).toEqual(["tsk_00000000000000000000000000"]);
  expect((await agent.take()).task.id).toBe(ids[0]);
  const rest = await api.post<{ redriven: number }>("/v1/dead-letters/redrive", { all: true });
  expect(rest.body.redriven).toBe(2);
  expect([(await agent.take()).task.id, (await agent.take()).task.id].sort()).toEqual(ids.slice(1).sort());
  await eventually("none is left", async () => (await listed()).length === 0);
});

test("a redrive with a rate spreads the tasks", async () => {
  const { api, agent } = await worker();
  for (let n = 0; n < 3; n++) {
    await api.delegate({ requires, retry: { maxAttempts: 1 } });
    await agent.fail(await agent.take());
  }
  await eventually(
    "all are dead letters",
    async () => (await api.get<DeadLetters>("/v1/dead-letters")).body.items.length === 3,
  );
  const began = performance.now();
  await api.post("/v1/dead-letters/redrive", { all: true, perSecond: 1 });
  for (let n = 0; n < 3; n++) await agent.take();
  expect(performance.now() - began).toBeGreaterThan(1500);
});
