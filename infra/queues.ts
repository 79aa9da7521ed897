import { queues as entries, type FailureName, failures, type QueueEntry, type QueueName } from "./manifest.ts";
import { named, tags, titled } from "./stage.ts";

const messageBytes = 1024 * 1024;
const daySeconds = 86_400;
/** As long as SQS keeps a message: a dead letter counts its age from when the message was first sent. */
const deadLetterDays = 14;

function settings(name: string, retentionDays: number) {
  return (args: aws.sqs.QueueArgs): undefined => {
    args.name = named(name);
    args.maxMessageSize = messageBytes;
    args.messageRetentionSeconds = retentionDays * daySeconds;
    args.sqsManagedSseEnabled = true;
    args.tags = tags;
  };
}

const deadLetterQueue = (name: string, retentionDays: number) =>
  new sst.aws.Queue(titled(...name.split("-"), "queue"), { transform: { queue: settings(name, retentionDays) } });

function pair(name: string, entry: QueueEntry) {
  const dead = deadLetterQueue(`${name}-dead`, deadLetterDays);
  const queue = new sst.aws.Queue(titled(name, "queue"), {
    visibilityTimeout: `${entry.visibilitySeconds} seconds`,
    dlq: { queue: dead.arn, retry: entry.maxReceives },
    transform: { queue: settings(name, entry.retentionDays) },
  });
  // Who may put messages there: no other queue, whoever owns it.
  new aws.sqs.RedriveAllowPolicy(`${titled(name)}DeadAllow`, {
    queueUrl: dead.url,
    redriveAllowPolicy: $jsonStringify({ redrivePermission: "byQueue", sourceQueueArns: [queue.arn] }),
  });
  return { queue, dead };
}

const names = Object.keys(entries) as QueueName[];
export const queues = Object.fromEntries(names.map((name) => [name, pair(name, entries[name])])) as Record<
  QueueName,
  ReturnType<typeof pair>
>;

const failureNames = Object.keys(failures) as FailureName[];
export const failureQueues = Object.fromEntries(
  failureNames.map((name) => [name, deadLetterQueue(`${name}-failed`, failures[name].retentionDays)]),
) as Record<FailureName, sst.aws.Queue>;
