import { reservedInAll, sendsToQueues, statements } from "./access.ts";
import { bus } from "./bus.ts";
import {
  functions as entries,
  type FunctionEntry,
  type FunctionName,
  type Knowledge,
  logs,
  type QueueName,
  runtime,
} from "./manifest.ts";
import { failureQueues, queues } from "./queues.ts";
import { adminKeyHash, secretKey } from "./secrets.ts";
import { socket } from "./socket.ts";
import { isProduction, named, tags, titled } from "./stage.ts";
import { bucket, table } from "./store.ts";

const names = Object.keys(entries) as FunctionName[];
const retentionDays = { "1 week": 7 }[logs.retention];

/** Lambda keeps this many executions for functions that reserve none. */
const unreservedAtLeast = 100;

/** Of concurrent executions, in the account. */
const quota = aws.servicequotas.getServiceQuotaOutput({ serviceCode: "lambda", quotaCode: "L-B99A9384" }).value;

/**
 * Whether executions are reserved: in production, where the account's quota leaves room. What is reserved is taken from all others of
 * the account, so that a second stage that did it would not fit into 1,000. New accounts start with a quota of 10, where reserving would
 * make the deployment fail; there the limits of the queues' mappings hold alone, until the quota is raised and the stage deployed again.
 */
export const reserves = quota.apply((value) => isProduction($app.stage) && value >= reservedInAll + unreservedAtLeast);

/** Lambda takes no less for a queue's mapping. */
const fewestAtOnce = 2;
/**
 * How many executions a queue may have at once: a tenth of the quota at most. The four of them would use up a small one, and what is received
 * only to be refused stays hidden for minutes each time, and is a dead letter after eight.
 */
export const atOnce = (wanted: number) =>
  quota.apply((value) => Math.min(wanted, Math.max(fewestAtOnce, Math.floor(value / 10))));

/** Where everything lies: the names that `configFromEnv` of the AWS engine reads. */
const places: Record<string, $util.Input<string>> = {
  WAGGLE_TABLE: table.name,
  WAGGLE_BUS: bus.name,
  WAGGLE_BUCKET: bucket.name,
};
for (const name of Object.keys(queues) as QueueName[]) {
  places[`WAGGLE_QUEUE_${name.toUpperCase()}`] = queues[name].queue.url;
  places[`WAGGLE_DLQ_${name.toUpperCase()}`] = queues[name].dead.url;
}

const made: Partial<Record<FunctionName, sst.aws.Function>> = {};

const known: Record<Knowledge, () => Record<string, $util.Input<string>>> = {
  adminKey: () => ({ WAGGLE_ADMIN_KEY_HASH: adminKeyHash }),
  secretKey: () => ({ WAGGLE_SECRET_KEY: secretKey.value }),
  publicUrl: () => ({ WAGGLE_PUBLIC_URL: make("api").url }),
  socketUrl: () => ({ WAGGLE_SOCKET_URL: socket.url }),
  socketEndpoint: () => ({ WAGGLE_SOCKET_ENDPOINT: socket.managementEndpoint }),
};

/** Makes a function; one that is told another's address makes that first. */
function make(name: FunctionName): sst.aws.Function {
  made[name] ??= build(name, entries[name]);
  return made[name];
}

function build(name: FunctionName, entry: FunctionEntry): sst.aws.Function {
  const logGroup = new aws.cloudwatch.LogGroup(`${titled(name)}Logs`, {
    name: `/aws/lambda/${named(name)}`,
    retentionInDays: retentionDays,
    tags,
  });
  const { trigger } = entry;
  const fn = new sst.aws.Function(titled(name, "function"), {
    name: named(name),
    // Made by functions/build.mjs, which leaves out more of the AWS SDK than SST's own bundling can.
    bundle: `dist/functions/${name}`,
    handler: "bundle.handler",
    description: entry.what,
    runtime,
    architecture: "arm64",
    memory: `${entry.memoryMiB} MB`,
    timeout: `${entry.timeoutSeconds} seconds`,
    environment: Object.assign({}, places, ...entry.knows.map((what) => known[what]())),
    permissions: statements(entry, logGroup),
    logging: { format: "json", logGroup: logGroup.name },
    tags,
    ...(trigger.type === "url" && { url: { authorization: "none" as const, cors: false as const }, streaming: true }),
    ...(trigger.type === "schedule" && { retries: trigger.retries }),
    transform: {
      role(args) {
        // Its own log group is all it may write to; AWS' managed policy allows every one.
        args.managedPolicyArns = [];
        // SST lets the whole account assume the role of a function, which only its `sst dev` has a use for.
        args.assumeRolePolicy = aws.iam.assumeRolePolicyForPrincipal({ Service: "lambda.amazonaws.com" });
        args.tags = tags;
      },
      function(args) {
        args.loggingConfig = {
          logFormat: "JSON",
          logGroup: logGroup.name,
          applicationLogLevel: logs.level,
          // START, END and REPORT of each call would be most of the bill for logs.
          systemLogLevel: "WARN",
        };
        args.reservedConcurrentExecutions = reserves.apply((yes) => (yes ? entry.reserved : -1));
      },
      eventInvokeConfig(args) {
        if (trigger.type !== "schedule") return;
        args.destinationConfig = { onFailure: { destination: failureQueues[trigger.failure].arn } };
      },
    },
  });
  if (sendsToQueues(entry)) {
    // A timer that is far off is sent on every 15 minutes: what Lambda takes for a loop after 16 rounds, and would end.
    new aws.lambda.FunctionRecursionConfig(`${titled(name)}Recursion`, {
      functionName: fn.name,
      recursiveLoop: "Allow",
    });
  }
  return fn;
}

for (const name of names) make(name);
export const functions = made as Record<FunctionName, sst.aws.Function>;
