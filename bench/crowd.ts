import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { freePort } from "../test/support/process.ts";
import type { AgentsMessage } from "./agents.ts";
import { inLanes } from "./lanes.ts";
import { httpCaller } from "./systems/http.ts";
import type { Payload } from "./systems/system.ts";

/** One process of many agents without a WebSocket: each asks by a long poll of its own, or is called by webhook. */
export interface CrowdConfig {
  readonly url: string;
  readonly key: string;
  readonly kind: "poll" | "webhook";
  readonly agents: number;
}
interface Assignment {
  readonly fence: number;
  readonly task: { readonly id: string; readonly input: Payload };
}

const { url, key, kind, agents } = JSON.parse(process.argv[2] ?? "") as CrowdConfig;
const tell = (message: AgentsMessage) => process.send?.(message);
const operator = httpCaller(url, { authorization: `Bearer ${key}` });
/** A long poll holds its connection, so there is one an agent. */
const polls = httpCaller(url, {}, Number.POSITIVE_INFINITY);
let handled = 0;
let failed = 0;
const resultOf = ({ input }: Assignment["task"]) => ({ ok: true, n: input.n });

/** A server that has as much to do as it can hold says so, and is asked again, as the SDK does. */
async function register(index: number, delivery?: object): Promise<{ agent: { id: string }; token: string }> {
  const capabilities = [{ name: kind }];
  const body = { name: `${kind}-${index}`, capabilities, ...(delivery ? { delivery } : {}) };
  for (;;) {
    try {
      return await operator.call("POST", "/v1/agents", body);
    } catch (error) {
      if ((error as { status?: number }).status !== 429) throw error;
      await sleep(500 + Math.random() * 1000);
    }
  }
}

/** Asks, does what comes, tells, asks again. A poll that failed is repeated after a second. */
async function askForEver(id: string, token: string): Promise<never> {
  const as = { authorization: `Bearer ${token}` };
  for (;;) {
    try {
      const { assignments } = await polls.call<{ assignments: Assignment[] }>(
        "POST",
        `/v1/agents/${id}/lease`,
        { waitSeconds: 20 },
        as,
      );
      for (const { task, fence } of assignments) {
        await polls.call("POST", `/v1/tasks/${task.id}/complete`, { fence, result: resultOf(task) }, as);
        handled++;
      }
    } catch (error) {
      failed++;
      process.stderr.write(`${error instanceof Error ? error.message : error}\n`);
      await sleep(1000);
    }
  }
}

async function pollers(): Promise<void> {
  await inLanes(agents, 16, async (index) => {
    const { agent, token } = await register(index);
    void askForEver(agent.id, token);
  });
}

/** Answers each call with the result. It checks no signature: that is the receiver's cost, not the server's. */
async function receivers(): Promise<void> {
  const port = await freePort();
  const server = createServer((request, response) => {
    let body = "";
    request.setEncoding("utf8");
    request.on("data", (chunk: string) => {
      body += chunk;
    });
    request.on("end", () => {
      const { type, data } = JSON.parse(body) as { type: string; data: Assignment };
      if (type !== "task.assigned") return response.writeHead(204).end();
      handled++;
      response.writeHead(200, { "content-type": "application/json" });
      return response.end(JSON.stringify({ result: resultOf(data.task) }));
    });
  }).listen(port, "127.0.0.1");
  server.keepAliveTimeout = 60_000;
  await inLanes(agents, 16, (index) => register(index, { type: "webhook", url: `http://127.0.0.1:${port}/${index}` }));
}

await (kind === "poll" ? pollers() : receivers());
let told = 0;
setInterval(() => {
  if (told !== handled + failed) tell({ handled, failed });
  told = handled + failed;
}, 5);
process.on("disconnect", () => process.exit(0));
tell({ ready: true });
