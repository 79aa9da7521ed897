import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Agent } from "@waggle/sdk";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Api, apiOf, openServer, remote, type TestServer, unique } from "../support/api.ts";
import { eventually } from "../support/eventually.ts";
import { openReceiver, type Receiver } from "../support/receiver.ts";

const requires = [{ capability: "x" }];
/** A server elsewhere cannot call this machine, unless whoever runs it says so. */
const unreachable = remote && process.env.WAGGLE_CALLS_LOOPBACK !== "1";

let receiver: Receiver;
beforeEach(async () => {
  receiver = await openReceiver();
});
afterEach(() => receiver.down());

/** An agent behind the receiver. */
async function hook(api: Api, more: object = {}) {
  const answer = await api.post<{ agent: Agent; token: string; secret: string }>("/v1/agents", {
    name: unique("hook"),
    capabilities: [{ name: "x" }],
    delivery: { type: "webhook", url: receiver.url },
    ...more,
  });
  expect(answer.status, answer.text).toBe(201);
  const { agent, token, secret } = answer.body;
  receiver.secret = secret;
  return { id: agent.id, token, secret, api: apiOf(api.url, token) };
}
const result = (value: unknown) => ({ status: 200, body: { result: value } });

describe.skipIf(unreachable)("an agent with a webhook", () => {
  let server: TestServer;
  let api: Api;
  beforeAll(async () => {
    server = await openServer({ env: { WAGGLE_WEBHOOK_SECONDS: "1" } });
  });
  beforeEach(async () => {
    api = await server.tenant();
  });
  afterAll(() => server?.stop());

  test("answers with the result, and the task is completed", async () => {
    receiver.answer((message) =>
      message.type === "task.assigned" ? result({ echo: message.data.task.input }) : undefined,
    );
    const { id } = await hook(api);
    const task = await api.delegate({ requires, input: { hello: "bees" } });
    const done = await api.taskWhen(task.id, "completed");
    expect([done.result, done.agentId, done.attempt]).toEqual([{ echo: { hello: "bees" } }, id, 1]);
    expect(receiver.received.length).toBe(1);
    expect(await api.agent(id)).toMatchObject({ status: "ready", running: 0, stats: { completed: 1 } });
  });

  test("is given a large input whole", async () => {
    receiver.answer((message) =>
      message.type === "task.assigned" ? result((message.data.task.input as string).length) : undefined,
    );
    await hook(api);
    const { id } = await api.delegate({ requires, input: "x".repeat(300_000) });
    expect((await api.taskWhen(id, "completed")).result).toBe(300_000);
  });

  test("accepts, says how far it is, and completes by the addresses it was given", async () => {
    const agent = await hook(api);
    const { id } = await api.delegate({ requires });
    await api.taskWhen(id, "running");
    const [{ callbacks, fence }] = receiver.assigned() as [ReturnType<Receiver["assigned"]>[0]];
    const call = (url: string, body: object) => agent.api.post(url.slice(api.url.length), { fence, ...body });
    expect((await call(callbacks.heartbeat, { progress: { percent: 50 } })).status).toBe(200);
    expect((await api.task(id)).progress).toEqual({ percent: 50 });
    expect((await call(callbacks.complete, { result: "done" })).status).toBe(200);
    expect(await api.task(id)).toMatchObject({ status: "completed", result: "done" });
    // A call that was made again is answered as the first was.
    expect((await call(callbacks.complete, { result: "done" })).status).toBe(200);
  });

  test("works through a backlog in its turn, each task once", async () => {
    receiver.answer((message) => (message.type === "task.assigned" ? result(message.data.task.input) : undefined));
    const tasks = await Promise.all(Array.from({ length: 60 }, (_, n) => api.delegate({ requires, input: n })));
    await hook(api, { maxConcurrency: 4 });
    for (const [n, { id }] of tasks.entries()) expect((await api.taskWhen(id, "completed", 20)).result).toBe(n);
    expect(receiver.received.length).toBe(60);
  });

  test("that is down gets its task when it is up, in the same attempt", async () => {
    receiver.answer(() => result("at last"));
    const { id: agentId } = await hook(api);
    await receiver.down();
    const { id } = await api.delegate({ requires });
    await eventually("a try has failed", async () => (await api.agent(agentId)).deliveryFailures?.count);
    expect((await api.agent(agentId)).deliveryFailures?.lastError).toMatch(/refused/);
    await receiver.up();
    expect(await api.taskWhen(id, "completed")).toMatchObject({ attempt: 1, result: "at last" });
    expect((await api.agent(agentId)).deliveryFailures).toBeUndefined();
  });

  test("that does not answer in time is called again with the same id, and one outcome counts", async () => {
    receiver.answer((_, nth) => (nth === 1 ? undefined : result("second")));
    await hook(api);
    const { id } = await api.delegate({ requires });
    const done = await api.taskWhen(id, "completed");
    expect([done.result, done.attempt, done.fence]).toEqual(["second", 1, 1]);
    const [first, second] = receiver.received;
    expect(second?.id).toBe(first?.id);
    expect(receiver.assigned().map(({ fence, attempt }) => [fence, attempt])).toEqual([
      [1, 1],
      [1, 1],
    ]);
  });

  test("is told of a cancel, may say how it ended, and is fenced off if it does not", async () => {
    const agent = await hook(api, { maxConcurrency: 2 });
    const [willing, deaf] = [await api.delegate({ requires }), await api.delegate({ requires, cancelGraceSeconds: 1 })];
    for (const { id } of [willing, deaf]) {
      await api.taskWhen(id, "running");
      await api.post(`/v1/tasks/${id}/cancel`, { reason: "no longer needed" });
    }
    const told = await eventually("both are told", () => {
      const found = receiver.received.flatMap(({ message }) =>
        message.type === "task.cancelled" ? [message.data] : [],
      );
      return found.length === 2 && found;
    });
    expect(told.map(({ taskId, fence, reason }) => [taskId, fence, reason]).sort()).toEqual(
      [willing, deaf].map(({ id }) => [id, 1, "no longer needed"]).sort(),
    );
    const ended = await agent.api.post(`/v1/tasks/${willing.id}/fail`, {
      fence: 1,
      error: { code: "stopped", message: "" },
    });
    expect(ended.status).toBe(200);
    expect((await api.task(willing.id)).status).toBe("cancelled");
    await api.taskWhen(deaf.id, "cancelled");
    const late = await agent.api.post<{ code: string }>(`/v1/tasks/${deaf.id}/complete`, { fence: 1 });
    expect([late.status, late.body.code]).toEqual([409, "task.lease_lost"]);
  });

  test("that does not prove itself to the receiver is refused there: another's secret is of no use", async () => {
    const { id } = await hook(api);
    receiver.secret = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    await api.delegate({ requires });
    const { deliveryFailures } = await eventually("it failed", async () => {
      const agent = await api.agent(id);
      return agent.deliveryFailures && agent;
    });
    expect(deliveryFailures?.lastError).toMatch(/401/);
    expect(receiver.received).toEqual([]);
  });

  test("has a secret that is shown once, and lies nowhere on the disk as it is", async () => {
    const { id, secret } = await hook(api);
    expect(secret).toMatch(/^whsec_/);
    const given = "whsec_c29tZXRoaW5nIHRoYXQgbm9ib2R5IGtub3dz";
    const delivery = { type: "webhook", url: receiver.url, secret: given };
    const other = await api.post<{ agent: Agent }>("/v1/agents", { name: unique("h"), capabilities: [], delivery });
    expect(other.status).toBe(201);
    const moved = await api.call("PATCH", `/v1/agents/${id}`, { delivery: { type: "webhook", url: receiver.url } });
    const paths = [`/v1/agents/${id}`, `/v1/agents/${other.body.agent.id}`, "/v1/agents", "/v1/events?limit=200"];
    const shown = [
      other.text,
      moved.text,
      ...(await Promise.all(paths.map(async (path) => (await api.get(path)).text))),
    ];
    for (const text of shown) for (const hidden of [secret, given]) expect(text).not.toContain(hidden);
    if (!server.server) return;
    const files = readdirSync(server.server.dataDir, { recursive: true, withFileTypes: true });
    const all = files.flatMap((file) => (file.isFile() ? [readFileSync(join(file.parentPath, file.name))] : []));
    expect(all.length).toBeGreaterThan(3);
    for (const bytes of all) for (const hidden of [secret, given]) expect(bytes.includes(hidden)).toBe(false);
    expect(server.server.process.output()).not.toContain(secret);
  });

  async function isRefused(_: string, url: string): Promise<void> {
    const body = { name: unique("h"), capabilities: [], delivery: { type: "webhook", url } };
    const answer = await api.post("/v1/agents", body);
    expect([answer.status, answer.body.errors?.[0]?.path]).toEqual([400, "delivery.url"]);
  }
  test.each([
    ["where clouds keep credentials", "http://169.254.169.254/latest/meta-data/"],
    ["the same, written otherwise", "http://2852039166/"],
  ])("is refused %s", isRefused);
  // A server elsewhere that calls this machine has been told to call private networks.
  test.skipIf(remote).each([
    ["a private network", "https://10.1.2.3/hook"],
    ["a public name in the clear", "http://example.com/hook"],
  ])("is refused in %s", isRefused);
});

