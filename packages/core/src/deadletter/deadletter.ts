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

/** At most this many are redriven by one call with `all`; call again for more. */
const atOnce = 1000;

/** Tries dead letters again, all at once or so many a second. Those that cannot be are listed with the reason. */
export async function redrive(
  scope: Scope,
  input: Redrive,
): Promise<{ redriven: number; skipped: { taskId: string; code: string }[] }> {
  await scope.ports.store.projected();
  const ids =
    input.taskIds ??
    (await newest(scope, indexPartitions(scope.tenant, "dead", ""), atOnce)).map((item) => item.sk).reverse();
  const skipped: { taskId: string; code: string }[] = [];
  let redriven = 0;
  for (const id of new Set(ids)) {
    try {
      await retry(scope, id, input.perSecond === undefined ? 0 : Math.floor((redriven * 1000) / input.perSecond));
      redriven++;
    } catch (error) {
      if (!isError(error)) throw error;
      skipped.push({ taskId: id, code: error.code });
    }
  }
  return { redriven, skipped };
}
