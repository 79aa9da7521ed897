import { queues as entries, type QueueEntry, type QueueName } from "./manifest.ts";
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

/**
 * Rules of this account may fill the queue, and its dead letters with what they could not deliver: those hold messages of the same
 * shape, to be sent again like others. SST's own policy for a target lets S3 and SNS of every account send too.
 */
function allowRules(name: QueueName): void {
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

for (const name of Object.keys(entries) as QueueName[]) {
  const entry: QueueEntry = entries[name];
  if (entry.ofRules) allowRules(name);
}
