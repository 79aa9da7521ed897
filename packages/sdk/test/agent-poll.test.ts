import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, test } from "vitest";
import { untilPasses } from "../../../test/support/eventually.ts";
import { type AgentOptions, createAgent } from "../src/node.ts";

const log = { debug() {}, info() {}, warn() {}, error() {} };
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const unlessSaid: Record<string, [status: number, body: object | string]> = {
  agents: [201, { agent: { id: "agt_1", leaseSeconds: 60 }, token: "t" }],
  heartbeat: [200, { commands: { cancel: [], pause: false, drain: false } }],
  lease: [200, { assignments: [] }],
  start: [200, { task: {} }],
  complete: [200, { task: {} }],
  release: [200, { task: {} }],
  drain: [200, { agent: {} }],
};
const assignment = (id: string) => ({ task: { id, type: id, attempt: 1 }, fence: 1, expiresAt: "" });

/** An agent that polls, and the server's side of it: answers by the last part of the path, and how often that was asked. */
async function setUp(
  answer: (what: string, times: number) => [status: number, body: object | string] | undefined,
  options: Partial<AgentOptions> = {},
) {
  const asked: Record<string, number> = {};
  const server = createServer((request, response) => {
    const what = request.url?.split("/").at(-1) ?? "";
    const times = (asked[what] ?? 0) + 1;
    asked[what] = times;
    const [status, body] = answer(what, times) ?? unlessSaid[what] ?? [204, ""];
    response.writeHead(status, { "content-type": "application/json" });
    response.end(typeof body === "string" ? body : JSON.stringify(body));
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  cleanups.push(() => {
    server.closeAllConnections();
    server.close();
  });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const agent = createAgent({ url, key: "k", name: "a", transport: "poll", handlers: {}, log, ...options });
  cleanups.push(() => agent.stop({ graceSeconds: 0 }));
  await agent.start();
  return { agent, times: (what: string) => asked[what] ?? 0 };
}

test("an agent that polls goes on when a heartbeat met a change of its agent by others", async () => {
  const { agent, times } = await setUp((what, times) =>
    what === "agents"
      ? [201, { agent: { id: "agt_1", leaseSeconds: 0.3 }, token: "t" }]
      : what === "heartbeat" && times === 2
        ? [409, { code: "agent.conflict", detail: "try again" }]
        : undefined,
  );
  await untilPasses(() => expect(times("heartbeat")).toBeGreaterThan(2));
  expect(agent.state).toBe("running");
});

test("an agent that polls asks for more work as soon as one of its slots is free", async () => {
  const { times } = await setUp(
    (what, times) =>
      what === "lease" && times === 1 ? [200, { assignments: [assignment("long"), assignment("quick")] }] : undefined,
    { concurrency: 2, handlers: { long: () => new Promise(() => {}), quick: () => "done" } },
  );
  await untilPasses(() => expect(times("lease")).toBeGreaterThan(1));
});

test("an agent asks by long poll where something in between takes the wish for a WebSocket away", async () => {
  const { agent, times } = await setUp(
    (what) => (what === "connect" ? [426, { code: "request.upgrade_required", detail: "by WebSocket" }] : undefined),
    { transport: "auto" },
  );
  await untilPasses(() => expect(times("lease")).toBeGreaterThan(0));
  expect(agent.state).toBe("running");
});

test.each([
  ["not found", 404, "<h1>404</h1>"],
  ["a page of its own", 200, "<h1>Back soon</h1>"],
])("an agent that polls stays, and keeps its outcome, while a proxy answers %s", async (_, status, page) => {
  const { agent, times } = await setUp(
    (what, times) =>
      what === "lease" && times === 1
        ? [200, { assignments: [assignment("work")] }]
        : (what === "lease" || what === "complete") && times <= 2
          ? [status, page]
          : undefined,
    { handlers: { work: () => "done" } },
  );
  await untilPasses(() => expect(times("complete")).toBeGreaterThan(2));
  await untilPasses(() => expect(times("lease")).toBeGreaterThan(2));
  expect(agent.state).toBe("running");
});
