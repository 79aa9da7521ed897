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
function onRows(actions: string[], groups: readonly Rows[]): Statement[] {
  if (groups.length === 0) return [];
  const values = [...new Set(groups)].flatMap((group) => rows[group]).sort();
  return [
    {
      actions,
      resources: [table.arn],
      conditions: [{ test: "ForAllValues:StringLike", variable: "dynamodb:LeadingKeys", values }],
    },
  ];
}

function rowStatements({ read = [], write = [] }: Access): Statement[] {
  return [
    ...onRows(
      ["dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:Query", "dynamodb:ConditionCheckItem"],
      [...read, ...write],
    ),
    ...onRows(["dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem", "dynamodb:BatchWriteItem"], write),
  ];
}

function blobStatements({ blobs }: Access): Statement[] {
  if (blobs === undefined) return [];
  const actions = blobs === "read" ? ["s3:GetObject"] : ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"];
  return [
    { actions, resources: [$interpolate`${bucket.arn}/*`] },
    // S3 answers "forbidden" instead of "not found" to whoever may not list.
    { actions: ["s3:ListBucket"], resources: [bucket.arn] },
  ];
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
