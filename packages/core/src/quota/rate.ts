import { createMemory } from "../memory.ts";
import { rateKey } from "../rows.ts";
import type { Scope } from "../scope.ts";

interface Rate {
  readonly limit: number;
  readonly perSeconds: number;
}

/**
 * Takes `count` of what may be taken in a time. Whatever there is of room lets a whole batch pass, which the time after it
 * then lacks.
 * @returns 0, or after how many seconds there is room again
 */
export const takeRate = (scope: Scope, rate: Rate, count: number): Promise<number> | number =>
  scope.ports.shared ? takeOfWindow(scope, rate, count) : takeOfBucket(scope, rate, count);

const buckets = createMemory<{ tokens: number; at: number }>();

/** A token bucket in memory: full again after a restart. */
function takeOfBucket({ ports, tenant }: Scope, { limit, perSeconds }: Rate, count: number): number {
  const own = buckets.of(ports);
  const now = ports.clock.now();
  const { tokens, at } = own.get(tenant) ?? { tokens: limit, at: now };
  const perMs = limit / (perSeconds * 1000);
  const left = Math.min(limit, tokens + Math.max(0, now - at) * perMs);
  if (left < 1) {
    own.set(tenant, { tokens: left, at: now });
    return (1 - left) / perMs / 1000;
  }
  own.set(tenant, { tokens: left - count, at: now });
  return 0;
}

const tries = 5;

/** Where others share the store: a row counts what was taken of the present window. */
async function takeOfWindow(scope: Scope, { limit, perSeconds }: Rate, count: number): Promise<number> {
  const { store, clock } = scope.ports;
  const key = rateKey(scope.tenant);
  const now = clock.now();
  const windowMs = perSeconds * 1000;
  const window = Math.floor(now / windowMs);
  const left = ((window + 1) * windowMs - now) / 1000;
  for (let attempt = 0; attempt < tries; attempt++) {
    const add = { update: key, kind: "rate", add: { used: count } };
    const added = await store.write({ ...add, if: { equals: { window }, lessThan: { used: limit } } });
    if (added.ok) return 0;
    if (added.winner?.window === window) return left;
    const begun = await store.write({
      put: { ...key, kind: "rate", window, used: count },
      if: added.winner ? { equals: { window: added.winner.window as number } } : { exists: false },
    });
    if (begun.ok) return 0;
  }
  return left;
}
