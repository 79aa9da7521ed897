import type { Outbound, Ports, QueueName } from "@waggle/core";
import { configFromEnv, createAws } from "@waggle/engine-aws";

/** A call to AWS, as IAM sees it. */
export interface Call {
  readonly action: string;
  readonly resource: string;
  /** Partition key, where the call is for a row. */
  readonly key?: string;
  /** An agent's own function or queue is called. */
  readonly ofAgent?: true;
}

type Env = Readonly<Record<string, string>>;
// biome-ignore lint/suspicious/noExplicitAny: what the SDK's commands hold, each something else
type Input = any;

const account = "us-east-1:123456789012";
const tableArn = (name: string) => `arn:aws:dynamodb:${account}:table/${name}`;
/** `https://sqs.<region>.amazonaws.com/<account>/<name>` */
const queueArn = (url: string) => `arn:aws:sqs:${account}:${url.split("/").at(-1)}`;

/** What an item of a transaction needs: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis-iam.html */
const inTransaction = {
  Put: "PutItem",
  Update: "UpdateItem",
  Delete: "DeleteItem",
  ConditionCheck: "ConditionCheckItem",
} as const;

/**
 * The permissions a command of the SDK asks for.
 * @see https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
 */
function asked(command: string, input: Input): Call[] {
  const onRow = (action: string, key: string, table = input.TableName): Call => ({
    action: `dynamodb:${action}`,
    resource: tableArn(table),
    key,
  });
  switch (command) {
    case "GetItemCommand":
    case "UpdateItemCommand":
    case "DeleteItemCommand":
      return [onRow(command.replace("Command", ""), input.Key.pk.S)];
    case "PutItemCommand":
      return [onRow("PutItem", input.Item.pk.S)];
    case "QueryCommand": {
      const values = Object.values(input.ExpressionAttributeValues) as { S: string }[];
      return [onRow("Query", (values[0] as { S: string }).S)];
    }
    case "BatchGetItemCommand":
      return Object.entries(input.RequestItems as Record<string, Input>).flatMap(([table, { Keys }]) =>
        Keys.map((key: Input) => onRow("BatchGetItem", key.pk.S, table)),
      );
    case "BatchWriteItemCommand":
      return Object.entries(input.RequestItems as Record<string, Input[]>).flatMap(([table, requests]) =>
        requests.map((request) =>
          onRow("BatchWriteItem", (request.PutRequest?.Item ?? request.DeleteRequest.Key).pk.S, table),
        ),
      );
    case "TransactWriteItemsCommand":
      return (input.TransactItems as Record<string, Input>[]).flatMap((item) =>
        Object.entries(item).map(([kind, of]) =>
          onRow(inTransaction[kind as keyof typeof inTransaction], (of.Item ?? of.Key).pk.S, of.TableName),
        ),
      );
    case "SendMessageBatchCommand":
      return [{ action: "sqs:SendMessage", resource: queueArn(input.QueueUrl) }];
    case "DeleteMessageBatchCommand":
      return [{ action: "sqs:DeleteMessage", resource: queueArn(input.QueueUrl) }];
    case "ChangeMessageVisibilityBatchCommand":
      return [{ action: "sqs:ChangeMessageVisibility", resource: queueArn(input.QueueUrl) }];
    case "ReceiveMessageCommand":
    case "GetQueueAttributesCommand":
      return [{ action: `sqs:${command.replace("Command", "")}`, resource: queueArn(input.QueueUrl) }];
    case "PutEventsCommand":
      return (input.Entries as Input[]).map(({ EventBusName }) => ({
        action: "events:PutEvents",
        resource: `arn:aws:events:${account}:event-bus/${EventBusName}`,
      }));
    case "PutObjectCommand":
    case "DeleteObjectCommand":
      return [
        { action: `s3:${command.replace("Command", "")}`, resource: `arn:aws:s3:::${input.Bucket}/${input.Key}` },
      ];
    case "GetObjectCommand":
      return [
        { action: "s3:GetObject", resource: `arn:aws:s3:::${input.Bucket}/${input.Key}` },
        // Without it S3 answers "forbidden" for a blob that is not there.
        { action: "s3:ListBucket", resource: `arn:aws:s3:::${input.Bucket}` },
      ];
    case "PostToConnectionCommand":
      return [
        {
          action: "execute-api:ManageConnections",
          resource: `arn:aws:execute-api:${account}:socketapi/$default/POST/@connections/${input.ConnectionId}`,
        },
      ];
    default:
      throw new Error(`no permission is known for ${command}`);
  }
}

