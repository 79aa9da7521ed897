import type { z } from "zod/mini";
import * as EventLog from "../event/log.ts";
import { decodeCursor, encodeCursor, getAll, newest } from "../page.ts";
import type { Item } from "../port/index.ts";
import { type IndexField, indexPartitions, taskKey, taskPartition, taskShards } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { missing } from "./error.ts";
import { type Row, terminal, toInfo } from "./row.ts";
import type { Info, ListQuery } from "./schema.ts";
import { readBlob, readTask } from "./stored.ts";

export const taskChannel = (tenant: string, id: string): string => `task/${tenant}/${id}`;

/** The task with its payloads. With `waitSeconds`, once it has ended or when the time is up. */
export async function get(
  scope: Scope,
  id: string,
  options: { waitSeconds?: number; signal?: AbortSignal } = {},
): Promise<Info> {
  const row = await readTask(scope, id);
  if (!row) throw missing(id);
  if (!options.waitSeconds || terminal.has(row.status)) return withPayloads(scope, row);
  const { live, clock } = scope.ports;
  await new Promise<void>((resolve) => {
    let cancelPoll = () => {};
    let over = false;
    const finish = () => {
      over = true;
      unsubscribe();
      stop();
      cancelPoll();
      options.signal?.removeEventListener("abort", finish);
      resolve();
    };
    const unsubscribe = live.subscribe(taskChannel(scope.tenant, id), finish);
    const stop = clock.after((options.waitSeconds as number) * 1000, finish);
    options.signal?.addEventListener("abort", finish);
    if (options.signal?.aborted) finish();
    // It may have ended between the read and the subscription; and where nothing tells of it, it is looked at again.
    const look = (): unknown =>
      readTask(scope, id).then((again) => {
        if (!again || terminal.has(again.status)) finish();
        else if (live.pollMs !== undefined && !over) cancelPoll = clock.after(live.pollMs, look);
      }, finish);
    look();
  });
  const last = await readTask(scope, id);
  if (!last) throw missing(id);
  return withPayloads(scope, last);
}

/** The task with its payloads; as it is now, when they have gone since its row was read. */
export async function withPayloads(scope: Scope, row: Row): Promise<Info> {
  const { inputBlob, resultBlob } = row;
  const info = toInfo(row);
  if (inputBlob !== undefined) info.input = await readBlob(scope, inputBlob);
  if (resultBlob !== undefined) info.result = await readBlob(scope, resultBlob);
  const all = [inputBlob === undefined || info.input, resultBlob === undefined || info.result];
  if (!all.includes(undefined)) return info;
  const now = await readTask(scope, row.id);
  if (!now) throw missing(row.id);
  return now.inputBlob === inputBlob && now.resultBlob === resultBlob ? info : withPayloads(scope, now);
}

/** At most this many rows are looked at for one page of a filtered list; the cursor goes on from there. */
const pageEffort = 2000;

/** Tasks newest first. Filtered by the narrowest list there is, the rest by looking. Payloads kept as blobs are left out. */
export async function list(
  scope: Scope,
  query: z.output<typeof ListQuery>,
): Promise<{ items: Info[]; nextCursor?: string }> {
  await scope.ports.store.projected();
  const cursor = query.cursor === undefined ? undefined : decodeCursor("tasks", query.cursor);
  const by = (["parentId", "agentId", "tag", "type", "status"] as const).find((name) => query[name] !== undefined);
  const fields: Record<string, IndexField> = {
    parentId: "parent",
    agentId: "agent",
    tag: "tag",
    type: "type",
    status: "status",
  };
  const partitions = by
    ? indexPartitions(scope.tenant, fields[by] as IndexField, query[by] as string)
    : Array.from({ length: taskShards }, (_, shard) => taskPartition(scope.tenant, shard));
  const wanted = (row: Row) =>
    (query.status === undefined || row.status === query.status) &&
    (query.type === undefined || row.type === query.type) &&
    (query.agentId === undefined || row.agentId === query.agentId) &&
    (query.tag === undefined || row.tags?.includes(query.tag)) &&
    (query.parentId === undefined || row.parentId === query.parentId);
  const items: Info[] = [];
  let last = cursor;
  let looked = 0;
  for (;;) {
    const batch = await newest(scope, partitions, query.limit + 1, last);
    const rows = by
      ? ((await getAll(
          scope.ports.store,
          batch.map((item) => taskKey(scope.tenant, item.sk)),
        )) as (Row | undefined)[])
      : (batch as unknown as Row[]);
    for (const [i, row] of rows.entries()) {
      if (items.length === query.limit) return { items, nextCursor: encodeCursor("tasks", last as string) };
      if (row && wanted(row)) items.push(toInfo(row));
      last = (batch[i] as Item).sk;
    }
    looked += batch.length;
    if (batch.length <= query.limit) return { items };
    if (looked >= pageEffort) return { items, nextCursor: encodeCursor("tasks", last as string) };
  }
}

/** The task's own events: a filtered view of the tenant's log. */
export async function events(
  scope: Scope,
  id: string,
  query: { after: number; limit: number },
): ReturnType<typeof EventLog.list> {
  if (!(await readTask(scope, id))) throw missing(id);
  return EventLog.list(scope, { ...query, taskId: id });
}

/** Why it waits, or why this agent: in words and numbers. Loaded when it is first asked for: a start should not wait for it. */
export const explain = async (scope: Scope, id: string): Promise<Record<string, unknown>> =>
  (await import("./explain.ts")).explain(scope, id);
