import type { Item } from "../port/index.ts";
import {
  eventHeadKey,
  eventPartition,
  eventRowsPerPartition,
  indexKey,
  sequenceKey,
  taskEventPartition,
  taskKey,
} from "../rows.ts";
import type { Scope } from "../scope.ts";
import { isNamed } from "./declared.ts";
import { gone } from "./error.ts";
import { type Info, namesOf } from "./schema.ts";

/** As stored: `[type, at, taskId | "", agentId | "", data]`; its sequence number is its place in the row. */
export type Entry = readonly [string, number, string, string, Readonly<Record<string, unknown>>];
export interface Row extends Item {
  readonly kind: "events";
  readonly first: number;
  readonly entries: readonly Entry[] & Item[string];
}

export const eventChannel = (tenant: string): string => `events/${tenant}`;

const toInfo = (entry: Entry, sequence: number): Info => ({
  sequence,
  type: entry[0],
  at: new Date(entry[1]).toISOString(),
  ...(entry[2] && { taskId: entry[2] }),
  ...(entry[3] && { agentId: entry[3] }),
  data: entry[4],
});

export function typeFilter(types: string | undefined): (type: string) => boolean {
  if (types === undefined || types === "") return () => true;
  const wanted = namesOf(types);
  return (type) => wanted.some((name) => isNamed(type, name));
}

export async function last(scope: Scope): Promise<number> {
  await scope.ports.store.projected();
  const head = await scope.ports.store.get(eventHeadKey(scope.tenant));
  return (head?.last as number | undefined) ?? 0;
}

/** At most this many rows are read for one page of a filtered view. */
const pageRows = 400;

/** The log after a sequence number, in order. `nextAfter` goes on from here, also past events the filter left out. */
export async function list(
  scope: Scope,
  query: {
    readonly after: number;
    readonly limit: number;
    readonly types?: string | undefined;
    readonly taskId?: string | undefined;
  },
): Promise<{ items: Info[]; nextAfter: number }> {
  await scope.ports.store.projected();
  const wanted = typeFilter(query.types);
  const items: Info[] = [];
  let nextAfter = query.after;
  let rows = 0;
  for await (const row of query.taskId === undefined
    ? rowsAfter(scope, query.after)
    : rowsOfTask(scope, query.taskId, query.after)) {
    for (const [i, entry] of row.entries.entries()) {
      const sequence = row.first + i;
      // Where a projection was tried twice, a row may be noted twice.
      if (sequence <= nextAfter) continue;
      const fits = (query.taskId === undefined || entry[2] === query.taskId) && wanted(entry[0]);
      if (fits && items.length === query.limit) return { items, nextAfter };
      if (fits) items.push(toInfo(entry, sequence));
      nextAfter = sequence;
    }
    if (++rows >= pageRows) break;
  }
  return { items, nextAfter };
}

async function* rowsAfter(scope: Scope, after: number): AsyncGenerator<Row> {
  const { store } = scope.ports;
  const end = await last(scope);
  let row = await firstRow(scope, after, end);
  while (row !== undefined) {
    yield row;
    let next = row.first + row.entries.length;
    const pk = eventPartition(scope.tenant, row.first);
    let after: string | undefined = row.sk;
    while (after !== undefined) {
      const page = await store.query({ pk, after, limit: 20 });
      for (const item of page.items) {
        const following = item as Row;
        // Deleted meanwhile: whoever reads on from before it is told.
        if (following.first !== next) return;
        yield following;
        next += following.entries.length;
      }
      after = page.last;
    }
    row = next <= end ? await holding(scope, next) : undefined;
  }
}

/** The newest rows of the log, the newest first, at most so many; of its last million events or more. */
export async function lastRows(scope: Scope, limit: number): Promise<Row[]> {
  const end = await last(scope);
  const newest = async (sequence: number, most: number): Promise<readonly Item[]> =>
    (await scope.ports.store.query({ pk: eventPartition(scope.tenant, sequence), reverse: true, limit: most })).items;
  const rows = [...(await newest(end, limit))];
  if (rows.length < limit && end >= eventRowsPerPartition)
    rows.push(...(await newest(end - eventRowsPerPartition, limit - rows.length)));
  return rows as Row[];
}

/** The row that holds the event of this number. */
async function holding(scope: Scope, sequence: number): Promise<Row | undefined> {
  const pk = eventPartition(scope.tenant, sequence);
  const page = await scope.ports.store.query({ pk, to: sequenceKey(sequence), reverse: true, limit: 1 });
  const row = page.items[0] as Row | undefined;
  return row && row.first + row.entries.length > sequence ? row : undefined;
}

