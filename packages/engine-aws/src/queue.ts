import {
  ChangeMessageVisibilityBatchCommand,
  DeleteMessageBatchCommand,
  GetQueueAttributesCommand,
  ReceiveMessageCommand,
  SendMessageBatchCommand,
  type Message as SqsMessage,
} from "@aws-sdk/client-sqs";
import {
  checkOutgoing,
  type Message,
  messageUnits,
  type Outgoing,
  type Queue,
  queueLimits,
  type Value,
} from "@waggle/core";
import type { Clients } from "./clients.ts";
import type { Counts } from "./meter.ts";
import type { Caller } from "./retry.ts";

export interface QueueParts {
  readonly url: string;
  readonly deadLetters: string;
  readonly clients: Clients;
  readonly caller: Caller;
  readonly counts: Counts;
  readonly check: () => void;
}

const callEntries = 10;
/** How long dead letters are hidden from other readers while they are listed or moved. */
const heldSeconds = 30;

/** SQS takes the characters of XML 1.0: JSON escapes all others but these two. */
const bodyText = (body: Value): string =>
  JSON.stringify(body).replace(/[\ufffe\uffff]/g, (each) => `\\u${each.charCodeAt(0).toString(16)}`);

/** Chunks of at most ten entries and 1 MiB: what one call takes. */
function calls<T extends { readonly bytes: number }>(entries: readonly T[]): T[][] {
  const found: T[][] = [];
  let bytes = 0;
  for (const entry of entries) {
    const last = found.at(-1);
    if (last === undefined || last.length === callEntries || bytes + entry.bytes > queueLimits.messageBytes) {
      found.push([entry]);
      bytes = entry.bytes;
    } else {
      last.push(entry);
      bytes += entry.bytes;
    }
  }
  return found;
}

/**
 * A queue on SQS with its dead letters in another. A batch that was taken in part, or whose reply was lost, is sent again for
 * the rest, so that a message may come twice: the port promises at least once.
 */
