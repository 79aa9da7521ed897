import { isError } from "../error.ts";
import { decodeCursor, encodeCursor, newest } from "../page.ts";
import { indexPartitions, taskKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { retry } from "../task/end.ts";
import { type Row, toInfo } from "../task/row.ts";
import type { Info } from "../task/schema.ts";
import type { Redrive } from "./schema.ts";

/** Tasks whose attempts are used up, newest first, each with its last error. */
export async function list(
  scope: Scope,
  query: { limit: number; cursor?: string | undefined },
): Promise<{ items: Info[]; nextCursor?: string }> {
  await scope.ports.store.projected();
  const partitions = indexPartitions(scope.tenant, "dead", "");
  let last = query.cursor === undefined ? undefined : decodeCursor("dead-letters", query.cursor);
  const items: Info[] = [];
  for (;;) {
    const batch = await newest(scope, partitions, query.limit + 1, last);
    for (const { sk } of batch) {
      if (items.length === query.limit) return { items, nextCursor: encodeCursor("dead-letters", last as string) };
      const row = (await scope.ports.store.get(taskKey(scope.tenant, sk))) as Row | undefined;
      if (row?.status === "failed") items.push(toInfo(row));
      last = sk;
    }
    if (batch.length <= query.limit) return { items };
  }
}

/** Each once; one that waits for another of them comes after it, as it cannot be tried again before. */
async function inOrder({ ports, tenant }: Scope, taskIds: readonly string[]): Promise<string[]> {
  const ids = [...new Set(taskIds)];
  const rows = (await ports.store.batchGet(ids.map((id) => taskKey(tenant, id)))) as (Row | undefined)[];
  const waitsFor = new Map(ids.map((id, i) => [id, rows[i]?.dependsOn ?? []]));
  const ordered: string[] = [];
  const visit = (id: string) => {
    const before = waitsFor.get(id);
    if (!before) return;
    waitsFor.delete(id);
    before.forEach(visit);
    ordered.push(id);
  };
  ids.forEach(visit);
  return ordered;
}

/** Looked at by one call with `all`; `nextCursor` leads to the others. */
const atOnce = 1000;

/**
 * Tries dead letters again, all at once or so many a second. Those that cannot be are listed with the reason.
 * @returns `nextCursor` of `all` when there may be more, which lie before these in time
 * @throws `request.invalid` for a cursor that it did not give
 */
export async function redrive(
  scope: Scope,
  input: Redrive,
): Promise<{ redriven: number; skipped: { taskId: string; code: string }[]; nextCursor?: string }> {
  await scope.ports.store.projected();
  const after = input.cursor === undefined ? undefined : decodeCursor("dead-letters", input.cursor);
  const page = input.taskIds ? [] : await newest(scope, indexPartitions(scope.tenant, "dead", ""), atOnce, after);
  const ids = input.taskIds ? await inOrder(scope, input.taskIds) : page.map((item) => item.sk).reverse();
  const skipped: { taskId: string; code: string }[] = [];
  let redriven = 0;
  for (const id of ids) {
    try {
      await retry(scope, id, input.perSecond === undefined ? 0 : Math.floor((redriven * 1000) / input.perSecond));
      redriven++;
    } catch (error) {
      if (!isError(error)) throw error;
      skipped.push({ taskId: id, code: error.code });
    }
  }
  const last = page.length === atOnce ? page.at(-1) : undefined;
  return { redriven, skipped, ...(last && { nextCursor: encodeCursor("dead-letters", last.sk) }) };
}
