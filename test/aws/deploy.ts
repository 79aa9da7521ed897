import { createHash, randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { CreateTableCommand, DynamoDBClient, UpdateTimeToLiveCommand } from "@aws-sdk/client-dynamodb";
import { DynamoDBStreamsClient } from "@aws-sdk/client-dynamodb-streams";
import { CreateEventBusCommand, EventBridgeClient } from "@aws-sdk/client-eventbridge";
import { CreateBucketCommand, S3Client } from "@aws-sdk/client-s3";
import { CreateQueueCommand, GetQueueAttributesCommand, SQSClient } from "@aws-sdk/client-sqs";
import {
  functions as entries,
  type FunctionEntry,
  type FunctionName,
  failures,
  type Knowledge,
  type QueueName,
  queues as queueEntries,
  table as tableEntry,
} from "../../infra/manifest.ts";
import { emulators, emulatorsLack } from "../support/emulator.ts";
import { launch } from "../support/process.ts";
import { root } from "../support/root.ts";
import { openGateway, openUrl, type Passage } from "./front.ts";
import { createLambda, type Lambda } from "./lambda.ts";
import { type Fate, type Mapping, mapQueue, mapStream } from "./mapping.ts";

/** What is not MiniStack's: told by whoever runs this. */
export const stoodIn =
  "stood in for by test/aws: Lambda's runtime with response streaming, function URL, WebSocket API, event source mappings, Scheduler; " +
  "table, stream, queues, bus and bucket are MiniStack's";

interface DeploymentOptions {
  readonly endpoint: string;
  /** Folder of the bundles. */
  readonly bundles: string;
  /** A message whose function died comes again after this, instead of the minutes a deployment waits. */
  readonly visibilitySeconds?: number;
  /** How often the schedules call, instead of each minute. 0: never by themselves. */
  readonly scheduleSeconds?: number;
  /** Each is given once unless it says otherwise. */
  readonly fate?: Fate;
  /** Each message of a connection is given unless it says otherwise. */
  readonly passage?: Passage;
  readonly environment?: Readonly<Record<string, string>>;
  readonly log?: (line: string) => void;
}

export interface Deployment {
  /** Of the API. */
  readonly url: string;
  /** The first admin's. */
  readonly key: string;
  readonly functions: Readonly<Record<FunctionName, Lambda>>;
  readonly queues: Readonly<Record<QueueName, { readonly url: string; readonly arn: string; readonly dead: string }>>;
  readonly bus: string;
  /** Folder of the bundles it runs. */
  readonly bundles: string;
  readonly clients: { readonly sqs: SQSClient; readonly events: EventBridgeClient };
  stop(): Promise<void>;
}

/** Bundles the functions as a deployment does. */
async function bundle(): Promise<string> {
  const folder = join(root, `.cache/aws-functions-${process.pid}`);
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
  const built = launch(process.execPath, ["functions/build.mjs", folder]);
  const code = await new Promise<number | null>((resolve) => built.child.once("close", resolve));
  if (code !== 0) throw new Error(`the functions cannot be bundled:\n${built.output()}`);
  return folder;
}

/** Why nothing can be deployed here; in CI that is a failure. */
export const lack = emulatorsLack.ministack();
if (lack !== undefined && process.env.CI === "true") throw new Error(lack);

/** A deployment on an emulator of this process's own. */
export async function openDeployment(options: Omit<DeploymentOptions, "endpoint" | "bundles">): Promise<Deployment> {
  const [{ endpoint }, bundles] = await Promise.all([
    emulators.ministack(),
    process.env.WAGGLE_AWS_BUNDLES ?? bundle(),
  ]);
  return await deploy({ ...options, endpoint, bundles });
}

/** Containers at a time here, where a deployment has up to hundreds. */
const containers: Readonly<Record<FunctionName, number>> = {
  api: 48,
  socket: 6,
  dispatch: 2,
  timers: 1,
  deliver: 2,
  intake: 1,
  outbox: 1,
  minute: 1,
  scaling: 1,
};

let deployments = 0;

/** Makes what `infra/manifest.ts` lists on an emulator, and runs the functions' bundles on it. */
async function deploy(options: DeploymentOptions): Promise<Deployment> {
  const {
    endpoint,
    bundles,
    visibilitySeconds = 12,
    scheduleSeconds = 30,
    fate = () => "given",
    passage = () => "given",
    log = () => {},
  } = options;
  const name = `waggle-${process.pid}-${++deployments}`;
  const credentials = { accessKeyId: "test", secretAccessKey: "test" };
  const common = { region: "us-east-1", endpoint, credentials };
  const dynamo = new DynamoDBClient(common);
  const streams = new DynamoDBStreamsClient(common);
  const sqs = new SQSClient(common);
  const events = new EventBridgeClient(common);
  const s3 = new S3Client({ ...common, forcePathStyle: true });

  async function queue(QueueName: string, Attributes: Record<string, string>) {
    const { QueueUrl: url = "" } = await sqs.send(new CreateQueueCommand({ QueueName, Attributes }));
    const found = await sqs.send(new GetQueueAttributesCommand({ QueueUrl: url, AttributeNames: ["QueueArn"] }));
    return { url, arn: found.Attributes?.QueueArn ?? "" };
  }
  const days = (count: number) => String(count * 86_400);
  const queues = {} as Record<QueueName, { url: string; arn: string; dead: string }>;
  for (const each of Object.keys(queueEntries) as QueueName[]) {
    const { maxReceives, retentionDays } = queueEntries[each];
    const dead = await queue(`${name}-${each}-dead`, { MessageRetentionPeriod: days(14) });
    const own = await queue(`${name}-${each}`, {
      VisibilityTimeout: String(visibilitySeconds),
      MessageRetentionPeriod: days(retentionDays),
      RedrivePolicy: JSON.stringify({ deadLetterTargetArn: dead.arn, maxReceiveCount: maxReceives }),
    });
    queues[each] = { ...own, dead: dead.url };
  }
  const failed = {} as Record<keyof typeof failures, string>;
  for (const each of Object.keys(failures) as (keyof typeof failures)[])
    failed[each] = (
      await queue(`${name}-${each}-failed`, { MessageRetentionPeriod: days(failures[each].retentionDays) })
    ).url;

  const { hashKey, rangeKey, ttl } = tableEntry;
  await dynamo.send(
    new CreateTableCommand({
      TableName: name,
      BillingMode: "PAY_PER_REQUEST",
      KeySchema: [
        { AttributeName: hashKey, KeyType: "HASH" },
        { AttributeName: rangeKey, KeyType: "RANGE" },
      ],
      AttributeDefinitions: [hashKey, rangeKey].map((AttributeName) => ({
        AttributeName,
        AttributeType: "S" as const,
      })),
      StreamSpecification: { StreamEnabled: true, StreamViewType: "NEW_AND_OLD_IMAGES" },
    }),
  );
  await dynamo.send(
    new UpdateTimeToLiveCommand({
      TableName: name,
      TimeToLiveSpecification: { Enabled: true, AttributeName: ttl },
    }),
  );
  await events.send(new CreateEventBusCommand({ Name: name }));
  await s3.send(new CreateBucketCommand({ Bucket: name }));

  const functions = {} as Record<FunctionName, Lambda>;
  const url = await openUrl(() => functions.api);
  const socket = await openGateway(() => functions.socket, passage);
  const key = `wgk_${randomBytes(20).toString("base64url")}`;
  const known: Record<Knowledge, Record<string, string>> = {
    adminKey: { WAGGLE_ADMIN_KEY_HASH: createHash("sha256").update(key).digest("base64url") },
    secretKey: { WAGGLE_SECRET_KEY: randomBytes(32).toString("base64url") },
    publicUrl: { WAGGLE_PUBLIC_URL: url.url },
    socketUrl: { WAGGLE_SOCKET_URL: socket.url },
    socketEndpoint: { WAGGLE_SOCKET_ENDPOINT: socket.endpoint },
  };
  const places: Record<string, string> = { WAGGLE_TABLE: name, WAGGLE_BUS: name, WAGGLE_BUCKET: name };
  for (const [each, { url, dead }] of Object.entries(queues)) {
    places[`WAGGLE_QUEUE_${each.toUpperCase()}`] = url;
    places[`WAGGLE_DLQ_${each.toUpperCase()}`] = dead;
  }
  // What Lambda itself puts there.
  const runtime = {
    AWS_REGION: "us-east-1",
    AWS_ACCESS_KEY_ID: "test",
    AWS_SECRET_ACCESS_KEY: "test",
    AWS_SESSION_TOKEN: "test",
    AWS_ENDPOINT_URL: endpoint,
  };
  const names = Object.keys(entries) as FunctionName[];
  for (const each of names) {
    const { knows, timeoutSeconds }: FunctionEntry = entries[each];
    functions[each] = createLambda({
      name: each,
      bundle: join(bundles, each, "bundle.mjs"),
      environment: Object.assign({}, runtime, places, ...knows.map((what) => known[what]), options.environment),
      timeoutSeconds,
      concurrency: containers[each],
      log,
    });
  }

  const mappings: Mapping[] = [];
  for (const each of names) {
    const { trigger }: FunctionEntry = entries[each];
    const lambda = functions[each];
    if (trigger.type === "queue") {
      const { url, arn } = queues[trigger.queue];
      mappings.push(mapQueue({ sqs, url, arn, trigger, lambda, concurrency: containers[each], fate }));
    }
    if (trigger.type === "stream") {
      const failureUrl = failed[trigger.failure];
      const everyMs = 150;
      mappings.push(mapStream({ dynamo, streams, sqs, table: name, failureUrl, trigger, lambda, fate, everyMs }));
    }
    if (trigger.type === "schedule" && scheduleSeconds > 0) mappings.push(every(scheduleSeconds, lambda));
  }

  return {
    url: url.url,
    key,
    functions,
    queues,
    bus: name,
    bundles,
    clients: { sqs, events },
    async stop() {
      const stopping = mappings.map((stop) => stop());
      await Promise.all([url.stop(), socket.stop(), ...Object.values(functions).map((each) => each.stop())]);
      await Promise.all(stopping);
      for (const client of [dynamo, streams, sqs, events, s3]) client.destroy();
    },
  };
}

/** A schedule of Scheduler, whose calls do not overlap here. */
function every(seconds: number, lambda: Lambda): Mapping {
  let end = () => {};
  let stopped = false;
  const running = (async () => {
    while (!stopped) {
      await lambda.invoke({}).catch(() => {});
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, seconds * 1000);
        end = () => {
          clearTimeout(timer);
          resolve();
        };
        if (stopped) end();
      });
    }
  })();
  return async () => {
    stopped = true;
    end();
    await running;
  };
}
