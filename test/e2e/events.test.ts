import type { WaggleEvent } from "@waggle/sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Api, openServer, type TestServer } from "../support/api.ts";
import { eventually } from "../support/eventually.ts";
import { follow } from "../support/sse.ts";

let server: TestServer;
beforeAll(async () => {
  server = await openServer();
});
afterAll(() => server?.stop());

const requires = [{ capability: "x" }];
const worker = async () => {
  const api = await server.tenant();
  return { api, agent: await api.register({ capabilities: [{ name: "x" }], maxConcurrency: 20 }) };
};
type Page = { items: WaggleEvent[]; nextAfter: number };
const ofTask = async (api: Api, id: string) => (await api.get<Page>(`/v1/tasks/${id}/events?limit=200`)).body.items;
const gapless = (events: readonly WaggleEvent[]) =>
  expect(events.map(({ sequence }) => sequence)).toEqual(events.map((_, index) => index + 1));

test("a task's life is told in order, each step once", async () => {
  const { api, agent } = await worker();
  const { id } = await api.delegate({ requires, retry: { initialSeconds: 0 } });
  const first = await agent.take();
  await agent.start(first);
  await agent.beat(first, { progress: { percent: 50 } });
  await agent.fail(first);
  const second = await agent.take();
  await agent.start(second);
  await agent.complete(second, { x: 1 });
  const events = await eventually("the last event is there", async () => {
    const seen = await ofTask(api, id);
    return seen.some(({ type }) => type === "task.completed") && seen;
  });
  const types = events.map(({ type }) => type);
  expect(types.filter((type) => type === "task.created")).toHaveLength(1);
  expect(types.filter((type) => type === "task.completed")).toHaveLength(1);
  expect(types.filter((type) => type === "task.assigned")).toHaveLength(2);
  expect(types.filter((type) => type === "task.started")).toHaveLength(2);
  expect(types).toContain("task.progress");
  expect(types[0]).toBe("task.created");
  expect(types.at(-1)).toBe("task.completed");
  expect(events.every(({ taskId }) => taskId === id)).toBe(true);
  const sequences = events.map(({ sequence }) => sequence);
  expect(sequences).toEqual([...sequences].sort((a, b) => a - b));
});

test("the sequence of a tenant rises by one with no gap, whatever happens at once", async () => {
  const { api, agent } = await worker();
  await Promise.all(Array.from({ length: 40 }, () => api.delegate({ requires })));
  let done = 0;
  await eventually("all are done", async () => {
    const held = await agent.lease(10);
    const answers = await Promise.all(held.map((assignment) => agent.complete(assignment)));
    done += answers.filter(({ status }) => status === 200).length;
    return done === 40;
  });
  const events = await eventually("every end is told", async () => {
    const seen = await api.events();
    return seen.filter(({ type }) => type === "task.completed").length === 40 && seen;
  });
  gapless(events);
  expect(events.filter(({ type }) => type === "task.created")).toHaveLength(40);
});

test("a page tells where to go on, and types choose events or families of them", async () => {
  const { api, agent } = await worker();
  await api.delegate({ requires });
  await agent.complete(await agent.take());
  await eventually("the end is told", async () => (await api.events("task.completed")).length === 1);
  const all = await api.events();
  const first = (await api.get<Page>("/v1/events?limit=2")).body;
  expect(first.items.map(({ sequence }) => sequence)).toEqual([1, 2]);
  expect(first.nextAfter).toBe(2);
  const rest = (await api.get<Page>(`/v1/events?limit=200&after=${first.nextAfter}`)).body;
  expect([...first.items, ...rest.items]).toEqual(all);
  const family = await api.events("agent.*");
  expect(family.map(({ type }) => type)).toEqual(["agent.registered"]);
  const two = await api.events("task.created,task.completed");
  expect(two.map(({ type }) => type)).toEqual(["task.created", "task.completed"]);
});

test("a stream gives history, then what happens, in order and without a gap", async () => {
  const { api, agent } = await worker();
  await api.delegate({ requires });
  await eventually("history is there", async () => (await api.events("task.created")).length === 1);
  const stream = await follow(api, "/v1/events");
  await stream.count(2);
  await agent.complete(await agent.take());
  await api.delegate({ requires });
  await eventually(
    "the second task is told",
    () => stream.messages.filter(({ data }) => (data as WaggleEvent).type === "task.created").length === 2,
  );
  stream.close();
  gapless(stream.messages.map(({ data }) => data as WaggleEvent));
  expect(stream.messages.map(({ id }) => Number(id))).toEqual(
    stream.messages.map(({ data }) => (data as WaggleEvent).sequence),
  );
});

test("a reader that comes back with the last id it saw misses nothing and reads nothing twice", async () => {
  const { api } = await worker();
  const seen: number[] = [];
  let last = "0";
  for (let round = 0; round < 4; round++) {
    const creating = Promise.all(Array.from({ length: 5 }, () => api.delegate({ requires: [{ capability: "none" }] })));
    const stream = await follow(api, "/v1/events?types=task.created", { "last-event-id": last });
    await stream.count(1);
    stream.close();
    seen.push(...stream.messages.map(({ id }) => Number(id)));
    last = stream.messages.at(-1)?.id ?? last;
    await creating;
  }
  const stream = await follow(api, "/v1/events?types=task.created", { "last-event-id": last });
  const missing = 20 - seen.length;
  if (missing > 0) await stream.count(missing);
  stream.close();
  seen.push(...stream.messages.map(({ id }) => Number(id)));
  const told = (await api.events("task.created")).map(({ sequence }) => sequence);
  expect(seen).toEqual(told);
});

test("a task's own stream gives its events alone, history first, and live until its end", async () => {
  const { api, agent } = await worker();
  const { id } = await api.delegate({ requires });
  await api.delegate({ requires });
  const stream = await follow(api, `/v1/tasks/${id}/events`);
  const held = [await agent.take(), await agent.take()];
  for (const assignment of held) {
    await agent.start(assignment);
    await agent.beat(assignment, { progress: { message: "on it" } });
    await agent.complete(assignment);
  }
  await eventually("the end is told", () =>
    stream.messages.some(({ data }) => (data as WaggleEvent).type === "task.completed"),
  );
  stream.close();
  const events = stream.messages.map(({ data }) => data as WaggleEvent);
  expect(new Set(events.map(({ taskId }) => taskId))).toEqual(new Set([id]));
  expect(events).toEqual(await ofTask(api, id));
});

test("many readers of one stream all see everything", async () => {
  const { api } = await worker();
  const streams = await Promise.all(Array.from({ length: 20 }, () => follow(api, "/v1/events?types=task.created")));
  await Promise.all(Array.from({ length: 10 }, () => api.delegate({ requires: [{ capability: "none" }] })));
  const told = await Promise.all(streams.map((stream) => stream.count(10)));
  for (const messages of told) expect(messages.map(({ id }) => id)).toEqual(told[0]?.map(({ id }) => id));
  for (const stream of streams) stream.close();
});
