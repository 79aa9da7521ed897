import { CreateFunctionCommand, LambdaClient } from "@aws-sdk/client-lambda";
import { CreateQueueCommand, ReceiveMessageCommand, SQSClient } from "@aws-sdk/client-sqs";
import type { Agent, WebhookMessage } from "@waggle/sdk";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Api, apiOf, openServer, remote, type TestServer, unique } from "../../../test/support/api.ts";
import { emulators, emulatorsLack } from "../../../test/support/emulator.ts";
import { eventually } from "../../../test/support/eventually.ts";
import { zipOf } from "./zip.ts";

const lack = emulatorsLack.ministack();
if (lack !== undefined && process.env.CI) throw new Error(lack);
if (lack !== undefined) console.warn(`skipped: ${lack}`);

const region = "us-east-1";
const credentials = { accessKeyId: "test", secretAccessKey: "test" };
const requires = [{ capability: "x" }];

// The server under test is ours, so that its AWS can be the emulator.
describe.skipIf(lack !== undefined || remote)("on an emulator of AWS", () => {
  let server: TestServer;
  let api: Api;
  let lambda: LambdaClient;
  let sqs: SQSClient;
  beforeAll(async () => {
    const { endpoint } = await emulators.ministack();
    lambda = new LambdaClient({ endpoint, region, credentials });
    sqs = new SQSClient({ endpoint, region, credentials });
    server = await openServer({
      env: {
        AWS_ENDPOINT_URL: endpoint,
        AWS_REGION: region,
        AWS_ACCESS_KEY_ID: credentials.accessKeyId,
        AWS_SECRET_ACCESS_KEY: credentials.secretAccessKey,
        WAGGLE_LAMBDA_SECONDS: "10",
      },
    });
  }, 120_000);
  beforeEach(async () => {
    api = await server.tenant();
  });
  afterAll(() => server?.stop());

  async function register(delivery: object) {
    const content = { name: unique("aws"), capabilities: [{ name: "x" }], delivery };
    const answer = await api.post<{ agent: Agent; token: string }>("/v1/agents", content);
    expect(answer.status, answer.text).toBe(201);
    return { id: answer.body.agent.id, token: answer.body.token };
  }
  /** A function whose body is `code`; `event` is what it is given. */
  async function functionOf(code: string) {
    const made = await lambda.send(
      new CreateFunctionCommand({
        FunctionName: unique("worker"),
        Runtime: "nodejs20.x",
        Role: "arn:aws:iam::000000000000:role/worker",
        Handler: "index.handler",
        Timeout: 5,
        Code: { ZipFile: zipOf("index.mjs", `export const handler = async (event) => {\n${code}\n};\n`) },
      }),
    );
    return register({ type: "lambda", functionArn: made.FunctionArn });
  }

  test("a function's result is the task's", async () => {
    await functionOf("return { result: { type: event.type, doubled: event.data.task.input.n * 2 } };");
    const { id } = await api.delegate({ requires, input: { n: 21 } });
    expect((await api.taskWhen(id, "completed", 20)).result).toEqual({ type: "task.assigned", doubled: 42 });
  });

  test("a function that throws has failed the attempt, with its message", async () => {
    await functionOf(`throw new TypeError("no such page");`);
    const { id } = await api.delegate({ requires, retry: { maxAttempts: 1 } });
    const { error } = await api.taskWhen(id, "failed", 20);
    expect(error).toMatchObject({
      code: "agent.function_error",
      message: expect.stringContaining("no such page"),
    });
  });

  test("a function may accept, and its work end by a call of its own", async () => {
    const { token } = await functionOf("return { accepted: true };");
    const { id } = await api.delegate({ requires });
    await api.taskWhen(id, "running", 20);
    const own = apiOf(api.url, token);
    expect((await own.post(`/v1/tasks/${id}/complete`, { fence: 1, result: "later" })).status).toBe(200);
    expect((await api.task(id)).result).toBe("later");
  });

  test("a function that is not there is tried again, and then the attempt has failed", async () => {
    const functionArn = `arn:aws:lambda:${region}:000000000000:function:gone`;
    const { id: agentId } = await register({ type: "lambda", functionArn });
    const { id } = await api.delegate({ requires });
    const { deliveryFailures } = await eventually("two tries failed", async () => {
      const agent = await api.agent(agentId);
      return (agent.deliveryFailures?.count ?? 0) >= 2 && agent;
    });
    expect(deliveryFailures?.lastError).toMatch(/ResourceNotFound/);
    expect((await api.task(id)).status).toBe("assigned");
  });

  test("a queue is sent the task, and whoever reads it completes it", async () => {
    const { QueueUrl } = await sqs.send(new CreateQueueCommand({ QueueName: unique("work") }));
    const { token } = await register({ type: "queue", queueUrl: QueueUrl });
    const { id } = await api.delegate({ requires, input: "for the queue" });
    await api.taskWhen(id, "running");
    const { Messages = [] } = await sqs.send(new ReceiveMessageCommand({ QueueUrl, WaitTimeSeconds: 5 }));
    expect(Messages.length).toBe(1);
    const message = JSON.parse(Messages[0]?.Body ?? "") as Extract<WebhookMessage, { type: "task.assigned" }>;
    expect(message).toMatchObject({ type: "task.assigned", data: { fence: 1, task: { id, input: "for the queue" } } });
    const path = message.data.callbacks.complete.slice(api.url.length);
    expect((await apiOf(api.url, token).post(path, { fence: message.data.fence, result: "done" })).status).toBe(200);
    expect((await api.task(id)).result).toBe("done");
  });
});
