import { serveGate } from "../match/dispatch.ts";
import type { Row } from "../match/gate.ts";
import { decodeCursor, encodeCursor } from "../page.ts";
import { gateKey, gateListKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { notFound } from "./error.ts";
import type { Info, Put } from "./schema.ts";

const toInfo = (key: string, row: Row | undefined): Info => ({
  key,
  ...(row?.concurrency !== undefined && { concurrency: row.concurrency }),
  ...(row?.rate !== undefined && { rate: row.rate }),
  running: row?.running ?? 0,
  waiting: row?.waiting ?? 0,
});

const lookedAtSeconds = 2;

/** Before a change, for some time after: should this process die once it is made, those that wait go on all the same. */
const lookLater = ({ ports, tenant }: Scope, key: string): Promise<void> =>
  ports.queues.timers.send([{ body: { gates: [[tenant, key]] }, delaySeconds: lookedAtSeconds }]);

/** Sets what holds for a key, over what tasks ask; what is left out no longer holds. */
export async function put(scope: Scope, key: string, input: Put): Promise<Info> {
  const { store } = scope.ports;
  const before = await get(scope, key);
  const { rate } = input;
  const sameRate = before.rate?.limit === rate?.limit && before.rate?.perSeconds === rate?.perSeconds;
  const remove = [
    ...(input.concurrency === undefined ? ["concurrency"] : []),
    ...(rate === undefined ? ["rate"] : []),
    // What was used up of another rate says nothing of this one: at one an hour, it would hold up one a second for an hour.
    ...(sameRate ? [] : ["tat"]),
  ];
  await lookLater(scope, key);
  await store.transact([
    {
      update: gateKey(scope.tenant, key),
      kind: "gate",
      set: {
        key,
        ...(input.concurrency !== undefined && { concurrency: input.concurrency }),
        ...(rate !== undefined && { rate }),
      },
      remove,
    },
    { put: { ...gateListKey(scope.tenant, key), kind: "limit" } },
  ]);
  await serveGate(scope, key);
  return get(scope, key);
}

/**
 * Takes away what the operator set: what tasks ask holds again, at once.
 * @throws `limit.not_found` when nothing is set
 */
export async function remove(scope: Scope, key: string): Promise<void> {
  await lookLater(scope, key);
  const { ok } = await scope.ports.store.transact([
    { delete: gateListKey(scope.tenant, key), if: { exists: true } },
    // The row stays: it counts the tasks that run and wait.
    { update: gateKey(scope.tenant, key), kind: "gate", remove: ["concurrency", "rate", "tat"] },
  ]);
  if (!ok) throw notFound(`no limit is set for ${key}`);
  await serveGate(scope, key);
}

/** What holds for a key and how much of it is in use; a key nobody has used is all zeros. */
export async function get(scope: Scope, key: string): Promise<Info> {
  return toInfo(key, (await scope.ports.store.get(gateKey(scope.tenant, key))) as Row | undefined);
}

/** The keys the operator has set, by name. */
export async function list(
  scope: Scope,
  query: { limit: number; cursor?: string | undefined },
): Promise<{ items: Info[]; nextCursor?: string }> {
  const page = await scope.ports.store.query({
    pk: gateListKey(scope.tenant, "").pk,
    limit: query.limit,
    ...(query.cursor !== undefined && { after: decodeCursor("limits", query.cursor) }),
  });
  const items = await Promise.all(page.items.map((item) => get(scope, item.sk)));
  return { items, ...(page.last !== undefined && { nextCursor: encodeCursor("limits", page.last) }) };
}
