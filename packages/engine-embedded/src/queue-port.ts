import {
  type Clock,
  checkOutgoing,
  type Message,
  messageUnits,
  type Outgoing,
  type Queue,
  type Value,
} from "@waggle/core";
import type { Journal } from "./journal.ts";
import type { Counts } from "./meter.ts";
import type { Held, QueueState, Waiter } from "./queue-state.ts";
import { Step } from "./step.ts";

/** How messages go from state to state; logged where it has to outlive this process. */
interface Moves {
  log(...step: unknown[]): void;
  add(queue: QueueState, id: string, body: Value, receives: number, visibleAt: number, step: number): Held;
  place(queue: QueueState, held: Held): void;
  /** The next checkpoint takes it along. */
  mark(queue: QueueState, held: Held): void;
  take(queue: QueueState, max: number, visibilitySeconds: number): Message[];
  /** The message a receipt still speaks for. */
  delivered(queue: QueueState, receipt: string): Held | undefined;
  ack(queue: QueueState, held: Held): void;
  retry(queue: QueueState, held: Held, delaySeconds: number): void;
  /** What is ready goes to those who wait for it. */
  deliver(queue: QueueState): void;
}

interface QueueParts {
  readonly journal: () => Journal;
  readonly clock: Clock;
  readonly counts: Counts;
  readonly moves: Moves;
}

/** The port on one queue. */
export function createQueue(queue: QueueState, { journal: journalOf, clock, counts, moves }: QueueParts): Queue {
  const { log, add, place, mark, take, deliver, delivered, ack, retry } = moves;
  return {
    async send(outgoing: readonly Outgoing[]) {
      const journal = journalOf();
      journal.check();
      const sizes = outgoing.map(checkOutgoing);
      for (let i = 0; i < sizes.length; i += 10) {
        counts.queueRequests += messageUnits(sizes.slice(i, i + 10).reduce((sum, each) => sum + each, 0));
      }
      const now = clock.now();
      for (const { body, delaySeconds } of outgoing) {
        const id = (journal.lsn + 1).toString(36);
        const visibleAt = delaySeconds ? now + delaySeconds * 1000 : 0;
        const step = journal.steps.length;
        journal.steps.push(Step.Send, queue.name, id, body, visibleAt);
        journal.lsn++;
        const held = add(queue, id, body, 0, visibleAt, step);
        place(queue, held);
        mark(queue, held);
      }
      journal.touch();
      deliver(queue);
    },
    async receive({ max, waitSeconds = 0, visibilitySeconds = queue.options.visibilitySeconds }) {
      journalOf().check();
      const messages = take(queue, Math.min(10, max), visibilitySeconds);
      if (messages.length > 0 || waitSeconds === 0) {
        if (messages.length === 0) counts.queueRequests++;
        return messages;
      }
      return await new Promise((resolve) => {
        const cancel = clock.after(waitSeconds * 1000, () => {
          counts.queueRequests++;
          queue.waiters.delete(waiter);
          resolve([]);
        });
        const waiter: Waiter = {
          max: Math.min(10, max),
          visibilitySeconds,
          resolve(found) {
            cancel();
            resolve(found);
          },
        };
        queue.waiters.add(waiter);
      });
    },
    async ack(receipts) {
      journalOf().check();
      counts.queueRequests += Math.ceil(receipts.length / 10);
      for (const receipt of receipts) {
        const held = delivered(queue, receipt);
        if (held !== undefined) ack(queue, held);
      }
    },
    async retry(receipts, delaySeconds) {
      journalOf().check();
      counts.queueRequests += Math.ceil(receipts.length / 10);
      for (const receipt of receipts) {
        const held = delivered(queue, receipt);
        if (held !== undefined) retry(queue, held, delaySeconds);
      }
      deliver(queue);
    },
    deadLetters: {
      async list({ limit }) {
        journalOf().check();
        counts.queueRequests++;
        const found: Message[] = [];
        if (queue.dead === 0) return found;
        for (const held of queue.messages.values()) {
          if (held.state !== "dead") continue;
          found.push({ id: held.id, body: held.body, receives: held.receives, receipt: "" });
          if (found.length >= limit) break;
        }
        return found;
      },
      async redrive({ limit }) {
        journalOf().check();
        counts.queueRequests++;
        let moved = 0;
        if (queue.dead === 0) return moved;
        for (const held of queue.messages.values()) {
          if (moved >= limit) break;
          if (held.state !== "dead") continue;
          log(Step.Redrive, queue.name, held.id);
          held.receives = 0;
          held.visibleAt = 0;
          place(queue, held);
          mark(queue, held);
          moved++;
        }
        deliver(queue);
        return moved;
      },
    },
    async depth() {
      const { waiting, inFlight, delayed, dead } = queue;
      return { waiting, inFlight, delayed, dead };
    },
  };
}
