import {
  CreateTableCommand,
  DeleteTableCommand,
  DescribeTableCommand,
  UpdateTimeToLiveCommand,
} from "@aws-sdk/client-dynamodb";
import { CreateEventBusCommand, DeleteEventBusCommand } from "@aws-sdk/client-eventbridge";
import { CreateBucketCommand, DeleteBucketCommand } from "@aws-sdk/client-s3";
import { CreateQueueCommand, DeleteQueueCommand, GetQueueAttributesCommand } from "@aws-sdk/client-sqs";
import { type QueueName, type QueueOptions, queueLimits } from "@waggle/core";
import { createClients } from "./clients.ts";
import { type AwsConfig, forQueues } from "./config.ts";

export interface ResourceOptions {
  /** Begins every name: letters, digits and `-`, lower case. */
  readonly prefix: string;
  readonly region?: string;
  readonly endpoint?: string;
  readonly storeEndpoint?: string;
  readonly socketEndpoint?: string;
  readonly queues?: Partial<QueueOptions>;
}

/** See `createResources`. */
export async function create(options: ResourceOptions): Promise<AwsConfig> {
  const { prefix, region = "us-east-1", endpoint, storeEndpoint, socketEndpoint } = options;
  const { maxReceives = 5, visibilitySeconds = 30 } = options.queues ?? {};
  const names: AwsConfig = {
    region,
    table: prefix,
    queues: forQueues((name) => name),
    deadLetters: forQueues((name) => name),
    bus: prefix,
    bucket: prefix,
    ...(endpoint !== undefined && { endpoint }),
    ...(storeEndpoint !== undefined && { storeEndpoint }),
    ...(socketEndpoint !== undefined && { socketEndpoint }),
  };
  const clients = createClients(names);
  const unless = (exists: RegExp) => (error: unknown) => {
    if (!exists.test((error as Error).name)) throw error;
  };

  async function table(): Promise<void> {
    await clients
      .dynamo()
      .send(
        new CreateTableCommand({
          TableName: prefix,
          BillingMode: "PAY_PER_REQUEST",
          KeySchema: [
            { AttributeName: "pk", KeyType: "HASH" },
            { AttributeName: "sk", KeyType: "RANGE" },
          ],
          AttributeDefinitions: [
            { AttributeName: "pk", AttributeType: "S" },
            { AttributeName: "sk", AttributeType: "S" },
          ],
          StreamSpecification: { StreamEnabled: true, StreamViewType: "NEW_AND_OLD_IMAGES" },
        }),
      )
      .catch(unless(/ResourceInUse/));
    for (;;) {
      const { Table } = await clients.dynamo().send(new DescribeTableCommand({ TableName: prefix }));
      if (Table?.TableStatus === "ACTIVE") break;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    await clients
      .dynamo()
      .send(
        new UpdateTimeToLiveCommand({
          TableName: prefix,
          TimeToLiveSpecification: { Enabled: true, AttributeName: "ttl" },
        }),
      )
      // It is on already.
      .catch(unless(/Validation/));
  }

  async function queue(name: QueueName): Promise<{ url: string; dead: string }> {
    const create = async (QueueName: string, Attributes: Record<string, string>) => {
      const { QueueUrl } = await (await clients.sqs()).send(new CreateQueueCommand({ QueueName, Attributes }));
      return QueueUrl as string;
    };
    const MaximumMessageSize = String(queueLimits.messageBytes);
    const dead = await create(`${prefix}-${name}-dead`, { MaximumMessageSize, MessageRetentionPeriod: "1209600" });
    const sqs = await clients.sqs();
    const { Attributes } = await sqs.send(
      new GetQueueAttributesCommand({ QueueUrl: dead, AttributeNames: ["QueueArn"] }),
    );
    const url = await create(`${prefix}-${name}`, {
      MaximumMessageSize,
      VisibilityTimeout: String(visibilitySeconds),
      RedrivePolicy: JSON.stringify({ deadLetterTargetArn: Attributes?.QueueArn, maxReceiveCount: maxReceives }),
    });
    return { url, dead };
  }

  async function bucket(): Promise<void> {
    await (await clients.s3())
      .send(new CreateBucketCommand({ Bucket: prefix }))
      .catch(unless(/BucketAlreadyOwnedByYou|BucketAlreadyExists/));
  }

  try {
    const [dispatch, timers, deliver, intake] = await Promise.all([
      queue("dispatch"),
      queue("timers"),
      queue("deliver"),
      queue("intake"),
      table(),
      clients
        .bus()
        .then((bus) => bus.send(new CreateEventBusCommand({ Name: prefix })))
        .catch(unless(/AlreadyExists/)),
      bucket(),
    ]);
    const made = { dispatch, timers, deliver, intake };
    return {
      ...names,
      queues: forQueues((name) => made[name].url),
      deadLetters: forQueues((name) => made[name].dead),
    };
  } finally {
    clients.destroy();
  }
}

/** See `deleteResources`. */
export async function remove(config: AwsConfig): Promise<void> {
  const clients = createClients(config);
  const urls = [...Object.values(config.queues), ...Object.values(config.deadLetters)];
  try {
    await Promise.all([
      clients.dynamo().send(new DeleteTableCommand({ TableName: config.table })),
      ...urls.map(async (QueueUrl) => (await clients.sqs()).send(new DeleteQueueCommand({ QueueUrl }))),
      clients.bus().then((bus) => bus.send(new DeleteEventBusCommand({ Name: config.bus }))),
      clients
        .s3()
        .then((s3) => s3.send(new DeleteBucketCommand({ Bucket: config.bucket })))
        .catch((error: unknown) => {
          if ((error as Error).name !== "BucketNotEmpty") throw error;
        }),
    ]);
  } finally {
    clients.destroy();
  }
}
