import { afterAll, beforeAll, expect, test } from "vitest";
import { type Api, openServer, remote, type TestAgent, type TestServer } from "../support/api.ts";
import { eventually } from "../support/eventually.ts";

let server: TestServer;
beforeAll(async () => {
  server = await openServer();
});
afterAll(() => server?.stop());

const requires = [{ capability: "x" }];
/** Takes and completes `count` tasks one after another; the types in the order they came. */
async function served(agent: TestAgent, count: number): Promise<string[]> {
  const order: string[] = [];
  for (let n = 0; n < count; n++) {
    const assignment = await agent.take();
    order.push(assignment.task.type);
    await agent.complete(assignment);
  }
  return order;
}
/** A task that has its place among those that wait; elsewhere it finds it a moment after it was taken. */
async function waiting(api: Api, task: Parameters<Api["delegate"]>[0]): Promise<void> {
  const { id } = await api.delegate(task);
  if (remote) await eventually("it has its place", async () => (await api.task(id)).waiting);
}
const worker = (api: Api) => api.register({ capabilities: [{ name: "x" }] });

test("a higher priority is served first, whatever came before", async () => {
  const api = await server.tenant();
  for (const priority of [5, 0, 9, 3, 9]) await waiting(api, { type: `p${priority}`, priority, requires });
  expect(await served(await worker(api), 5)).toEqual(["p9", "p9", "p5", "p3", "p0"]);
});

test("within one priority, first come is first served", async () => {
  const api = await server.tenant();
  const types = Array.from({ length: 12 }, (_, n) => `t${n}`);
  for (const type of types) await waiting(api, { type, requires });
  expect(await served(await worker(api), 12)).toEqual(types);
});

test("an agent is served in order across the lanes it can serve", async () => {
  const api = await server.tenant();
  const lanes = [[{ capability: "x" }], [{ capability: "y" }], [{ capability: "x" }, { capability: "y" }]];
  for (let n = 0; n < 3; n++) {
    for (const [lane, wanted] of lanes.entries()) {
      await waiting(api, { type: `lane${lane}`, requires: wanted, priority: lane === 1 ? 7 : 5 });
    }
  }
  const agent = await api.register({ capabilities: [{ name: "x" }, { name: "y" }] });
  const order = await served(agent, 9);
  expect(order.slice(0, 3)).toEqual(["lane1", "lane1", "lane1"]);
  expect([...order.slice(3)].sort()).toEqual(["lane0", "lane0", "lane0", "lane2", "lane2", "lane2"]);
});

test("one fair key that floods does not hold up the others", async () => {
  const api = await server.tenant();
  for (let n = 0; n < 30; n++) await api.delegate({ type: "flood", fairKey: "flood", requires });
  for (const key of ["a", "b", "c"]) await api.delegate({ type: key, fairKey: key, requires });
  const order = await served(await worker(api), 12);
  for (const key of ["a", "b", "c"]) expect(order).toContain(key);
});

test("a fair key that comes late is not paid for the time it was away", async () => {
  const api = await server.tenant();
  const agent = await worker(api);
  for (let n = 0; n < 20; n++) await api.delegate({ type: "early", fairKey: "early", requires });
  await served(agent, 12);
  for (let n = 0; n < 20; n++) await api.delegate({ type: "late", fairKey: "late", requires });
  const order = await served(agent, 8);
  expect(order.filter((type) => type === "early").length).toBeGreaterThanOrEqual(3);
  expect(order.filter((type) => type === "late").length).toBeGreaterThanOrEqual(3);
});

test("priority goes before fairness", async () => {
  const api = await server.tenant();
  for (let n = 0; n < 4; n++) await waiting(api, { type: "urgent", fairKey: "a", priority: 9, requires });
  await waiting(api, { type: "calm", fairKey: "b", priority: 1, requires });
  expect(await served(await worker(api), 5)).toEqual(["urgent", "urgent", "urgent", "urgent", "calm"]);
});
