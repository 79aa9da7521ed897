import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Key } from "@waggle/core";
import { type Aws, type AwsConfig, createAws, createResources, deleteResources } from "@waggle/engine-aws";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { root } from "../support/root.ts";

/*
 * The bundles that are deployed, as functions of LocalStack, driven by its own event source mappings.
 * `npm run test:localstack` says where it is, and whether its functions are processes of this machine.
 */
const endpoint = process.env.WAGGLE_FUNCTIONS_ENDPOINT;
const account = "000000000000";
const region = "us-east-1";

async function ask<Body>(
  service: string,
  method: string,
  path: string,
  body?: unknown,
  target?: string,
): Promise<Body> {
  const answer = await fetch(`${endpoint}${path}`, {
    method,
    headers: {
      "content-type": target === undefined ? "application/json" : "application/x-amz-json-1.0",
      // LocalStack reads from it which service is meant, and checks nothing.
      authorization: `AWS4-HMAC-SHA256 Credential=test/20250101/${region}/${service}/aws4_request, SignedHeaders=host, Signature=0`,
      ...(target !== undefined && { "x-amz-target": target }),
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${path} ${target ?? ""}: ${answer.status} ${text}`);
  return JSON.parse(text) as Body;
}

const functionsPath = "/2015-03-31/functions";
const until = { timeout: 40_000, interval: 100 };

describe.skipIf(!endpoint)("the functions that are deployed, on LocalStack", () => {
  const bundles = mkdtempSync(join(tmpdir(), "waggle-functions-"));
  let config: AwsConfig;
  let aws: Aws;
  let key: string;
  const mappings: string[] = [];
  const made: string[] = [];

  async function create(name: string): Promise<string> {
    const FunctionName = `${config.table}-${name}`;
    const Variables = {
      WAGGLE_TABLE: config.table,
      WAGGLE_BUS: config.bus,
      WAGGLE_BUCKET: config.bucket,
      ...Object.fromEntries(
        Object.entries(config.queues).map(([queue, url]) => [`WAGGLE_QUEUE_${queue.toUpperCase()}`, url]),
      ),
      ...Object.fromEntries(
        Object.entries(config.deadLetters).map(([queue, url]) => [`WAGGLE_DLQ_${queue.toUpperCase()}`, url]),
      ),
    };
    await ask("lambda", "POST", functionsPath, {
      FunctionName,
      Runtime: "nodejs20.x",
      Handler: "bundle.handler",
      Role: `arn:aws:iam::${account}:role/waggle`,
      Timeout: 10,
      // The folder itself, without an archive.
      Code: { S3Bucket: "hot-reload", S3Key: join(bundles, name) },
      Environment: { Variables },
    });
    made.push(FunctionName);
    await vi.waitFor(async () => {
      type Found = { Configuration: { State: string } };
      const found = await ask<Found>("lambda", "GET", `${functionsPath}/${FunctionName}`);
      if (found.Configuration.State !== "Active") throw new Error(found.Configuration.State);
    }, until);
    return FunctionName;
  }

  async function map(FunctionName: string, EventSourceArn: string, more: object): Promise<void> {
    const path = "/2015-03-31/event-source-mappings";
    const { UUID } = await ask<{ UUID: string }>("lambda", "POST", path, { FunctionName, EventSourceArn, ...more });
    mappings.push(UUID);
  }

  async function call<Body>(method: string, path: string, token: string, content?: unknown): Promise<Body> {
    const [rawPath, rawQueryString = ""] = path.split("?");
    const answer = await ask<{ statusCode: number; body: string }>(
      "lambda",
      "POST",
      `${functionsPath}/${config.table}-api/invocations`,
      {
        rawPath,
        rawQueryString,
        headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
        ...(content !== undefined && { body: JSON.stringify(content) }),
        isBase64Encoded: false,
        requestContext: { domainName: "api.example", http: { method, sourceIp: "192.0.2.1" } },
      },
    );
    const text = Buffer.from(answer.body, "base64").toString();
    if (answer.statusCode >= 300) throw new Error(`${method} ${path}: ${answer.statusCode} ${text}`);
    return JSON.parse(text) as Body;
  }

  beforeAll(async () => {
    process.env.AWS_ACCESS_KEY_ID ??= "test";
    process.env.AWS_SECRET_ACCESS_KEY ??= "test";
    const { status, stderr } = spawnSync(process.execPath, [join(root, "functions/build.mjs"), bundles], {
      encoding: "utf8",
    });
    if (status !== 0) throw new Error(stderr);
    config = await createResources({
      prefix: `functions-${process.pid}`,
      endpoint: endpoint as string,
      queues: { visibilitySeconds: 10, maxReceives: 2 },
    });
    aws = createAws(config);
    key = await Key.bootstrap(aws.ports);
    await create("api");
    for (const name of ["dispatch", "timers"])
      await map(await create(name), `arn:aws:sqs:${region}:${account}:${config.table}-${name}`, {
        BatchSize: 10,
        FunctionResponseTypes: ["ReportBatchItemFailures"],
      });
    const { Table } = await ask<{ Table: { LatestStreamArn: string } }>(
      "dynamodb",
      "POST",
      "/",
      { TableName: config.table },
      "DynamoDB_20120810.DescribeTable",
    );
    await map(await create("outbox"), Table.LatestStreamArn, {
      BatchSize: 100,
      StartingPosition: "TRIM_HORIZON",
      FunctionResponseTypes: ["ReportBatchItemFailures"],
    });
  }, 90_000);

  afterAll(async () => {
    for (const each of mappings) await ask("lambda", "DELETE", `/2015-03-31/event-source-mappings/${each}`);
    for (const each of made) await ask("lambda", "DELETE", `${functionsPath}/${each}`).catch(() => {});
    await aws?.close();
    if (config !== undefined) await deleteResources(config);
    rmSync(bundles, { recursive: true, force: true });
  });

  test("take a task, give it to its agent and end it; the stream's function lists it", async () => {
    const { agent, token } = await call<{ agent: { id: string }; token: string }>("POST", "/v1/agents", key, {
      name: "echo",
      capabilities: [{ name: "echo" }],
    });
    const { task } = await call<{ task: { id: string } }>("POST", "/v1/tasks", key, {
      type: "greet",
      requires: [{ capability: "echo" }],
      input: { hello: "bees" },
    });
    type Leased = { assignments: { fence: number }[] };
    let leased: Leased["assignments"] = [];
    await expect
      .poll(async () => {
        const found = await call<Leased>("POST", `/v1/agents/${agent.id}/lease`, token, {
          max: 1,
          waitSeconds: 1,
        });
        leased = found.assignments;
        return leased.length;
      }, until)
      .toBe(1);
    const { fence } = leased[0] as Leased["assignments"][number];
    await call("POST", `/v1/tasks/${task.id}/complete`, token, { fence, result: { done: true } });
    const ended = await call<{ task: object }>("GET", `/v1/tasks/${task.id}`, key);
    expect(ended.task).toMatchObject({ status: "completed" });
    await expect
      .poll(async () => (await call<{ items: object[] }>("GET", "/v1/tasks?type=greet", key)).items, until)
      .toMatchObject([{ id: task.id, status: "completed" }]);
  });

  test("put a message that nobody can read among the dead letters", async () => {
    await aws.ports.queues.dispatch.send([{ body: "no order" }]);
    await expect.poll(async () => (await aws.ports.queues.dispatch.depth()).dead, until).toBe(1);
  });
});
