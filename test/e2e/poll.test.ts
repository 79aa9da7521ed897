import { createAgent, createClient } from "@waggle/sdk";
import { expect, test } from "vitest";
import { fair, openProxy } from "../chaos/proxy.ts";
import { eventually } from "../support/eventually.ts";
import { startServer } from "../support/server.ts";

test("work that went with an answer nobody received is done all the same, while its agent lives", async () => {
  const server = await startServer();
  const proxy = await openProxy(Number(new URL(server.url).port), () => 0.5);
  const client = createClient({ url: server.url, key: server.key });
  const agent = createAgent({
    url: proxy.url,
    key: server.key,
    name: "poller",
    transport: "poll",
    leaseSeconds: 3,
    log: { debug() {}, info() {}, warn() {}, error() {} },
    handlers: { t: () => "done" },
  });
  try {
    await agent.start();
    // What is cut may be a heartbeat: one of five meets the answer.
    for (let n = 0; n < 5; n++) {
      const before = proxy.counts.cut;
      proxy.weather = { ...fair, cut: 1 };
      const { id } = await client.tasks.create({ type: "t", requires: [{ capability: "t" }] });
      await eventually("something was cut", () => proxy.counts.cut > before);
      proxy.weather = fair;
      const status = () => client.tasks.get(id).then((task) => task.status === "completed");
      await eventually("the task is done", status, { seconds: 20 });
    }
    expect(proxy.counts.cut).toBeGreaterThanOrEqual(5);
  } finally {
    await agent.stop({ graceSeconds: 0 });
    proxy.close();
    client.close();
    await server.stop();
  }
}, 90_000);
