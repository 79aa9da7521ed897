import { createClient } from "@waggle/sdk";
import { expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { launchScript } from "../support/process.ts";
import { startServer } from "../support/server.ts";

test("an agent whose process is asked to end finishes what it holds, leaves, and exits with 0", async () => {
  const server = await startServer();
  const client = createClient({ url: server.url, key: server.key });
  const agent = launchScript("test/chaos/agents.ts", [server.url, server.key, "leaver", "socket"], { ipc: true });
  try {
    const input = { n: 1, kind: "slow", busyMs: 1000, pad: "" };
    const handle = await client.tasks.delegate({ type: "t", input, requires: [{ capability: "chaos" }] });
    await eventually("its work has begun", async () => (await handle.get()).status === "running");
    // As when npm passes a Ctrl-C on: that is one wish, not two.
    agent.child.kill("SIGINT");
    await agent.end("SIGTERM", 20);
    expect(agent.child.exitCode).toBe(0);
    expect(await handle.get()).toMatchObject({ status: "completed", attempt: 1 });
    expect((await client.agents.list({ status: "stopped" })).items.map(({ name }) => name)).toEqual(["leaver"]);
  } finally {
    await agent.end("SIGKILL");
    client.close();
    await server.stop();
  }
}, 60_000);