export function createQueue({ url, deadLetters, clients, caller, counts, check }: QueueParts): Queue {
  let maxReceives: number | undefined;

  async function sendTo(queueUrl: string, outgoing: readonly Outgoing[]): Promise<void> {
    const entries = outgoing.map((each, i) => {
      checkOutgoing(each);
      const text = bodyText(each.body);
      return {
        Id: String(i),
        MessageBody: text,
        bytes: Buffer.byteLength(text),
        ...(each.delaySeconds !== undefined && { DelaySeconds: Math.ceil(each.delaySeconds) }),
      };
    });
    await Promise.all(
      calls(entries).map((own) =>
        caller.callRest("queue", own, async (rest, signal) => {
          counts.queueRequests += messageUnits(rest.reduce((sum, each) => sum + each.bytes, 0));
          const command = new SendMessageBatchCommand({
            QueueUrl: queueUrl,
            Entries: rest.map(({ bytes, ...entry }) => entry),
          });
          const { Failed = [] } = await (await clients.sqs()).send(command, { abortSignal: signal });
          const failed = new Set(Failed.map((each) => each.Id));
          const [first] = Failed;
          return {
            rest: rest.filter((each) => failed.has(each.Id)),
            ...(first !== undefined && { cause: new Error(`${first.Code}: ${first.Message ?? ""}`) }),
          };
        }),
      ),
    );
  }

  async function receiveFrom(queueUrl: string, max: number, waitSeconds: number, visibilitySeconds?: number) {
    const command = new ReceiveMessageCommand({
      QueueUrl: queueUrl,
      MaxNumberOfMessages: max,
      WaitTimeSeconds: Math.ceil(waitSeconds),
      MessageSystemAttributeNames: ["ApproximateReceiveCount"],
      ...(visibilitySeconds !== undefined && { VisibilityTimeout: Math.ceil(visibilitySeconds) }),
    });
    const { Messages = [] } = await caller.call(
      "queue",
      async ({ signal }) => (await clients.sqs()).send(command, { abortSignal: signal }),
      { attemptMs: 3_000 + waitSeconds * 1000 },
    );
    const bytes = Messages.reduce((sum, each) => sum + Buffer.byteLength(each.Body ?? ""), 0);
    counts.queueRequests += messageUnits(bytes);
    return Messages;
  }

  /** Entries of receipts that are void, or of messages that are gone, are done with. */
  async function inTens(
    receipts: readonly string[],
    send: (
      entries: { Id: string; ReceiptHandle: string }[],
      signal: AbortSignal,
    ) => Promise<{ Failed?: Fault[] | undefined }>,
  ): Promise<void> {
    const entries = receipts.map((receipt, i) => ({ Id: String(i), ReceiptHandle: receipt, bytes: 0 }));
    await Promise.all(
      calls(entries).map((own) =>
        caller.callRest("queue", own, async (rest, signal) => {
          counts.queueRequests++;
          const { Failed = [] } = await send(
            rest.map(({ Id, ReceiptHandle }) => ({ Id, ReceiptHandle })),
            signal,
          );
          const again = new Set(Failed.filter((each) => !each.SenderFault).map((each) => each.Id));
          return { rest: rest.filter((each) => again.has(each.Id)) };
        }),
      ),
    );
  }

  const remove = (queueUrl: string, receipts: readonly string[]) =>
    inTens(receipts, async (Entries, signal) =>
      (await clients.sqs()).send(new DeleteMessageBatchCommand({ QueueUrl: queueUrl, Entries }), {
        abortSignal: signal,
      }),
    );

  const hide = (queueUrl: string, receipts: readonly string[], VisibilityTimeout: number) =>
    inTens(receipts, async (entries, signal) => {
      const Entries = entries.map((each) => ({ ...each, VisibilityTimeout }));
      const command = new ChangeMessageVisibilityBatchCommand({ QueueUrl: queueUrl, Entries });
      return (await clients.sqs()).send(command, { abortSignal: signal });
    });

  const attributes = async (queueUrl: string) => {
    counts.queueRequests++;
    const command = new GetQueueAttributesCommand({ QueueUrl: queueUrl, AttributeNames: ["All"] });
    const { Attributes = {} } = await caller.call("queue", async ({ signal }) =>
      (await clients.sqs()).send(command, { abortSignal: signal }),
    );
    return Attributes;
  };

  async function diedAfter(): Promise<number> {
    if (maxReceives === undefined) {
      const { RedrivePolicy } = await attributes(url);
      maxReceives = Number((JSON.parse(RedrivePolicy ?? "{}") as { maxReceiveCount?: unknown }).maxReceiveCount ?? 0);
    }
    return maxReceives;
  }

  /** Takes dead letters in hand, ten a call, until there are `limit` or no more come. */
  async function* dead(limit: number): AsyncGenerator<readonly SqsMessage[]> {
    const seen = new Set<string>();
    while (seen.size < limit) {
      const found = await receiveFrom(deadLetters, Math.min(callEntries, limit - seen.size), 0, heldSeconds);
      const fresh = found.filter((each) => !seen.has(each.MessageId as string));
      for (const each of fresh) seen.add(each.MessageId as string);
      if (fresh.length > 0) yield fresh;
      if (fresh.length === 0) return;
    }
  }

  return {
    async send(messages) {
      check();
      await sendTo(url, messages);
    },
    async receive({ max, waitSeconds = 0, visibilitySeconds }) {
      check();
      return (await receiveFrom(url, max, waitSeconds, visibilitySeconds)).map(toMessage);
    },
    async ack(receipts) {
      check();
      await remove(url, receipts);
    },
    async retry(receipts, delaySeconds) {
      check();
      await hide(url, receipts, Math.ceil(delaySeconds));
    },
    deadLetters: {
      async list({ limit }) {
        check();
        const receives = await diedAfter();
        const found: Message[] = [];
        for await (const messages of dead(limit)) {
          found.push(...messages.map((each) => ({ ...toMessage(each), receives })));
        }
        // All are looked at before the first is given back: SQS gives any, and so would give the same again.
        await hide(
          deadLetters,
          found.map((each) => each.receipt),
          0,
        );
        return found;
      },
      // Sent, then deleted: a crash between the two gives a message twice and loses none. SQS's own move task knows no limit.
      async redrive({ limit }) {
        check();
        let moved = 0;
        for await (const messages of dead(limit)) {
          const sendable = messages.map((each) => ({ body: JSON.parse(each.Body as string) as Value }));
          await sendTo(url, sendable);
          await remove(
            deadLetters,
            messages.map((each) => each.ReceiptHandle as string),
          );
          moved += messages.length;
        }
        return moved;
      },
    },
    async depth() {
      check();
      const [own, dead] = await Promise.all([attributes(url), attributes(deadLetters)]);
      const count = (of: Record<string, string>, suffix = "") =>
        Number(of[`ApproximateNumberOfMessages${suffix}`] ?? 0);
      return {
        waiting: count(own),
        inFlight: count(own, "NotVisible"),
        delayed: count(own, "Delayed"),
        dead: count(dead) + count(dead, "NotVisible"),
      };
    },
  };
}

interface Fault {
  readonly Id: string | undefined;
  readonly SenderFault: boolean | undefined;
}

const toMessage = ({ MessageId, Body, ReceiptHandle, Attributes }: SqsMessage): Message => ({
  id: MessageId as string,
  body: JSON.parse(Body as string) as Value,
  receives: Number(Attributes?.ApproximateReceiveCount ?? 1),
  receipt: ReceiptHandle as string,
});