// A server that somebody else runs cannot be killed from here, nor has it only the credentials we know of.
describe.skipIf(remote)("on a server that is killed", () => {
  let server: TestServer;
  beforeEach(async () => {
    server = await openServer({
      env: {
        AWS_EC2_METADATA_DISABLED: "true",
        AWS_SHARED_CREDENTIALS_FILE: "/dev/null",
        AWS_CONFIG_FILE: "/dev/null",
      },
    });
  });
  afterEach(() => server?.stop());

  test("what was assigned and not delivered is delivered after the start, once", async () => {
    const api = server.admin;
    receiver.answer(() => result("survived"));
    const { id: agentId } = await hook(api, { maxConcurrency: 3 });
    await receiver.down();
    const tasks = await Promise.all(Array.from({ length: 3 }, () => api.delegate({ requires })));
    for (const { id } of tasks) await api.taskWhen(id, "assigned");
    await server.server?.restart("SIGKILL");
    await receiver.up();
    for (const { id } of tasks) {
      const done = await api.taskWhen(id, "completed", 15);
      expect([done.result, done.attempt, done.fence]).toEqual(["survived", 1, 1]);
    }
    expect(await api.agent(agentId)).toMatchObject({ running: 0, freeSlots: 3 });
  });

  test("what was under way is delivered again with the same id, and its outcome recorded once", async () => {
    const api = server.admin;
    receiver.answer((_, nth) => (nth === 1 ? undefined : result(nth)));
    await hook(api);
    const { id } = await api.delegate({ requires });
    await receiver.count(1);
    await server.server?.restart("SIGKILL");
    expect(await api.taskWhen(id, "completed")).toMatchObject({ result: 2, attempt: 1, fence: 1 });
    expect(new Set(receiver.received.map(({ id }) => id)).size).toBe(1);
  });

  test.each([
    ["functionArn", { type: "lambda", functionArn: "arn:aws:lambda:eu-west-1:123456789012:function:worker" }],
    ["queueUrl", { type: "queue", queueUrl: "https://sqs.eu-west-1.amazonaws.com/123456789012/work" }],
  ])("without AWS credentials, an agent with a %s is refused and told what to set", async (field, delivery) => {
    const answer = await server.admin.post("/v1/agents", { name: unique("aws"), capabilities: [], delivery });
    expect([answer.status, answer.body.errors?.[0]?.path]).toEqual([400, `delivery.${field}`]);
    expect(answer.body.detail).toMatch(/AWS_PROFILE/);
  });
});
