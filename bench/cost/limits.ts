import { functions } from "../../infra/manifest.ts";
import { taskKey } from "../../packages/core/src/rows.ts";
import { assumed } from "../prices.ts";
import type { Fleet } from "./idle.ts";
import type { Step } from "./steps.ts";
import { sum, type Units } from "./units.ts";

/** A quota of an account, or a limit of a service, in us-east-1. */
interface Limit {
  readonly name: string;
  readonly allows: number;
  /** What it is asked for at the rate and fleet given. */
  readonly needs: number;
  readonly unit: string;
  readonly raise: string;
}

/** Of the task keys of a tenant: how many there are, and the part the fullest has, as ids end. */
function taskKeys(): { count: number; fullest: number } {
  const ends = [..."0123456789abcdefghjkmnpqrstvwxyz"];
  const counts = new Map<string, number>();
  for (const end of ends) {
    const { pk } = taskKey("t", `tsk_${end}`);
    counts.set(pk, (counts.get(pk) ?? 0) + 1);
  }
  return { count: counts.size, fullest: Math.max(...counts.values()) / ends.length };
}

/** Which limits a load meets, the tightest first. Every need comes from a counted step, or from the manifest. */
export function limitsAt(steps: readonly Step[], fleets: readonly Fleet[], perSecond: number, agents: number): Limit[] {
  const of = (name: string): Units => (steps.find((step) => step.name === name) as Step).units;
  const way = sum(of("submit"), of("complete, socket"), of("follow"));
  const idle = fleets.find((fleet) => fleet.agents === agents && fleet.what.includes("900 s")) as Fleet;
  const seconds = assumed.daysPerMonth * 86_400;
  const said = idle.units.socketMessages / seconds;
  /** Functions at once that see to those who come anew. */
  const busy = (idle.units.lambdaCalls / seconds) * (assumed.requestMs / 1000);
  const calls = (name: string, ms: number) => (of(name).lambdaCalls * perSecond * ms) / 1000;
  const { batch, messageMs, requestMs, submitMs } = { batch: functions.dispatch.trigger.batch, ...assumed };
  /** Changes of a task that are worked on: it and its agent, when it is submitted, given and ended. */
  const changes = 4 * perSecond;
  const outboxMs = assumed.batchMs + assumed.changeMs * functions.outbox.trigger.batch;
  const shardReads = (1000 / outboxMs) * functions.outbox.trigger.batch;
  const keys = taskKeys();
  return [
    {
      name: "one tenant's counters, log end and guard: transactions on one row, one after the other",
      allows: 1000 / outboxMs,
      needs: changes / functions.outbox.trigger.batch,
      unit: "batches/s",
      raise: "more tenants; not yet: counters and log in shards",
    },
    {
      name: "dispatch function, reserved concurrency, if nobody is free at first",
      allows: functions.dispatch.trigger.concurrency,
      needs: (perSecond / batch) * ((messageMs * batch) / 1000),
      unit: "at once",
      raise: "`concurrency` and `reserved` in infra/manifest.ts, and the account's quota",
    },
    {
      name: "API function, reserved concurrency",
      allows: functions.api.reserved,
      needs: calls("submit", submitMs),
      unit: "at once",
      raise: "batches of ten need a tenth; `reserved` in infra/manifest.ts",
    },
    {
      name: "socket function, reserved concurrency",
      allows: functions.socket.reserved,
      needs: calls("complete, socket", requestMs) + busy,
      unit: "at once",
      raise: "`reserved` in infra/manifest.ts",
    },
    {
      name: "WebSocket messages from agents, this deployment's throttle",
      allows: functions.socket.trigger.requestsPerSecond,
      needs: perSecond + said,
      unit: "/s",
      raise: "`requestsPerSecond` in infra/manifest.ts; the account's quota is 10,000",
    },
    {
      name: "new WebSocket connections, all agents back within a minute",
      allows: 500,
      needs: agents / 60,
      unit: "/s",
      raise: "quota of the account; the agents' back-off spreads them",
    },
    {
      name: "outbox: changes of one table partition",
      allows: shardReads,
      needs: changes * keys.fullest,
      unit: "changes/s, where each task key has a partition of its own",
      raise: "`ParallelizationFactor` up to 10 a shard",
    },
    {
      name: "one partition key of tasks",
      allows: 1000,
      // Submitted and given 1, ended 1.
      needs: 2 * perSecond * keys.fullest,
      unit: `W/s on the fullest of ${keys.count} keys a tenant`,
      raise: "more keys a tenant (`taskShards`)",
    },
    {
      name: "DynamoDB writes, quota of a table on demand",
      allows: 40_000,
      needs: way.writeUnits * perSecond,
      unit: "W/s",
      raise: "quota of the account; warm throughput beforehand",
    },
    {
      name: "SQS messages in flight, dispatch",
      allows: 120_000,
      needs: perSecond * ((messageMs * batch) / 1000),
      unit: "messages, while the function keeps up",
      raise: "what waits is not in flight",
    },
    {
      name: "Lambda, the account's concurrency",
      allows: 1000,
      needs: way.lambdaGbSeconds * 2 * perSecond + busy,
      unit: "at once, all functions",
      raise: "quota of the account",
    },
    {
      name: "EventBridge PutEvents, if each end is subscribed to",
      allows: 10_000,
      needs: perSecond,
      unit: "events/s",
      raise: "quota of the account; types nobody subscribes to cost nothing",
    },
  ].sort((a, b) => b.needs / b.allows - a.needs / a.allows);
}
