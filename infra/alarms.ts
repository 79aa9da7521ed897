import { functions } from "./functions.ts";
import { alarms, type FailureName, type FunctionName, type QueueName } from "./manifest.ts";
import { failureQueues, queues } from "./queues.ts";
import { alarmEmail } from "./secrets.ts";
import { isProduction, named, tags, titled } from "./stage.ts";
import { table } from "./store.ts";

const topic = new sst.aws.SnsTopic("Alarms", {
  transform: {
    topic(args) {
      args.tags = tags;
    },
  },
});

alarmEmail.value.apply((endpoint) => {
  if (endpoint !== "nobody")
    new aws.sns.TopicSubscription("AlarmsEmail", { topic: topic.arn, protocol: "email", endpoint });
});

function alarm(name: string, what: string, args: Partial<aws.cloudwatch.MetricAlarmArgs>): void {
  new aws.cloudwatch.MetricAlarm(`${titled(name)}Alarm`, {
    name: named(name),
    alarmDescription: what,
    comparisonOperator: "GreaterThanThreshold",
    evaluationPeriods: 1,
    treatMissingData: "notBreaching",
    alarmActions: [topic.arn],
    okActions: [topic.arn],
    tags,
    ...args,
  });
}

function onDepth(name: string, what: string, queue: sst.aws.Queue): void {
  alarm(`${name}-dead-letters`, what, {
    namespace: "AWS/SQS",
    metricName: "ApproximateNumberOfMessagesVisible",
    dimensions: { QueueName: queue.nodes.queue.name },
    statistic: "Maximum",
    period: 300,
    threshold: 0,
  });
}

for (const name of Object.keys(queues) as QueueName[])
  onDepth(name, `Messages of the queue ${name} that failed again and again`, queues[name].dead);
for (const name of Object.keys(failureQueues) as FailureName[])
  onDepth(name, `Calls by the ${name} that failed again and again`, failureQueues[name]);

/** One alarm for all functions; its graph shows which. */
const ids = Object.keys(functions) as FunctionName[];
alarm("errors", "Calls of functions that ended with an error", {
  threshold: alarms.errors,
  metricQueries: [
    { id: "total", expression: "SUM(METRICS())", label: "Errors", returnData: true },
    ...ids.map((id) => ({
      id,
      returnData: false,
      metric: {
        namespace: "AWS/Lambda",
        metricName: "Errors",
        dimensions: { FunctionName: functions[id].name },
        stat: "Sum",
        period: 300,
      },
    })),
  ],
});

// Of all the account's functions, as they share its quota: one metric, where ours by name would be nine, each for $0.10 a month.
alarm("throttles", "Calls of functions of this account that were refused for want of concurrency", {
  namespace: "AWS/Lambda",
  metricName: "Throttles",
  statistic: "Sum",
  period: 300,
  threshold: alarms.throttles,
});

alarm("api-errors", "Calls of the API that were answered by 5xx", {
  namespace: "AWS/Lambda",
  metricName: "Url5xxCount",
  dimensions: { FunctionName: functions.api.name },
  statistic: "Sum",
  period: 300,
  threshold: alarms.apiErrors,
});

alarm("stream-age", "Changes of tasks are followed late: timers, dependants, events and lists wait", {
  namespace: "AWS/Lambda",
  metricName: "IteratorAge",
  dimensions: { FunctionName: functions.outbox.name },
  statistic: "Maximum",
  period: 60,
  evaluationPeriods: 5,
  datapointsToAlarm: 3,
  threshold: alarms.streamAgeSeconds * 1000,
});

for (const metricName of ["ReadThrottleEvents", "WriteThrottleEvents"]) {
  alarm(metricName === "ReadThrottleEvents" ? "read-throttles" : "write-throttles", "The table refuses calls", {
    namespace: "AWS/DynamoDB",
    metricName,
    dimensions: { TableName: table.name },
    statistic: "Sum",
    period: 300,
    threshold: alarms.tableThrottles,
  });
}

/** Tells when the account's month comes to more than this stage should cost: by the tag, once it is activated for cost allocation. */
const production = isProduction($app.stage);
const dollars = production ? alarms.budgetDollars.production : alarms.budgetDollars.other;
const mayTell = new aws.sns.TopicPolicy("AlarmsPolicy", {
  arn: topic.arn,
  policy: $jsonStringify({
    Version: "2012-10-17",
    Statement: ["cloudwatch.amazonaws.com", "budgets.amazonaws.com"].map((Service) => ({
      Effect: "Allow",
      Principal: { Service },
      Action: "sns:Publish",
      Resource: topic.arn,
      Condition: { StringEquals: { "aws:SourceAccount": aws.getCallerIdentityOutput().accountId } },
    })),
  }),
});
new aws.budgets.Budget(
  "Budget",
  {
    name: named("month"),
    budgetType: "COST",
    limitAmount: String(dollars),
    limitUnit: "USD",
    timeUnit: "MONTHLY",
    notifications: (["ACTUAL", "FORECASTED"] as const).map((notificationType) => ({
      notificationType,
      comparisonOperator: "GREATER_THAN",
      threshold: 100,
      thresholdType: "PERCENTAGE",
      subscriberSnsTopicArns: [topic.arn],
    })),
  },
  { dependsOn: mayTell },
);
