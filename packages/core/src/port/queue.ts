import type { Value } from "./store.ts";

export interface Message {
  readonly id: string;
  readonly body: Value;
  /** How often it was received, this time included. */
  readonly receives: number;
  /** Names this delivery; void once the visibility time is over. */
  readonly receipt: string;
}

export interface Outgoing {
  /** At most 1 MiB as JSON. */
  readonly body: Value;
  /** 0–900. The embedded engine keeps fractions, SQS rounds up to whole seconds. */
  readonly delaySeconds?: number;
}

export interface QueueOptions {
  /** Received this often without an ack, a message goes to the dead letters. */
  readonly maxReceives: number;
  readonly visibilitySeconds: number;
}

export const queueLimits = { delaySeconds: 900, messageBytes: 1024 * 1024 } as const;

/** A queue that delivers at least once, in no promised order. Durable like the store: see `Store.settled`. */
export interface Queue {
  /** Any number of messages; every one is taken or the call throws `queue.unavailable`. Throws `queue.message_invalid`. */
  send(messages: readonly Outgoing[]): Promise<void>;
  /** Up to `max` (1–10) messages, hidden from others for `visibilitySeconds`. Waits up to `waitSeconds` (0–20) for the first. */
  receive(options: { max: number; waitSeconds?: number; visibilitySeconds?: number }): Promise<readonly Message[]>;
  /** Done with these; a void receipt is ignored. */
  ack(receipts: readonly string[]): Promise<void>;
  /** Gives messages back, to be seen again after the delay: soon, or as long as they are still worked on. A void receipt is ignored. */
  retry(receipts: readonly string[], delaySeconds: number): Promise<void>;
  readonly deadLetters: {
    list(options: { limit: number }): Promise<readonly Message[]>;
    /** Moves up to `limit` dead letters back into the queue, received 0 times; says how many. */
    redrive(options: { limit: number }): Promise<number>;
  };
  depth(): Promise<{ waiting: number; inFlight: number; delayed: number; dead: number }>;
}

/**
 * Push side of a queue: what an SQS event source mapping does on AWS.
 * The handler answers the ids it failed; the others are acked. A throw fails the whole batch.
 */
export interface QueueFeed {
  consume(
    queue: QueueName,
    options: { batch: number; concurrency: number },
    handler: (messages: readonly Message[]) => Promise<{ failed: readonly string[] }>,
  ): () => Promise<void>;
}

export type QueueName = "dispatch" | "timers" | "deliver" | "intake";
