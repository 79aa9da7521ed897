import { bus } from "./bus.ts";
import { type Access, type FunctionEntry, functions, type Rows, rows } from "./manifest.ts";
import { failureQueues, queues } from "./queues.ts";
import { socket } from "./socket.ts";
import { agentTag } from "./stage.ts";
import { bucket, table } from "./store.ts";

type Statement =
  Exclude<sst.aws.FunctionArgs["permissions"], undefined> extends $util.Input<infer List>
    ? List extends readonly (infer One)[]
      ? One
      : never
    : never;

const { accountId } = aws.getCallerIdentityOutput();
const { partition } = aws.getPartitionOutput();

/** Rows whose keys begin so, and none else: DynamoDB checks every key of a call, in transactions too. */
function rowStatements({ read = [], write = [], remove = [], batch = [] }: Access): Statement[] {
  const keysOf = new Map<string, Set<string>>();
  const allow = (action: string, group: Rows) => {
    const keys = keysOf.get(action) ?? new Set();
    keysOf.set(action, keys);
    for (const key of rows[group].keys) keys.add(key);
  };
  for (const group of read) for (const action of rows[group].read) allow(action, group);
  for (const group of write) for (const action of rows[group].write) allow(action, group);
  for (const group of remove) allow("DeleteItem", group);
  for (const group of batch) allow("BatchWriteItem", group);
  // Actions on the same rows go together: a role's policies may have 10,240 characters in all.
  const actionsOn = new Map<string, string[]>();
  for (const [action, keys] of keysOf) {
    const values = JSON.stringify([...keys].sort());
    actionsOn.set(values, [...(actionsOn.get(values) ?? []), `dynamodb:${action}`]);
  }
  return [...actionsOn].map(([values, actions]) => ({
    actions,
    resources: [table.arn],
    conditions: [
      { test: "ForAllValues:StringLike", variable: "dynamodb:LeadingKeys", values: JSON.parse(values) as string[] },
    ],
  }));
}

const blobActions = { read: "s3:GetObject", write: "s3:PutObject", remove: "s3:DeleteObject" } as const;

function blobStatements({ blobs = [] }: Access): Statement[] {
  if (blobs.length === 0) return [];
  const objects = { actions: blobs.map((what) => blobActions[what]), resources: [$interpolate`${bucket.arn}/*`] };
  if (!blobs.includes("read")) return [objects];
  // S3 answers "forbidden" instead of "not found" to whoever may not list.
  return [objects, { actions: ["s3:ListBucket"], resources: [bucket.arn] }];
}

function queueStatements({ send = [], depth = [] }: Access): Statement[] {
  const statements: Statement[] = [];
  if (send.length > 0) {
    statements.push({ actions: ["sqs:SendMessage"], resources: send.map((name) => queues[name].queue.arn) });
  }
  if (depth.length > 0) {
    const resources = depth.flatMap((name) => [queues[name].queue.arn, queues[name].dead.arn]);
    statements.push({ actions: ["sqs:GetQueueAttributes"], resources });
  }
  return statements;
}

function otherStatements({ publish, push, call }: Access): Statement[] {
  const statements: Statement[] = [];
  if (publish) statements.push({ actions: ["events:PutEvents"], resources: [bus.arn] });
  if (push) {
    statements.push({
      actions: ["execute-api:ManageConnections"],
      resources: [$interpolate`${socket.nodes.api.executionArn}/*/*/@connections/*`],
    });
  }
  if (call) {
    const conditions = [{ test: "StringEquals", variable: `aws:ResourceTag/${agentTag}`, values: [$app.stage] }];
    const resource = (service: string, name: string) =>
      $interpolate`arn:${partition}:${service}:*:${accountId}:${name}`;
    statements.push(
      { actions: ["lambda:InvokeFunction"], resources: [resource("lambda", "function:*")], conditions },
      { actions: ["sqs:SendMessage"], resources: [resource("sqs", "*")], conditions },
    );
  }
  return statements;
}

function triggerStatements({ trigger }: FunctionEntry): Statement[] {
  switch (trigger.type) {
    case "queue": {
      const actions = [
        "sqs:ReceiveMessage",
        "sqs:DeleteMessage",
        "sqs:GetQueueAttributes",
        "sqs:ChangeMessageVisibility",
      ];
      return [{ actions, resources: [queues[trigger.queue].queue.arn] }];
    }
    case "stream": {
      const actions = [
        "dynamodb:DescribeStream",
        "dynamodb:GetRecords",
        "dynamodb:GetShardIterator",
        "dynamodb:ListStreams",
      ];
      return [
        { actions, resources: [$interpolate`${table.arn}/stream/*`] },
        { actions: ["sqs:SendMessage"], resources: [failureQueues[trigger.failure].arn] },
      ];
    }
    case "schedule":
      return [{ actions: ["sqs:SendMessage"], resources: [failureQueues[trigger.failure].arn] }];
    default:
      return [];
  }
}

/** All that a function may do. */
export const statements = (entry: FunctionEntry, logGroup: aws.cloudwatch.LogGroup): Statement[] => [
  ...rowStatements(entry.may),
  ...blobStatements(entry.may),
  ...queueStatements(entry.may),
  ...otherStatements(entry.may),
  ...triggerStatements(entry),
  { actions: ["logs:CreateLogStream", "logs:PutLogEvents"], resources: [$interpolate`${logGroup.arn}:*`] },
];

export const sendsToQueues = ({ may }: FunctionEntry): boolean => (may.send?.length ?? 0) > 0;

/** Concurrency kept for functions, in all. */
export const reservedInAll = Object.values(functions).reduce((sum, { reserved }) => sum + reserved, 0);
