import { counterKey } from "./rows.ts";
import type { Scope } from "./scope.ts";

/** What the projection counts of the tenant, by name: exact for all that was decided before; on AWS about a second behind. */
export async function counters(scope: Scope): Promise<Record<string, number>> {
  await scope.ports.store.projected();
  const {
    pk: _,
    sk: __,
    kind: ___,
    ...counts
  } = (await scope.ports.store.get(counterKey(scope.tenant))) ?? { pk: "", sk: "", kind: "" };
  return counts as Record<string, number>;
}

/** Those whose names begin so, without the beginning. */
export const family = (counts: Record<string, number>, prefix: string): Record<string, number> =>
  Object.fromEntries(
    Object.entries(counts).flatMap(([name, value]) =>
      name.startsWith(prefix) && value !== 0 ? [[name.slice(prefix.length), value]] : [],
    ),
  );
