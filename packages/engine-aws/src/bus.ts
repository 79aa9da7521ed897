import type { PutEventsRequestEntry } from "@aws-sdk/client-eventbridge";
import { type Bus, type BusEvent, messageUnits, storeErrors, type Value } from "@waggle/core";
import type { Clients } from "./clients.ts";
import type { Counts } from "./meter.ts";
import type { Caller } from "./retry.ts";

export interface BusParts {
  readonly bus: string;
  readonly clients: Clients;
  readonly caller: Caller;
  readonly counts: Counts;
  readonly check: () => void;
  /** Who makes rules and calls their targets; where nobody does, rules are part of the deployment. */
  readonly rules?: Pick<Bus, "putRule" | "deleteRule">;
}

const eventBytes = 256 * 1024;
const callEntries = 10;
const callBytes = 1_000_000;
/** EventBridge gives each event an id of its own; ours travels among its resources. */
const idPrefix = "waggle:event/";

export function createBus({ bus, clients, caller, counts, check, rules }: BusParts): Bus {
  return {
    async publish(events) {
      check();
      const calls: { entry: PutEventsRequestEntry; bytes: number }[][] = [];
      let callSize = 0;
      for (const event of events) {
        const detail = JSON.stringify(event.detail);
        const bytes = Buffer.byteLength(detail);
        if (bytes > eventBytes) {
          throw storeErrors.messageInvalid(`the event's detail is ${bytes} bytes; at most ${eventBytes}`);
        }
        const entry = {
          EventBusName: bus,
          Source: event.source,
          DetailType: event.detailType,
          Detail: detail,
          Time: new Date(event.time),
          Resources: [idPrefix + event.id],
        };
        const last = calls.at(-1);
        if (last === undefined || last.length === callEntries || callSize + bytes > callBytes) {
          calls.push([{ entry, bytes }]);
          callSize = bytes;
        } else {
          last.push({ entry, bytes });
          callSize += bytes;
        }
        counts.busEvents += messageUnits(bytes);
      }
      const { PutEventsCommand } = await import("@waggle/engine-aws/sdk/events");
      const client = await clients.bus();
      await Promise.all(
        calls.map((own) =>
          caller.callRest("bus", own, async (rest, signal) => {
            const command = new PutEventsCommand({ Entries: rest.map((each) => each.entry) });
            const { Entries = [], FailedEntryCount = 0 } = await client.send(command, { abortSignal: signal });
            if (FailedEntryCount === 0) return { rest: [] };
            // In the order they were given; the failed ones have a code.
            const failed = Entries.find((each) => each.ErrorCode !== undefined);
            return {
              rest: rest.filter((_, i) => Entries[i]?.ErrorCode !== undefined),
              cause: new Error(`${failed?.ErrorCode}: ${failed?.ErrorMessage ?? ""}`),
            };
          }),
        ),
      );
    },
    async putRule(name, pattern, target) {
      check();
      if (rules === undefined) throw storeErrors.busUnavailable("rules with targets in code need a running process");
      await rules.putRule(name, pattern, target);
    },
    async deleteRule(name) {
      check();
      if (rules === undefined) throw storeErrors.busUnavailable("rules with targets in code need a running process");
      await rules.deleteRule(name);
    },
  };
}

/** An event as EventBridge gives it to a target: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html */
export function fromBus(seen: Value): BusEvent {
  const event = seen as unknown as {
    readonly id: string;
    readonly source: string;
    readonly "detail-type": string;
    readonly time: string;
    readonly resources?: readonly string[];
    readonly detail: BusEvent["detail"];
  };
  const own = event.resources?.find((each) => each.startsWith(idPrefix));
  return {
    id: own === undefined ? event.id : own.slice(idPrefix.length),
    source: event.source,
    detailType: event["detail-type"],
    detail: event.detail,
    time: event.time,
  };
}
