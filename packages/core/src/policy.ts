import { createMemory } from "./memory.ts";
import type { Changes, Item, Ports } from "./port/index.ts";
import type { Quotas } from "./quota/schema.ts";
import { defaultRetention, type Retention } from "./retention/schema.ts";
import { policyKey } from "./rows.ts";

/** What is settled for a whole tenant. */
export interface Policy {
  readonly retention: Retention;
  readonly quotas: Quotas;
  /** Tasks that ended by then may be gone though they would be kept now: they were kept shorter before. 0: none. */
  readonly retiredTo: number;
  /** The same of events that were written by then. */
  readonly forgottenTo: number;
  /** What was noted of events by then has no end of its own: they were kept for ever before. */
  readonly endlessTo: number;
}

/** Another process may have changed it: looked at again after this. */
export const policyMs = 60_000;
interface Known {
  readonly at: number;
  readonly policy: Policy;
}
const caches = createMemory<Known>();

/** The tenant's policy as remembered: on a shared store up to a minute old. */
export async function policyOf(ports: Ports, tenant: string): Promise<Policy> {
  const cache = caches.of(ports);
  const known = cache.get(tenant);
  const now = ports.clock.now();
  if (known && (!ports.shared || now - known.at < policyMs)) return known.policy;
  const policy = toPolicy(await ports.store.get(policyKey(tenant)));
  cache.set(tenant, { at: now, policy });
  return policy;
}

const toPolicy = (row: Item | undefined): Policy => ({
  retention: { ...defaultRetention, ...(row?.retention as Partial<Retention> | undefined) },
  quotas: (row?.quotas as Quotas | undefined) ?? {},
  retiredTo: (row?.retiredTo as number | undefined) ?? 0,
  forgottenTo: (row?.forgottenTo as number | undefined) ?? 0,
  endlessTo: (row?.endlessTo as number | undefined) ?? 0,
});

/** Changes a part of it, by what it is. The other part stays, also where others change that at the same time. */
export async function changePolicy(
  ports: Ports,
  tenant: string,
  change: (before: Policy) => Partial<Policy>,
): Promise<Policy> {
  const key = policyKey(tenant);
  for (;;) {
    const before = await ports.store.get(key);
    const rev = (before?.rev as number | undefined) ?? 0;
    const result = await ports.store.write({
      update: key,
      kind: "policy",
      set: { ...(change(toPolicy(before)) as Changes["set"]), rev: rev + 1 },
      if: rev === 0 ? { missing: ["rev"] } : { equals: { rev } },
    });
    caches.of(ports).delete(tenant);
    if (result.ok) return toPolicy(result.item);
  }
}

/** What was remembered may have been taken back. */
export const forgetPolicies = (ports: Ports): void => caches.forget(ports);