/** The row of the event after this number; of the first there is, for who begins. @throws `event.gone` */
async function firstRow(scope: Scope, after: number, end: number): Promise<Row | undefined> {
  if (after >= end) return undefined;
  const row = await holding(scope, after + 1);
  if (row) return row;
  let found: Row | undefined;
  let from = after + 1;
  while (!found && from <= end) {
    const pk = eventPartition(scope.tenant, from);
    const page = await scope.ports.store.query({ pk, from: sequenceKey(from), limit: 1 });
    found = page.items[0] as Row | undefined;
    from = (Math.floor(from / eventRowsPerPartition) + 1) * eventRowsPerPartition;
  }
  if (after === 0) return found;
  const firstSequence = found?.first ?? end + 1;
  throw gone(`events up to ${firstSequence - 1} are past their retention; read on after ${firstSequence - 1}`, {
    data: { firstSequence },
  });
}

/** @throws `event.gone` where events after this number are past their retention, or it is of another log */
export async function reach(scope: Scope, after: number): Promise<void> {
  await firstRow(scope, after, await endFrom(scope, after));
}

/**
 * @returns the number of the last event
 * @throws `event.gone` where this number is of another log
 */
export async function endFrom(scope: Scope, after: number): Promise<number> {
  const end = await last(scope);
  if (after <= end) return end;
  const firstSequence = (await firstRow(scope, 0, end))?.first ?? end + 1;
  throw gone(`the log ends at ${end}: number ${after} is of another one; read it after ${firstSequence - 1}`, {
    data: { firstSequence },
  });
}

/** Whether there is a task for more events to come of. */
export const hasTask = async ({ ports, tenant }: Scope, taskId: string): Promise<boolean> =>
  (await ports.store.get(taskKey(tenant, taskId))) !== undefined;

async function* rowsOfTask(scope: Scope, taskId: string, after: number): AsyncGenerator<Row> {
  const { store } = scope.ports;
  const task = await store.get(taskKey(scope.tenant, taskId));
  if (!task) return;
  // The first events are noted where the task is listed by type, later ones in rows of their own.
  const entry = await store.get(indexKey(scope.tenant, "type", task.type as string, taskId));
  yield* rowsAt(scope, (entry?.events as number[] | undefined) ?? []);
  const pk = taskEventPartition(scope.tenant, taskId);
  // A row that begins before `after` may still hold later events.
  const before = await store.query({ pk, to: sequenceKey(after), reverse: true, limit: 1 });
  let from = before.items[0]?.sk ?? sequenceKey(after);
  for (;;) {
    const page = await store.query({ pk, from, limit: 100 });
    for (const { rows } of page.items) yield* rowsAt(scope, rows as number[]);
    if (page.last === undefined) return;
    from = `${page.last}!`;
  }
}

async function* rowsAt(scope: Scope, firsts: readonly number[]): AsyncGenerator<Row> {
  for (const first of firsts) {
    const row = await scope.ports.store.get({ pk: eventPartition(scope.tenant, first), sk: sequenceKey(first) });
    if (row) yield row as Row;
  }
}

/** History, then live, without a gap or a repeat, until the signal aborts. */
export async function* follow(
  scope: Scope,
  query: {
    readonly after: number;
    readonly types?: string | undefined;
    readonly taskId?: string | undefined;
    readonly signal: AbortSignal;
  },
): AsyncGenerator<Info> {
  const { live, clock, store } = scope.ports;
  let wake: () => void = () => {};
  let pending = true;
  const nudge = () => {
    pending = true;
    wake();
  };
  const off = live.subscribe(eventChannel(scope.tenant), nudge);
  query.signal.addEventListener("abort", nudge);
  try {
    let after = query.after;
    while (!query.signal.aborted) {
      pending = false;
      const generation = store.generation();
      const { items, nextAfter } = await list(scope, { after, limit: 200, types: query.types, taskId: query.taskId });
      // Nothing leaves before it is durable, nor what was taken back meanwhile: its numbers go to other events.
      await store.settled(generation);
      for (const item of items) {
        yield item;
        if (query.signal.aborted) return;
      }
      if (nextAfter > after) {
        after = nextAfter;
        continue;
      }
      if (pending || query.signal.aborted) continue;
      let cancel = () => {};
      await new Promise<void>((resolve) => {
        wake = resolve;
        if (live.pollMs !== undefined) cancel = clock.after(live.pollMs, nudge);
      });
      cancel();
    }
  } finally {
    off();
    query.signal.removeEventListener("abort", nudge);
  }
}
