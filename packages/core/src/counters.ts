import { type Item, itemBytes, nameBytes, type Ports, type Put, type Update } from "./port/index.ts";
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
      name.startsWith(prefix) && value > 0 ? [[name.slice(prefix.length), value]] : [],
    ),
  );

/** By names that callers choose: the capabilities that tasks ask for. */
const isNamed = (name: string): boolean => name.startsWith("depth.");
/** What the row may come to by such names: some hundreds of them. It is written with every batch of changes. */
const rowBytes = 16 * 1024;
const numberBytes = 8;

/** Whether this may be a name there was no room for, in a row that is full, or was not long ago. */
export const mayLack = (row: Item, name: string): boolean => isNamed(name) && itemBytes(row) > rowBytes / 2;

/**
 * The write that counts. Whoever makes up names must not fill the row, on which lists and events depend: where a new one does not fit, those that
 * have come to nothing go, and what does not fit even so is not counted. That is decided by the row as it stands, which the projection alone writes.
 */
export async function countedBy(
  ports: Ports,
  tenant: string,
  counts: ReadonlyMap<string, number>,
): Promise<Put | Update | undefined> {
  const key: Item = { ...counterKey(tenant), kind: "counters" };
  const changed = [...counts].filter(([, by]) => by !== 0);
  const row = changed.some(([name]) => isNamed(name)) ? ((await ports.store.get(key)) ?? key) : undefined;
  const isNew = (name: string) => row !== undefined && isNamed(name) && row[name] === undefined;
  // What was not counted when it came is not when it goes.
  const least = (name: string) =>
    row !== undefined && isNamed(name) ? -((row[name] as number | undefined) ?? 0) : -Infinity;
  const add = changed
    .map(([name, by]): [string, number] => [name, Math.max(by, least(name))])
    .filter(([, by]) => by !== 0);
  const bytes = add.reduce((sum, [name]) => sum + (isNew(name) ? nameBytes(name) + numberBytes : 0), 0);
  if (row === undefined || bytes === 0 || itemBytes(row) + bytes <= rowBytes)
    return add.length === 0 ? undefined : { update: key, kind: key.kind, add: Object.fromEntries(add) };
  const next: Record<string, number> = {};
  for (const [name, count] of Object.entries(row))
    if (typeof count === "number" && (count > 0 || !isNamed(name))) next[name] = count;
  let size = itemBytes({ ...key, ...next });
  for (const [name, by] of add) {
    const more = next[name] === undefined ? nameBytes(name) + numberBytes : 0;
    if (isNamed(name) && more > 0 && size + more > rowBytes) continue;
    next[name] = (next[name] ?? 0) + by;
    size += more;
  }
  return { put: { ...key, ...next } };
}
