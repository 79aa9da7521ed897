import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { untilPasses } from "../../../test/support/eventually.ts";
import { createAgent } from "../src/node.ts";

test("an agent that polls goes on when a heartbeat met a change of its agent by others", async () => {
  let heartbeats = 0;
  const server = createServer((request, response) => {
    const answer = (status: number, body: object) =>
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
    if (request.url === "/v1/agents") return answer(201, { agent: { id: "agt_1", leaseSeconds: 0.3 }, token: "t" });
    if (request.url?.endsWith("/lease")) return answer(200, { assignments: [] });
    if (++heartbeats === 2) return answer(409, { code: "agent.conflict", detail: "try again" });
    return answer(200, { commands: { cancel: [], pause: false, drain: false } });
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const log = { debug() {}, info() {}, warn() {}, error() {} };
  const agent = createAgent({ url, key: "k", name: "a", transport: "poll", handlers: { t: () => "done" }, log });
  try {
    await agent.start();
    await untilPasses(() => expect(heartbeats).toBeGreaterThan(2));
    expect(agent.state).toBe("running");
  } finally {
    await agent.stop({ graceSeconds: 0 });
    server.closeAllConnections();
    server.close();
  }
});
