import { type QueueName, queues as queueEntries, rules } from "./manifest.ts";
import { queues } from "./queues.ts";
import { named, tags, titled } from "./stage.ts";

export const bus = new sst.aws.Bus("Bus", {
  transform: {
    bus(args) {
      args.name = named("bus");
      args.tags = tags;
    },
  },
});

const { accountId } = aws.getCallerIdentityOutput();

/*
 * Rules and targets without SST's component for the two: its queue policy lets S3 and SNS of every account send too.
 */
for (const [name, { queue, pattern, retries, retrySeconds }] of Object.entries(rules)) {
  const rule = new aws.cloudwatch.EventRule(`${titled(name)}Rule`, {
    name: named(name),
    eventBusName: bus.name,
    eventPattern: JSON.stringify(pattern),
    tags,
  });
  new aws.cloudwatch.EventTarget(`${titled(name)}Target`, {
    rule: rule.name,
    eventBusName: bus.name,
    targetId: queue,
    arn: queues[queue].queue.arn,
    // The very queue of dead letters, for it holds messages of the same shape: to be sent again like those.
    deadLetterConfig: { arn: queues[queue].dead.arn },
    retryPolicy: { maximumRetryAttempts: retries, maximumEventAgeInSeconds: retrySeconds },
  });
}

/** Rules of this account may fill a queue that is a target of rules, those on other buses included. */
function allowRules(name: QueueName) {
  const { queue, dead } = queues[name];
  for (const [part, { arn, url }] of Object.entries({ "": queue, Dead: dead })) {
    new aws.sqs.QueuePolicy(`${titled(name)}${part}Policy`, {
      queueUrl: url,
      policy: $jsonStringify({
        Version: "2012-10-17",
        Statement: [
          {
            Effect: "Allow",
            Principal: { Service: "events.amazonaws.com" },
            Action: "sqs:SendMessage",
            Resource: arn,
            Condition: {
              StringEquals: { "aws:SourceAccount": accountId },
              ArnLike: { "aws:SourceArn": $interpolate`arn:*:events:*:${accountId}:rule/*` },
            },
          },
        ],
      }),
    });
  }
}

const targets = new Set(Object.values(rules).map((rule) => rule.queue));
for (const name of Object.keys(queueEntries) as QueueName[]) if (targets.has(name as never)) allowRules(name);