/** The least that the engine makes sense of. */
const answered = (command: string, input: Input): object =>
  command === "UpdateItemCommand" ? { Attributes: input.Key } : command === "PutEventsCommand" ? { Entries: [] } : {};

interface Stack {
  add(
    middleware: (
      next: unknown,
      context: { readonly commandName: string },
    ) => (args: { readonly input: Input }) => Promise<object>,
    options: { readonly step: "initialize" },
  ): void;
}

/**
 * The ports of one function: each call is done on the embedded engine, and made a second time by the engine on AWS, with the
 * function's own environment, to see what it asks of IAM. Its commands are noted where they would leave, and go nowhere.
 */
export function observed(ports: Ports, env: Env, note: (call: Call) => void): Ports {
  const aws = createAws(configFromEnv({ ...env, AWS_REGION: "us-east-1" }), {
    onClient(client) {
      (client.middlewareStack as Stack).add(
        (_, { commandName }) =>
          async ({ input }) => {
            for (const call of asked(commandName, input)) note(call);
            return { output: { $metadata: {}, ...answered(commandName, input) }, response: {} };
          },
        { step: "initialize" },
      );
    },
  });
  const both =
    <Args extends unknown[], Result>(
      real: (...args: Args) => Promise<Result>,
      on: (...args: Args) => Promise<unknown>,
    ) =>
    async (...args: Args): Promise<Result> => {
      await on(...args);
      return real(...args);
    };
  const { store, blobs, bus, outbound, live } = ports;
  const queue = (name: QueueName) => {
    const [real, on] = [ports.queues[name], aws.ports.queues[name]];
    return {
      ...real,
      send: both(real.send, on.send),
      ack: both(real.ack, on.ack),
      retry: both(real.retry, on.retry),
      receive: both(real.receive, on.receive),
      depth: both(real.depth, on.depth),
      deadLetters: {
        list: both(real.deadLetters.list, on.deadLetters.list),
        redrive: both(real.deadLetters.redrive, on.deadLetters.redrive),
      },
    };
  };
  const agents: Pick<Outbound, "invoke" | "send"> = {
    async invoke(functionArn, ...rest) {
      note({ action: "lambda:InvokeFunction", resource: functionArn, ofAgent: true });
      return outbound.invoke(functionArn, ...rest);
    },
    async send(queueUrl, body) {
      note({ action: "sqs:SendMessage", resource: queueArn(queueUrl), ofAgent: true });
      return outbound.send(queueUrl, body);
    },
  };
  return {
    ...ports,
    store: {
      ...store,
      get: both(store.get, aws.ports.store.get),
      batchGet: both(store.batchGet, aws.ports.store.batchGet),
      query: both(store.query, aws.ports.store.query),
      write: both(store.write, aws.ports.store.write),
      transact: both(store.transact, aws.ports.store.transact),
      batchWrite: both(store.batchWrite, aws.ports.store.batchWrite),
    },
    queues: {
      dispatch: queue("dispatch"),
      timers: queue("timers"),
      deliver: queue("deliver"),
      intake: queue("intake"),
    },
    blobs: {
      put: both(blobs.put, aws.ports.blobs.put),
      get: both(blobs.get, aws.ports.blobs.get),
      delete: both(blobs.delete, aws.ports.blobs.delete),
    },
    bus: { ...bus, publish: both(bus.publish, aws.ports.bus.publish) },
    live: {
      ...live,
      publish(channel, message) {
        if (channel.startsWith("connection/")) aws.ports.live.publish(channel, message);
        live.publish(channel, message);
      },
    },
    outbound: { ...outbound, ...agents },
  };
}
