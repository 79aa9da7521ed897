import { lastRows } from "../event/log.ts";
import { createMemory } from "../memory.ts";
import type { Scope } from "../scope.ts";

/** Of the last minute, or what lies in the newest rows of the event log if that is less. */
const windowMs = 60_000;
const rowsRead = 50;
/** Whoever asks more often gets the same answer. */
const knownMs = 1_000;

const rated = ["created", "assigned", "completed", "failed", "cancelled", "expired"] as const;

/** Tasks a second, by what became of them, over the last `seconds`. */
export interface Rates {
  readonly seconds: number;
  readonly perSecond: Readonly<Record<(typeof rated)[number], number>>;
}

const known = createMemory<{ at: number; rates: Rates }>();

export async function rates(scope: Scope): Promise<Rates> {
  const own = known.of(scope.ports);
  const now = scope.ports.clock.now();
  const last = own.get(scope.tenant);
  if (last && now >= last.at && now - last.at < knownMs) return last.rates;
  const found = await count(scope, now);
  own.set(scope.tenant, { at: now, rates: found });
  return found;
}

async function count(scope: Scope, now: number): Promise<Rates> {
  const counts = Object.fromEntries(rated.map((name) => [name, 0])) as Record<(typeof rated)[number], number>;
  const rows = await lastRows(scope, rowsRead);
  let since = now - windowMs;
  const oldest = rows.at(-1)?.entries[0];
  if (rows.length === rowsRead && oldest !== undefined) since = Math.max(since, oldest[1]);
  for (const { entries } of rows) {
    for (const [type, at] of entries) {
      const name = type.slice("task.".length) as (typeof rated)[number];
      if (at >= since && type.startsWith("task.") && name in counts) counts[name]++;
    }
  }
  const seconds = Math.max(1, (now - since) / 1000);
  for (const name of rated) counts[name] = Math.round((counts[name] / seconds) * 1000) / 1000;
  return { seconds: Math.round(seconds * 1000) / 1000, perSecond: counts };
}
