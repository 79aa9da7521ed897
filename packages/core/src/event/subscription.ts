import * as z from "zod/mini";
import { requestErrors } from "../error.ts";
import { text } from "../fields.ts";
import { createMemory } from "../memory.ts";
import type { Ports } from "../port/index.ts";
import { subscriptionKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { typesLike } from "./declared.ts";

/** Types of events that are published to the bus, for rules to act on; `task.*` stands for a family. */
export const Subscription = z.strictObject({ types: z.array(text(64)).check(z.maxLength(64)) });
export type Subscription = z.output<typeof Subscription>;

/**
 * Says which events go to the bus; those before are replaced. Each costs money on AWS, so none goes that nobody asked for.
 * @throws `request.invalid` for a type there is not
 */
export async function subscribe(scope: Scope, { types }: Subscription): Promise<Subscription> {
  for (const [at, type] of types.entries())
    if (typesLike(type).length === 0)
      throw requestErrors.invalid(`there are no events ${type}`, {
        errors: [{ path: `types.${at}`, message: "no such type of event" }],
      });
  const kept = [...new Set(types)];
  await scope.ports.store.write({ put: { ...subscriptionKey(scope.tenant), kind: "subscription", types: kept } });
  caches.of(scope.ports).delete(scope.tenant);
  return { types: kept };
}

export async function subscription(scope: Scope): Promise<Subscription> {
  const row = await scope.ports.store.get(subscriptionKey(scope.tenant));
  return { types: (row?.types as string[] | undefined) ?? [] };
}

/** Another process may have changed it: looked at again after this. */
const keptMs = 5_000;
const caches = createMemory<{ readonly at: number; readonly types: ReadonlySet<string> }>();

/** The types somebody subscribes to, as remembered. */
export async function subscribed(ports: Ports, tenant: string): Promise<ReadonlySet<string>> {
  const cache = caches.of(ports);
  const known = cache.get(tenant);
  const now = ports.clock.now();
  if (known && (!ports.shared || now - known.at < keptMs)) return known.types;
  const row = await ports.store.get(subscriptionKey(tenant));
  const types = new Set(((row?.types as string[] | undefined) ?? []).flatMap(typesLike));
  cache.set(tenant, { at: now, types });
  return types;
}
