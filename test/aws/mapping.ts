import { DescribeTableCommand, type DynamoDBClient } from "@aws-sdk/client-dynamodb";
import {
  type _Record,
  DescribeStreamCommand,
  type DynamoDBStreamsClient,
  GetRecordsCommand,
  GetShardIteratorCommand,
} from "@aws-sdk/client-dynamodb-streams";
import {
  DeleteMessageBatchCommand,
  ReceiveMessageCommand,
  SendMessageCommand,
  type SQSClient,
} from "@aws-sdk/client-sqs";
import type { Trigger } from "../../infra/manifest.ts";
import type { Lambda } from "./lambda.ts";

/* Event source mappings, by the rules of AWS: https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventsourcemapping.html */

/** What becomes of a batch: given twice, as "at least once" allows; or lost, which no service does and a mistake may. */
export type Fate = (source: string) => "given" | "twice" | "lost";
export type Mapping = () => Promise<void>;

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

interface Failures {
  readonly batchItemFailures?: readonly { readonly itemIdentifier: string }[];
}

/** Gives a queue's messages to a function. What it does not name as failed is deleted; after a throw all come again in their time. */
export function mapQueue(options: {
  readonly sqs: SQSClient;
  readonly url: string;
  readonly arn: string;
  readonly trigger: Extract<Trigger, { type: "queue" }>;
  readonly lambda: Lambda;
  readonly concurrency: number;
  readonly fate: Fate;
}): Mapping {
  const { sqs, url, arn, trigger, lambda, fate } = options;
  let stopped = false;

  async function batch(): Promise<void> {
    const { Messages = [] } = await sqs.send(
      new ReceiveMessageCommand({
        QueueUrl: url,
        MaxNumberOfMessages: trigger.batch,
        WaitTimeSeconds: 1,
        MessageSystemAttributeNames: ["All"],
        MessageAttributeNames: ["All"],
      }),
    );
    if (Messages.length === 0) return;
    const event = {
      Records: Messages.map((each) => ({
        messageId: each.MessageId,
        receiptHandle: each.ReceiptHandle,
        body: each.Body,
        attributes: each.Attributes,
        messageAttributes: each.MessageAttributes ?? {},
        md5OfBody: each.MD5OfBody,
        eventSource: "aws:sqs",
        eventSourceARN: arn,
        awsRegion: "us-east-1",
      })),
    };
    const due = fate(trigger.queue);
    const again = due === "twice" ? lambda.invoke(event).catch(() => {}) : undefined;
    let answer: Failures | undefined;
    try {
      if (due !== "lost") answer = (await lambda.invoke(event)) as Failures | undefined;
    } catch {
      // They come again when their visibility time is over.
      return;
    } finally {
      await again;
    }
    const failed = new Set(answer?.batchItemFailures?.map((each) => each.itemIdentifier));
    const known = new Set(Messages.map((each) => each.MessageId));
    // An id that is none of the batch's fails it all.
    if ([...failed].some((id) => !known.has(id))) return;
    const Entries = Messages.filter((each) => !failed.has(each.MessageId as string)).map((each, i) => ({
      Id: String(i),
      ReceiptHandle: each.ReceiptHandle,
    }));
    if (Entries.length > 0) await sqs.send(new DeleteMessageBatchCommand({ QueueUrl: url, Entries }));
  }

  const lanes = Array.from({ length: options.concurrency }, async () => {
    while (!stopped) await batch().catch(() => pause(100));
  });
  return async () => {
    stopped = true;
    await Promise.all(lanes);
  };
}

/** What a filter of kinds lets through: by the row as it is, or as it was. */
const isOf = (kinds: readonly string[], { dynamodb: { NewImage, OldImage } = {} }: _Record): boolean =>
  kinds.includes(NewImage?.kind?.S ?? "") || kinds.includes(OldImage?.kind?.S ?? "");

/**
 * Gives a stream's records to a function: in order, one batch of a shard at a time. A batch that fails is halved and given
 * again; what fails to the last is told to the failure queue, and the shard goes on.
 */
