import {
  DeleteRuleCommand,
  ListTargetsByRuleCommand,
  PutRuleCommand,
  PutTargetsCommand,
  RemoveTargetsCommand,
} from "@aws-sdk/client-eventbridge";
import {
  CreateQueueCommand,
  DeleteQueueCommand,
  GetQueueUrlCommand,
  SetQueueAttributesCommand,
} from "@aws-sdk/client-sqs";
import { type Bus, type BusEvent, compilePattern, systemRandom, type Value } from "@waggle/core";
import type { Parts } from "./aws.ts";
import { fromBus } from "./bus.ts";
import { poll } from "./poll.ts";
import { createQueue } from "./queue.ts";

export interface RuleParts extends Parts {
  readonly bus: string;
  /** A target that throws gets the event again after this time. */
  readonly visibilitySeconds: number;
}

/** A target that throws gets an event this often; EventBridge itself goes on for a day. */
const maxReceives = 8;
const targetId = "waggle";
const ruleName = /^[A-Za-z0-9_.-]{1,40}$/;

/** Rules with targets in this process: each has a queue of its own, that EventBridge fills and this process polls. */
export function createRules({ bus, visibilitySeconds, ...parts }: RuleParts) {
  const { clients, caller } = parts;
  const rules = new Map<string, { target: (event: BusEvent) => Promise<void>; stop: () => Promise<void> }>();
  const called = (name: string) => (ruleName.test(name) ? name : Buffer.from(name).toString("hex").slice(0, 60));

  const sqs = <T>(send: (signal: AbortSignal) => Promise<T>) => caller.call("queue", ({ signal }) => send(signal));
  const events = <T>(send: (signal: AbortSignal) => Promise<T>) => caller.call("bus", ({ signal }) => send(signal));
  const isGone = (error: unknown) =>
    /NotFound|DoesNotExist|NonExistent/.test(`${(error as Error).name} ${((error as Error).cause as Error)?.name}`);

  /** The queue of a rule that stands from before, so that what came while no process was there is given. */
  async function queueOf(name: string): Promise<string | undefined> {
    try {
      const found = await events(async (abortSignal) =>
        (await clients.bus()).send(new ListTargetsByRuleCommand({ EventBusName: bus, Rule: called(name) }), {
          abortSignal,
        }),
      );
      return found.Targets?.find((each) => each.Id === targetId)
        ?.Arn?.split(":")
        .at(-1);
    } catch (error) {
      if (isGone(error)) return undefined;
      throw error;
    }
  }

  async function open(queueName: string): Promise<string> {
    const command = new CreateQueueCommand({
      QueueName: queueName,
      Attributes: { VisibilityTimeout: String(visibilitySeconds) },
    });
    const { QueueUrl = "" } = await sqs(async (abortSignal) => (await clients.sqs()).send(command, { abortSignal }));
    return QueueUrl;
  }

  async function close(name: string): Promise<void> {
    const rule = rules.get(name);
    rules.delete(name);
    await rule?.stop();
  }

  const port: Pick<Bus, "putRule" | "deleteRule"> = {
    async putRule(name, pattern, target) {
      compilePattern(pattern);
      const known = rules.get(name);
      if (known !== undefined) {
        const command = new PutRuleCommand({
          Name: called(name),
          EventBusName: bus,
          EventPattern: JSON.stringify(pattern),
        });
        await events(async (abortSignal) => (await clients.bus()).send(command, { abortSignal }));
        known.target = target;
        return;
      }
      const queueName = (await queueOf(name)) ?? `${bus}-${called(name).slice(0, 20)}-${systemRandom(8)}`;
      const url = await open(queueName);
      const put = new PutRuleCommand({ Name: called(name), EventBusName: bus, EventPattern: JSON.stringify(pattern) });
      const { RuleArn = "" } = await events(async (abortSignal) => (await clients.bus()).send(put, { abortSignal }));
      // arn:aws:events:region:account:rule/bus/name
      const [, partition, , region, account] = RuleArn.split(":");
      const queueArn = `arn:${partition}:sqs:${region}:${account}:${queueName}`;
      const policy = {
        Version: "2012-10-17",
        Statement: [
          {
            Effect: "Allow",
            Principal: { Service: "events.amazonaws.com" },
            Action: "sqs:SendMessage",
            Resource: queueArn,
            Condition: { ArnEquals: { "aws:SourceArn": RuleArn } },
          },
        ],
      };
      const allow = new SetQueueAttributesCommand({ QueueUrl: url, Attributes: { Policy: JSON.stringify(policy) } });
      await sqs(async (abortSignal) => (await clients.sqs()).send(allow, { abortSignal }));
      const targets = new PutTargetsCommand({
        EventBusName: bus,
        Rule: called(name),
        Targets: [{ Id: targetId, Arn: queueArn }],
      });
      await events(async (abortSignal) => (await clients.bus()).send(targets, { abortSignal }));
      const queue = createQueue({ ...parts, url, deadLetters: url });
      const rule = { target, stop: async () => {} };
      rules.set(name, rule);
      rule.stop = poll(queue, { batch: 10, concurrency: 2 }, async (messages) => {
        const given = await Promise.allSettled(messages.map((each) => rule.target(fromBus(each.body as Value))));
        const failed = messages.filter((each, i) => given[i]?.status === "rejected" && each.receives < maxReceives);
        return { failed: failed.map((each) => each.id) };
      });
    },
    async deleteRule(name) {
      await close(name);
      const queueName = await queueOf(name);
      const remove = new RemoveTargetsCommand({ EventBusName: bus, Rule: called(name), Ids: [targetId] });
      const drop = new DeleteRuleCommand({ EventBusName: bus, Name: called(name) });
      try {
        await events(async (abortSignal) => (await clients.bus()).send(remove, { abortSignal }));
        await events(async (abortSignal) => (await clients.bus()).send(drop, { abortSignal }));
        if (queueName === undefined) return;
        const { QueueUrl } = await sqs(async (abortSignal) =>
          (await clients.sqs()).send(new GetQueueUrlCommand({ QueueName: queueName }), { abortSignal }),
        );
        await sqs(async (abortSignal) =>
          (await clients.sqs()).send(new DeleteQueueCommand({ QueueUrl }), { abortSignal }),
        );
      } catch (error) {
        if (!isGone(error)) throw error;
      }
    },
  };
  return {
    port,
    async stop() {
      await Promise.all([...rules.keys()].map(close));
    },
  };
}
