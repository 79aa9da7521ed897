import { atOnce, functions } from "./functions.ts";
import { functions as entries, type FunctionName, type Trigger } from "./manifest.ts";
import { failureQueues, queues } from "./queues.ts";
import { socket } from "./socket.ts";
import { titled } from "./stage.ts";
import { table } from "./store.ts";

type Of<Type extends Trigger["type"]> = Extract<Trigger, { type: Type }>;

function onQueue(name: FunctionName, trigger: Of<"queue">): void {
  queues[trigger.queue].queue.subscribe(functions[name].arn, {
    batch: {
      size: trigger.batch,
      partialResponses: true,
      ...(trigger.windowSeconds !== undefined && { window: `${trigger.windowSeconds} seconds` }),
    },
    transform: {
      eventSourceMapping(args) {
        args.scalingConfig = { maximumConcurrency: atOnce(trigger.concurrency) };
      },
    },
  });
}

function onStream(name: FunctionName, trigger: Of<"stream">): void {
  table.subscribe(titled(name), functions[name].arn, {
    // A change of a row, its making, and its end: old and new image are both there, one, or the other.
    filters: (["NewImage", "OldImage"] as const).map((image) => ({
      dynamodb: { [image]: { kind: { S: [...trigger.kinds] } } },
    })),
    transform: {
      eventSourceMapping(args) {
        args.startingPosition = "TRIM_HORIZON";
        args.batchSize = trigger.batch;
        args.functionResponseTypes = ["ReportBatchItemFailures"];
        args.bisectBatchOnFunctionError = true;
        args.maximumRetryAttempts = trigger.retries;
        args.maximumRecordAgeInSeconds = trigger.maxAgeSeconds;
        // More than one at a time keeps the order of a row but not of a partition, which projections count on.
        args.parallelizationFactor = 1;
        args.destinationConfig = { onFailure: { destinationArn: failureQueues[trigger.failure].arn } };
      },
    },
  });
}

function onSchedule(name: FunctionName, trigger: Of<"schedule">): void {
  new sst.aws.CronV2(`${titled(name)}Schedule`, {
    function: functions[name].arn,
    schedule: trigger.every,
    retries: trigger.retries,
    dlq: failureQueues[trigger.failure].arn,
  });
}

function onSocket(name: FunctionName): void {
  for (const route of ["$connect", "$default", "$disconnect"]) socket.route(route, functions[name].arn);
}

for (const name of Object.keys(entries) as FunctionName[]) {
  const { trigger }: { trigger: Trigger } = entries[name];
  if (trigger.type === "queue") onQueue(name, trigger);
  if (trigger.type === "stream") onStream(name, trigger);
  if (trigger.type === "schedule") onSchedule(name, trigger);
  if (trigger.type === "socket") onSocket(name);
}
