import type { Task } from "@waggle/sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openServer, type Problem, type TestServer } from "../support/api.ts";

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
type Batch = { results: ({ task: Task; problem?: undefined } | { task?: undefined; problem: Problem })[] } & Problem;

test("a task is given out once everything it depends on has completed, and not before", async () => {
  const { api, agent } = await worker();
  const [a, b] = [await api.delegate({ requires }), await api.delegate({ requires })];
  const last = await api.delegate({ requires, dependsOn: [a.id, b.id] });
  expect(last.status).toBe("scheduled");
  const [first, second] = [await agent.take(), await agent.take()];
  expect(await agent.lease(5, 1)).toEqual([]);
  await agent.complete(first);
  expect((await api.task(last.id)).status).toBe("scheduled");
  await agent.complete(second);
  expect((await agent.take()).task.id).toBe(last.id);
});

test("a task that depends on what has completed already starts at once", async () => {
  const { api, agent } = await worker();
  const done = await api.delegate({ requires });
  await agent.complete(await agent.take());
  const next = await api.delegate({ requires, dependsOn: [done.id] });
  expect((await agent.take()).task.id).toBe(next.id);
});

test.each(["failed", "cancelled", "expired"] as const)(
  "when a dependency is %s, what depends on it fails, through every level",
  async (end) => {
    const { api, agent } = await worker();
    const first = await api.delegate({
      requires: end === "failed" ? requires : [{ capability: "none" }],
      retry: { maxAttempts: 1 },
      ...(end === "expired" ? { timeouts: { queueSeconds: 0.2 } } : {}),
    });
    const second = await api.delegate({ requires, dependsOn: [first.id] });
    const third = await api.delegate({ requires, dependsOn: [second.id] });
    if (end === "failed") await agent.fail(await agent.take());
    if (end === "cancelled") await api.post(`/v1/tasks/${first.id}/cancel`);
    for (const { id } of [second, third]) {
      expect((await api.taskWhen(id, "failed")).error?.code).toBe("task.dependency_failed");
    }
  },
);

test("a dependency that had already failed fails the new task", async () => {
  const { api, agent } = await worker();
  const first = await api.delegate({ requires, retry: { maxAttempts: 1 } });
  await agent.fail(await agent.take());
  const { id } = await api.delegate({ requires, dependsOn: [first.id] });
  expect((await api.taskWhen(id, "failed")).error?.code).toBe("task.dependency_failed");
});

test("depending on a task that is not there, or is another tenant's, is refused", async () => {
  const { api } = await worker();
  const other = await (await server.tenant()).delegate();
  for (const id of ["tsk_00000000000000000000000000", other.id, "nonsense"]) {
    const { status, body } = await api.post("/v1/tasks", { type: "t", dependsOn: [id] });
    expect([400, 404, 409, 422]).toContain(status);
    expect(body.code).toMatch(/^(task\.dependency_not_found|request\.invalid)$/);
  }
  expect((await api.get<{ items: Task[] }>("/v1/tasks")).body.items).toEqual([]);
});

test("a batch may be a graph by reference: a diamond runs in order", async () => {
  const { api, agent } = await worker();
  const { body } = await api.post<Batch>("/v1/tasks/batch", {
    tasks: [
      { type: "end", requires, dependsOn: ["ref:left", "ref:right"] },
      { type: "left", ref: "left", requires, dependsOn: ["ref:start"] },
      { type: "right", ref: "right", requires, dependsOn: ["ref:start"] },
      { type: "start", ref: "start", requires },
    ],
  });
  expect(body.results.map(({ task }) => task?.type)).toEqual(["end", "left", "right", "start"]);
  const start = await agent.take();
  expect(start.task.type).toBe("start");
  expect(await agent.lease(5, 1)).toEqual([]);
  await agent.complete(start);
  const sides = [await agent.take(), await agent.take()];
  expect(sides.map(({ task }) => task.type).sort()).toEqual(["left", "right"]);
  await agent.complete(sides[0] as never);
  expect(await agent.lease(5, 1)).toEqual([]);
  await agent.complete(sides[1] as never);
  expect((await agent.take()).task.type).toBe("end");
});

test("a circle in a batch is refused, naming it", async () => {
  const { api } = await worker();
  const { status, body } = await api.post<Batch>("/v1/tasks/batch", {
    tasks: [
      { type: "a", ref: "a", dependsOn: ["ref:b"] },
      { type: "b", ref: "b", dependsOn: ["ref:a"] },
      { type: "c" },
    ],
  });
  const codes = status === 207 ? body.results.map(({ problem }) => problem?.code) : [body.code];
  expect(codes).toContain("task.dependency_cycle");
});

test("a reference to no entry of the batch is refused for that entry alone", async () => {
  const { api } = await worker();
  const { status, body } = await api.post<Batch>("/v1/tasks/batch", {
    tasks: [{ type: "a", dependsOn: ["ref:nobody"] }, { type: "b" }],
  });
  expect(status).toBe(207);
  expect(body.results[0]?.problem?.status).toBeGreaterThanOrEqual(400);
  expect(body.results[1]?.task?.status).toBe("queued");
});
