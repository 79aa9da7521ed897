import { createMemory } from "../memory.ts";
import type { Condition, Item, Ports, RowKey, Write } from "../port/index.ts";
import { gateKey } from "../rows.ts";
import type * as Task from "../task/row.ts";

/** State of one limit key. `concurrency` and `rate` are what the operator set; they hold over what tasks ask. */
export interface Row extends Item {
  readonly kind: "gate";
  readonly key: string;
  readonly running?: number;
  readonly waiting?: number;
  /** GCRA's theoretical arrival time, ms. */
  readonly tat?: number;
  readonly concurrency?: number;
  readonly rate?: { readonly limit: number; readonly perSeconds: number };
}

export interface Blocked {
  readonly key: string;
  readonly reason: string;
  /** For a rate: when there will be room. */
  readonly nextAt?: number;
}

interface Ask {
  readonly key: string;
  readonly limit?: number;
  readonly rate?: { readonly limit: number; readonly perSeconds: number };
  readonly weight: number;
}

/** When each limit is looked at next, as far as this process has seen to it. */
const wakes = createMemory<number>();
const wakesKept = 10_000;

/**
 * Has a limit looked at once there is room under its rate. One message for all that wait: each look that finds no room asks for the
 * next, and as many messages as tasks would go round for as long as the last of them waits.
 */
export async function wakeAt(ports: Ports, tenant: string, key: string, nextAt: number): Promise<void> {
  const own = wakes.of(ports);
  const name = `${tenant}/${key}`;
  const now = ports.clock.now();
  const at = now + Math.min(900_000, Math.max(0, nextAt - now));
  const due = own.get(name);
  if (due !== undefined && due >= now && due <= at) return;
  if (own.size >= wakesKept) own.clear();
  own.set(name, at);
  try {
    await ports.queues.timers.send([{ body: { gates: [[tenant, key, at]] }, delaySeconds: (at - now) / 1000 }]);
  } catch (error) {
    woken(ports, tenant, key, at);
    throw error;
  }
}

/** The message sent for this time has come. */
export function woken(ports: Ports, tenant: string, key: string, at: number | undefined): void {
  const own = wakes.of(ports);
  const name = `${tenant}/${key}`;
  if (own.get(name) === at) own.delete(name);
}

/** After the store went back to its durable state: what was sent may not be. */
export const forgetWakes = (ports: Ports): void => wakes.forget(ports);

export const gated = (task: Task.Row): boolean => task.concurrency !== undefined || task.rate !== undefined;

/** What the task asks of limits, by key. */
export function asks(task: Task.Row): Ask[] {
  const byKey = new Map<string, Ask>();
  for (const { key, limit } of task.concurrency ?? [])
    byKey.set(key, { key, limit: Math.min(limit, byKey.get(key)?.limit ?? limit), weight: 1 });
  const { rate } = task;
  if (rate) byKey.set(rate.key, { ...byKey.get(rate.key), key: rate.key, rate, weight: rate.weight ?? 1 });
  return [...byKey.values()];
}

/** What holds: the operator's word over the task's. */
export const of = (ask: Ask, row: Row | undefined) => ({
  limit: row?.concurrency ?? ask.limit,
  rate: row?.rate ?? ask.rate,
});

/** What a time of today in milliseconds is rounded to is 0.00025 ms: an empty limit would have room for no weight of exactly a burst. */
const grainMs = 0.01;

/**
 * Room under a rate by the generic cell rate algorithm: a burst of `limit`, then one each `perSeconds / limit`.
 * Source: ITU-T I.371, annex A (virtual scheduling).
 */
export function admit(
  tat: number,
  rate: { readonly limit: number; readonly perSeconds: number },
  weight: number,
  now: number,
): { ok: true; tat: number } | { ok: false; nextAt: number } {
  const burst = rate.perSeconds * 1000;
  // More than a whole burst could never pass: it passes alone, when the burst is whole.
  const cost = (burst * Math.min(weight, rate.limit)) / rate.limit;
  const next = Math.max(tat, now) + cost;
  return next - now <= burst + grainMs
    ? { ok: true, tat: next }
    : { ok: false, nextAt: Math.max(now + 1, Math.ceil(next - burst)) };
}

/**
 * Reads the task's keys; answers the writes that take its place in all of them, or the key without room. Of one that waits at one of
 * them they also say that it waits no more.
 */
