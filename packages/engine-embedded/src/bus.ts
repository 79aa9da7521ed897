import {
  type Bus,
  type BusEvent,
  compilePattern,
  type Message,
  messageUnits,
  type Queue,
  type QueueFeed,
  storeErrors,
  type Value,
} from "@waggle/core";
import type { Journal } from "./journal.ts";
import type { Counts } from "./meter.ts";

/** The queue that carries matched events to their targets, so that none is lost in a crash and a slow target holds nobody up. */
export const deliveries = "~bus";

/** A target that throws gets the event this often, over about three minutes; EventBridge goes on for a day. */
export const deliveryOptions = { maxReceives: 8, visibilitySeconds: 60 };

const eventBytes = 256 * 1024;

interface Rule {
  readonly matches: (event: Value) => boolean;
  readonly target: (event: BusEvent) => Promise<void>;
}

export function createBus(options: {
  readonly queue: Queue;
  readonly feed: QueueFeed;
  readonly journal: Journal;
  readonly counts: Counts;
}): Bus {
  const { queue, feed, journal, counts } = options;
  const rules = new Map<string, Rule>();
  const deleted = new Set<string>();
  let consuming = false;

  function consume(): void {
    if (consuming) return;
    consuming = true;
    feed.consume(deliveries as never, { batch: 1, concurrency: 16 }, async (messages) => {
      const { id, body, receives } = messages[0] as Message;
      const { rule, event } = body as unknown as { rule: string; event: BusEvent };
      const again = receives < deliveryOptions.maxReceives ? [id] : [];
      // After a restart its rule may not be there yet.
      if (!rules.has(rule)) return { failed: deleted.has(rule) ? [] : again };
      try {
        await rules.get(rule)?.target(event);
        return { failed: [] };
      } catch {
        return { failed: again };
      }
    });
  }

  return {
    async publish(events) {
      journal.check();
      const found: { body: Value }[] = [];
      for (const event of events) {
        const bytes = Buffer.byteLength(JSON.stringify(event.detail));
        if (bytes > eventBytes) {
          throw storeErrors.messageInvalid(`the event's detail is ${bytes} bytes; at most ${eventBytes}`);
        }
        counts.busEvents += messageUnits(bytes);
        if (rules.size === 0) continue;
        // As a target sees it: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html
        const { source, detailType, detail, time, id } = event;
        const seen = { version: "0", id, "detail-type": detailType, source, time, resources: [], detail };
        for (const [rule, { matches }] of rules) {
          if (matches(seen)) found.push({ body: { rule, event: event as unknown as Value } });
        }
      }
      if (found.length > 0) await queue.send(found);
    },
    async putRule(name, pattern, target) {
      deleted.delete(name);
      rules.set(name, { matches: compilePattern(pattern), target });
      consume();
    },
    async deleteRule(name) {
      rules.delete(name);
      deleted.add(name);
    },
  };
}