export function mapStream(options: {
  readonly dynamo: DynamoDBClient;
  readonly streams: DynamoDBStreamsClient;
  readonly sqs: SQSClient;
  readonly table: string;
  readonly failureUrl: string;
  readonly trigger: Extract<Trigger, { type: "stream" }>;
  readonly lambda: Lambda;
  readonly fate: Fate;
  readonly everyMs: number;
}): Mapping {
  const { dynamo, streams, sqs, table, failureUrl, trigger, lambda, fate, everyMs } = options;
  let stopped = false;
  const shards = new Map<string, Promise<void>>();

  /** A record of the SDK as Lambda hands it on. */
  const toEvent = (records: readonly _Record[]) => ({
    Records: records.map((each) => ({
      ...each,
      dynamodb: {
        ...each.dynamodb,
        ApproximateCreationDateTime: Math.floor(Number(each.dynamodb?.ApproximateCreationDateTime ?? 0) / 1000),
      },
    })),
  });

  async function give(records: readonly _Record[], tries: number): Promise<void> {
    for (let tried = tries; ; tried++) {
      let rest: readonly _Record[] = records;
      try {
        const again = fate("stream") === "twice" ? lambda.invoke(toEvent(records)).catch(() => {}) : undefined;
        const answer = (await lambda.invoke(toEvent(records)).finally(() => again)) as Failures | undefined;
        const failed = answer?.batchItemFailures?.map((each) => each.itemIdentifier) ?? [];
        if (failed.length === 0) return;
        // From the first that failed on, all are given again.
        const at = records.findIndex((each) => failed.includes(each.dynamodb?.SequenceNumber ?? ""));
        rest = records.slice(Math.max(0, at));
      } catch {}
      if (stopped) return;
      const made = Number(records[0]?.dynamodb?.ApproximateCreationDateTime ?? Date.now());
      if (tried >= trigger.retries || Date.now() - made > trigger.maxAgeSeconds * 1000) {
        const MessageBody = JSON.stringify({ failed: records.map((each) => each.dynamodb?.SequenceNumber) });
        await sqs.send(new SendMessageCommand({ QueueUrl: failureUrl, MessageBody }));
        return;
      }
      await pause(Math.min(5_000, 50 * 2 ** tried));
      if (rest.length > 1) {
        const middle = Math.ceil(rest.length / 2);
        await give(rest.slice(0, middle), tried + 1);
        return await give(rest.slice(middle), tried + 1);
      }
      if (rest.length < records.length) return await give(rest, tried + 1);
    }
  }

  async function read(arn: string, shard: string): Promise<void> {
    const from = { StreamArn: arn, ShardId: shard };
    let after: string | undefined;
    const iterator = async () =>
      (
        await streams.send(
          new GetShardIteratorCommand({
            ...from,
            ...(after === undefined
              ? { ShardIteratorType: "TRIM_HORIZON" }
              : { ShardIteratorType: "AFTER_SEQUENCE_NUMBER", SequenceNumber: after }),
          }),
        )
      ).ShardIterator;
    let next: string | undefined = await iterator();
    while (!stopped && next !== undefined) {
      try {
        const { Records = [], NextShardIterator } = await streams.send(new GetRecordsCommand({ ShardIterator: next }));
        const ours = Records.filter((each) => isOf(trigger.kinds, each));
        for (let at = 0; at < ours.length; at += trigger.batch) await give(ours.slice(at, at + trigger.batch), 0);
        after = Records.at(-1)?.dynamodb?.SequenceNumber ?? after;
        next = NextShardIterator;
        if (Records.length === 0) await pause(everyMs);
      } catch {
        if (stopped) return;
        await pause(100);
        next = await iterator();
      }
    }
  }

  async function discover(): Promise<void> {
    const { Table } = await dynamo.send(new DescribeTableCommand({ TableName: table }));
    const arn = Table?.LatestStreamArn as string;
    while (!stopped) {
      const { StreamDescription } = await streams.send(new DescribeStreamCommand({ StreamArn: arn }));
      for (const { ShardId = "" } of StreamDescription?.Shards ?? [])
        if (!shards.has(ShardId)) shards.set(ShardId, read(arn, ShardId));
      await pause(500);
    }
  }

  const running = discover();
  return async () => {
    stopped = true;
    await running;
    await Promise.all(shards.values());
  };
}
