import { afterAll, beforeAll, expect, test } from "vitest";
import { type Api, openServer, type TestServer, unique } from "../support/api.ts";
import { eventually } from "../support/eventually.ts";
import { connect } from "../support/socket.ts";

/* What goes on by a key or token that is revoked meanwhile ends then, and not when it is next looked at. */

let server: TestServer;
let admin: Api;
beforeAll(async () => {
  server = await openServer();
  admin = await server.tenant();
});
afterAll(() => server?.stop());

/** Less than the 15 s and 20 s after which streams and long polls would have ended anyway. */
const promptly = { seconds: 8 };

async function makeKey(role: string): Promise<{ api: Api; revoke(): Promise<void> }> {
  const { body } = await admin.post<{ id: string; key: string }>("/v1/keys", { role });
  return {
    api: admin.as(body.key),
    async revoke() {
      expect((await admin.call("DELETE", `/v1/keys/${body.id}`)).status).toBe(204);
    },
  };
}

/** An event stream, and what of it came. */
async function follow(api: Api, path: string): Promise<{ text(): string; over(): boolean }> {
  const response = await fetch(api.url + path, {
    headers: { authorization: `Bearer ${api.key}`, accept: "text/event-stream" },
  });
  expect(response.status).toBe(200);
  let text = "";
  let over = false;
  const read = async () => {
    for await (const chunk of response.body as ReadableStream<Uint8Array>) text += Buffer.from(chunk).toString();
  };
  void read().finally(() => {
    over = true;
  });
  return { text: () => text, over: () => over };
}

test("an event stream ends when its key is revoked, and shows nothing that came after", async () => {
  const { api, revoke } = await makeKey("reader");
  const stream = await follow(api, "/v1/events?types=task.*");
  const before = await admin.delegate({ delaySeconds: 600 });
  await eventually("the stream is live", () => stream.text().includes(before.id), promptly);
  await revoke();
  const after = await admin.delegate({ delaySeconds: 600 });
  await eventually("the stream has ended", stream.over, promptly);
  expect(stream.text()).not.toContain(after.id);
});

test("an agent's event stream ends when the agent is removed", async () => {
  const agent = await admin.register({ capabilities: [{ name: unique("c") }] });
  const task = await admin.delegate({ agentId: agent.id });
  await agent.take();
  const stream = await follow(agent.api, `/v1/tasks/${task.id}/events`);
  await eventually("the stream is live", () => stream.text().includes("task.assigned"), promptly);
  await admin.call("DELETE", `/v1/agents/${agent.id}?mode=force`);
  await eventually("the stream has ended", stream.over, promptly);
});

test("a wait for a task is answered 401 when its key is revoked", async () => {
  const { api, revoke } = await makeKey("reader");
  const task = await admin.delegate({ delaySeconds: 600 });
  const began = performance.now();
  const waiting = api.get(`/v1/tasks/${task.id}?waitSeconds=20`);
  await api.get("/v1/status");
  await revoke();
  const { status, body } = await waiting;
  expect([status, body.code]).toEqual([401, "auth.required"]);
  expect(performance.now() - began).toBeLessThan(promptly.seconds * 1000);
});

test("an agent that waits for work with a token that is replaced is answered 401, and the work goes to its successor", async () => {
  const name = unique("replaced");
  const capability = unique("c");
  const offer = { name, capabilities: [{ name: capability }] };
  const old = await admin.register(offer);
  const waiting = old.api.post(`/v1/agents/${old.id}/lease`, { waitSeconds: 20 });
  await old.heartbeat();
  const next = await admin.register({ ...offer, onConflict: "replace" });
  const task = await admin.delegate({ requires: [{ capability }] });
  const { status, body } = await waiting;
  expect([status, body.code]).toEqual([401, "auth.required"]);
  expect((await next.take()).task.id).toBe(task.id);
});

test("a socket is closed when its agent has finished what it was removed after, or is replaced", async () => {
  const name = unique("leaving");
  const agent = await admin.register({ name });
  const socket = await connect(agent);
  const task = await admin.delegate({ agentId: agent.id });
  const { fence } = await socket.take();
  await admin.call("DELETE", `/v1/agents/${agent.id}?graceSeconds=600`);
  expect((await socket.ask({ op: "complete", taskId: task.id, fence })).ok).toBe(true);
  expect([1000, 1008]).toContain(await socket.closed);

  const next = await admin.register({ name });
  const again = await connect(next);
  await admin.register({ name, onConflict: "replace" });
  expect([1000, 1008]).toContain(await again.closed);
});

test("wrong keys are refused with 429 and Retry-After, while good ones from the same address pass", async () => {
  const wrong = admin.as(`wgk_${"x".repeat(27)}`);
  const refused = await eventually("wrong keys are too many", async () => {
    const answers = await Promise.all(Array.from({ length: 30 }, () => wrong.get("/v1/tasks")));
    return answers.find(({ status }) => status === 429);
  });
  expect(refused.body.code).toBe("request.rate_limited");
  expect(Number(refused.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
  expect((await admin.get("/v1/tasks")).status).toBe(200);
  const agent = await admin.register();
  expect((await agent.heartbeat()).status).toBe(200);
  await (await connect(agent)).close();
});
