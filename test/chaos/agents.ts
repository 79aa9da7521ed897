import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { createAgent, createClient, verifyWebhook } from "@waggle/sdk";
import { type Input, kinds, resultOf } from "./plan.ts";

/* One process with one agent, to be killed. */
const [, , url = "", key = "", name = "", how = "", port = ""] = process.argv;

const leaseSeconds = 3;
const concurrency = 8;
const secret = `whsec_${Buffer.from("the same in every life of it").toString("base64")}`;

async function work(input: Input, attempt: number, signal?: AbortSignal): Promise<unknown> {
  await sleep(input.busyMs, undefined, { ...(signal && { signal }) });
  const { error } = kinds.find((kind) => kind.name === input.kind) ?? {};
  if (error !== undefined) throw Object.assign(new Error("meant to fail"), { code: error, retryable: false });
  if (input.kind === "flaky" && attempt === 1) throw Object.assign(new Error("not yet"), { code: "flaky" });
  return resultOf(input);
}

async function connected(transport: "socket" | "poll"): Promise<void> {
  const agent = createAgent({
    url,
    key,
    name,
    transport,
    capabilities: transport === "socket" ? ["chaos", "bulk", "narrow"] : ["chaos", "bulk"],
    concurrency,
    leaseSeconds,
    handlers: {
      "*": async (task, { attempt, signal, progress }) => {
        const input = task.input as Input;
        if (input.busyMs > 200) progress({ percent: 50 }, { attempt });
        return work(input, attempt, signal);
      },
    },
  });
  await agent.start();
}

/** Is called at an address of its own, and answers with the result. */
async function called(): Promise<void> {
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const answer = (status: number, body: unknown) =>
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
    // The server's clock may be stepped by more than a real one.
    const options = { toleranceSeconds: 3600 };
    try {
      const message = await verifyWebhook(secret, request.headers, Buffer.concat(chunks).toString(), options);
      if (message.type === "task.cancelled") return answer(200, {});
      const { task, attempt } = message.data;
      try {
        answer(200, { result: await work(task.input as Input, attempt) });
      } catch (error) {
        const { code, message, retryable } = error as { code: string; message: string; retryable?: boolean };
        answer(200, { error: { code, message, retryable } });
      }
    } catch (error) {
      answer(401, { why: String(error) });
    }
  });
  server.listen(Number(port), "127.0.0.1");
  const client = createClient({ url, key, retrySeconds: 100, timeoutSeconds: 3 });
  await client.agents.register({
    name,
    onConflict: "replace",
    capabilities: [{ name: "chaos" }],
    maxConcurrency: concurrency,
    leaseSeconds,
    delivery: { type: "webhook", url: `http://127.0.0.1:${port}/work`, secret },
  });
}

await (how === "webhook" ? called() : connected(how as "socket" | "poll"));
process.send?.("ready");
process.on("disconnect", () => process.exit(0));
