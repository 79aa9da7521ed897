import { PutRuleCommand, PutTargetsCommand } from "@aws-sdk/client-eventbridge";
import { createAgent, type Task } from "@waggle/sdk";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Api, apiOf } from "../support/api.ts";
import { eventually } from "../support/eventually.ts";
import { type Deployment, lack, openDeployment } from "./deploy.ts";
import type { Passage } from "./front.ts";

describe.skipIf(lack !== undefined)("what a deployment consists of", () => {
  let deployment: Deployment;
  let api: Api;
  let passage: Passage = () => "given";
  beforeAll(async () => {
    deployment = await openDeployment({ visibilitySeconds: 1, passage: (text) => passage(text) });
    api = apiOf(deployment.url, deployment.key);
  }, 60_000);
  afterAll(() => deployment?.stop());

  test("takes the admin's key it was given the hash of, and no other", async () => {
    expect((await api.get("/v1/keys")).status).toBe(200);
    expect((await api.as("wgk_000000000000000000000000000").get("/v1/keys")).status).toBe(401);
  });

  test("gives work to an agent over the WebSocket API, which the API sends it to", async () => {
    const { url, key, functions } = deployment;
    const handlers = { add: async (task: { input?: unknown }) => (task.input as number[]).reduce((a, b) => a + b, 0) };
    const agent = createAgent({ url, key, name: "adder", capabilities: ["add"], transport: "socket", handlers });
    await agent.start();
    const { id } = await api.delegate({ type: "add", input: [1, 2, 3], requires: [{ capability: "add" }] });
    expect(await api.taskWhen(id, "completed")).toMatchObject({ result: 6, attempt: 1 });
    expect(functions.socket.counts.invocations).toBeGreaterThan(2);
    await agent.stop({ graceSeconds: 0 });
  });

  test("takes results that no frame and no message of the gateway can hold", async () => {
    const { url, key } = deployment;
    const agent = createAgent({
      url,
      key,
      name: "author",
      capabilities: ["write"],
      transport: "socket",
      concurrency: 8,
      handlers: {
        "*": async (task, { progress }) => {
          progress({ percent: 50 }, { draft: "d".repeat(150_000) });
          return "\u00fc".repeat((task.input as number) / 2);
        },
      },
    });
    await agent.start();
    const requires = [{ capability: "write" }];
    // One below a frame, one of several frames, some that fit one by one only, and some larger than any message.
    const sizes = [1_000, 60_000, 90_000, 90_000, 200_000, 600_000];
    const ids = await Promise.all(sizes.map(async (input) => (await api.delegate({ requires, input })).id));
    for (const [at, id] of ids.entries()) {
      const { result } = await api.taskWhen(id, "completed");
      expect(Buffer.byteLength(result as string)).toBe(sizes[at]);
    }
    expect(agent.state).toBe("running");
    await agent.stop({ graceSeconds: 0 });
  });

  test("connects anew when its hello is lost on its way", async () => {
    const { url, key } = deployment;
    const capability = "hello";
    let hellos = 0;
    passage = (text) => (text.includes('"hello"') && ++hellos === 1 ? "failed" : "given");
    const handlers = { "*": () => "well" };
    const agent = createAgent({
      url,
      key,
      name: capability,
      capabilities: [capability],
      handlers,
      transport: "socket",
    });
    await agent.start();
    passage = () => "given";
    const { id } = await api.delegate({ requires: [{ capability }] });
    expect(await api.taskWhen(id, "completed")).toMatchObject({ result: "well" });
    expect(hellos).toBe(2);
    await agent.stop({ graceSeconds: 0 });
  });

  test.each(["failed", "lost"] as const)(
    "records an outcome once though its frame is %s, while the connection lives",
    async (how) => {
      const { url, key } = deployment;
      const capability = `once-${how}`;
      let runs = 0;
      let frames = 0;
      const handlers = { "*": () => ++runs };
      const options = { url, key, name: capability, capabilities: [capability], handlers, leaseSeconds: 5 };
      const agent = createAgent({ ...options, transport: "socket" });
      await agent.start();
      passage = (text) => (text.includes('"complete"') && ++frames === 1 ? how : "given");
      const { id } = await api.delegate({ requires: [{ capability }] });
      expect(await api.taskWhen(id, "completed")).toMatchObject({ result: 1, attempt: 1, fence: 1 });
      expect({ runs, frames }).toEqual({ runs: 1, frames: 2 });
      await agent.stop({ graceSeconds: 0 });
    },
  );

  test("makes a task of an event that a rule sends to the intake queue, be it of its own bus", async () => {
    const { bus, queues, clients } = deployment;
    // A tenant of its own: whether somebody subscribes is looked at again after seconds only.
    const made = await api.post<{ key: string }>("/v1/keys", { role: "admin", tenant: "events" });
    const own = api.as(made.body.key);
    await own.post("/v1/keys", { role: "client" });
    const keys = await own.get<{ items: { id: string; role: string }[] }>("/v1/keys");
    const key = keys.body.items.find(({ role }) => role === "client")?.id;
    expect(key).toEqual(expect.any(String));
    expect((await own.call("PUT", "/v1/subscriptions", { types: ["task.completed"] })).status).toBe(200);
    const pattern = { "detail-type": ["task.completed"] };
    const rule = { Name: "reports", EventBusName: bus };
    await clients.events.send(new PutRuleCommand({ ...rule, EventPattern: JSON.stringify(pattern) }));
    const InputTransformer = {
      InputPathsMap: { id: "$.id", detail: "$.detail" },
      InputTemplate: `{"tenant":"events","key":"${key}","id":<id>,"task":{"type":"second","input":<detail>}}`,
    };
    const Targets = [{ Id: "waggle", Arn: queues.intake.arn, InputTransformer }];
    await clients.events.send(new PutTargetsCommand({ Rule: rule.Name, EventBusName: bus, Targets }));

    const agent = await own.register();
    const { id } = await own.delegate({ type: "first", agentId: agent.id });
    await agent.complete(await agent.take());
    const second = await eventually("the event's task is there", async () => {
      const { body } = await own.get<{ items: Task[] }>("/v1/tasks?type=second");
      return body.items[0];
    });
    expect((await own.task(second.id)).input).toMatchObject({ taskId: id });
  });
});