export async function enter(
  ports: Ports,
  tenant: string,
  task: Task.Row,
  now: number,
): Promise<{ blocked: Blocked; row: Row | undefined } | { blocked?: undefined; writes: Write[] }> {
  const wanted = asks(task);
  const rows = (await ports.store.batchGet(wanted.map((ask) => gateKey(tenant, ask.key)))) as (Row | undefined)[];
  const writes: Write[] = [];
  for (const [i, ask] of wanted.entries()) {
    const row = rows[i];
    const { limit, rate } = of(ask, row);
    const running = row?.running ?? 0;
    if (limit !== undefined && running >= limit) {
      return { row, blocked: { key: ask.key, reason: `limit ${ask.key}: ${running} of ${limit} running` } };
    }
    let tat: number | undefined;
    if (rate) {
      const admitted = admit(row?.tat ?? 0, rate, ask.weight, now);
      if (!admitted.ok) {
        return {
          row,
          blocked: {
            key: ask.key,
            nextAt: admitted.nextAt,
            reason: `rate ${ask.key}: ${rate.limit} per ${rate.perSeconds} s are used up`,
          },
        };
      }
      tat = admitted.tat;
    }
    const key = gateKey(tenant, ask.key);
    if (row === undefined)
      writes.push({
        put: { ...key, kind: "gate", key: ask.key, running: 1, ...(tat !== undefined && { tat }) },
        if: { exists: false },
      });
    else {
      writes.push({
        update: key,
        kind: "gate",
        add: { running: 1, ...(ask.key === task.gate && { waiting: -1 }) },
        ...(tat !== undefined && { set: { tat } }),
        // The row as read: its count and its time decide together.
        if: asRead(row, tat !== undefined),
      });
    }
  }
  return { writes };
}

/** A correction for whatever a caller says was used must leave a time that a row can hold: 30,000 years. */
const longestMs = 1e15;

/**
 * By how many milliseconds a rate's time is corrected where a call used `units` and had taken `weight` of it in advance; to thousandths, as a
 * sum of more than 38 digits is none that DynamoDB takes.
 */
export function correctionOf(
  rate: { readonly limit: number; readonly perSeconds: number },
  weight: number,
  units: number,
  tat: number,
  now: number,
): number {
  const taken = Math.min(weight, rate.limit);
  const behind = Math.max(0, now - tat);
  // Time that has passed unused since is not given back: correcting from `now` would be a double credit.
  const used = ((units - taken) * rate.perSeconds * 1000) / rate.limit + (units > taken ? behind : 0);
  return Math.round(Math.min(longestMs, used) * 1000) / 1000;
}

/**
 * Nobody entered since the row was read. Its time is only to be no later: DynamoDB adds a correction in decimals, and a sum of more digits
 * than a number has is never equal to what is read of it. One that was set back meanwhile is overwritten, which lets no more through.
 */
export function asRead({ running, tat }: Row, timed: boolean): Condition {
  const missing = [...(running === undefined ? ["running"] : []), ...(timed && tat === undefined ? ["tat"] : [])];
  return {
    missing,
    ...(running !== undefined && { equals: { running } }),
    ...(timed && tat !== undefined && { lessThan: { tat: tat + Math.max(Math.abs(tat), 1) * Number.EPSILON } }),
  };
}

/** Gives the places back. `units`: what the call really used of the rate, which corrects what it took in advance. */
export async function leave(
  ports: Ports,
  tenant: string,
  task: Task.Row,
  now: number,
  units?: number,
): Promise<Write[]> {
  const writes: Write[] = [];
  for (const ask of asks(task)) {
    const key = gateKey(tenant, ask.key);
    let correction: number | undefined;
    if (ask.rate && units !== undefined && units !== ask.weight) {
      const row = (await ports.store.get(key)) as Row | undefined;
      correction = correctionOf(row?.rate ?? ask.rate, ask.weight, units, row?.tat ?? now, now);
    }
    writes.push({
      update: key,
      kind: "gate",
      add: { running: -1, ...(correction !== undefined && { tat: correction }) },
      if: { exists: true },
    });
  }
  return writes;
}

export const keysOf = (task: Task.Row): string[] => asks(task).map((ask) => ask.key);

export const waitingWrite = (key: RowKey, name: string, by: 1 | -1): Write => ({
  update: key,
  kind: "gate",
  set: { key: name },
  add: { waiting: by },
});
