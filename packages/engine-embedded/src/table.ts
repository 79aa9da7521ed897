import type { Item } from "@waggle/core";
import { sortForm } from "./key.ts";

/** A row that differs from LMDB, or did until the checkpoint under way is done. */
export interface Entry {
  readonly pk: string;
  readonly sk: string;
  /** `sk` so that `<` sorts it as UTF-8. */
  readonly order: string;
  /** undefined: deleted */
  item: Item | undefined;
  /** DynamoDB size of the item; -1 while nobody asked. */
  bytes: number;
  /** LMDB holds a row under this key. */
  stored: boolean;
  /** Changed since the last checkpoint began. */
  dirty: boolean;
  /** Part of the checkpoint under way. */
  flying: boolean;
  /** No longer in the table. */
  gone: boolean;
}

/** Sorted rows of one partition in memory: chunks of sorted arrays, so that a lane of 100,000 rows costs no long splices. */
export interface Partition {
  readonly pk: string;
  readonly chunks: Entry[][];
  index: Map<string, Entry> | undefined;
  count: number;
  /**
   * No live row lies from `from` up to (not including) `to`, in memory or LMDB. A lane whose head was taken many times
   * since the last checkpoint has as many deleted rows there; a query need not walk over them again.
   */
  readonly dead: Gap;
  /** LMDB has no row there, as long as `checkpoint` is the last one. */
  readonly notStored: Gap & { checkpoint: number };
}

/** From `from` up to, not including, `to`, in sort form; `to` undefined: no end. `from` undefined: nothing is known. */
export interface Gap {
  from: string | undefined;
  to: string | undefined;
}

export const within = (gap: Gap, order: string): boolean =>
  gap.from !== undefined && gap.from <= order && (gap.to === undefined || order < gap.to);

const chunkSize = 256;
/** Below this many rows a binary search beats keeping a Map. */
const indexFrom = 24;

export type Table = ReturnType<typeof createTable>;

export function createTable() {
  const partitions = new Map<string, Partition>();
  let rows = 0;

  function find(partition: Partition | undefined, sk: string): Entry | undefined {
    if (partition === undefined) return undefined;
    if (partition.index !== undefined) return partition.index.get(sk);
    const order = sortForm(sk);
    const chunk = partition.chunks[chunkFor(partition, order)];
    if (chunk === undefined) return undefined;
    const found = chunk[lowerBound(chunk, order)];
    return found !== undefined && found.order === order ? found : undefined;
  }

  function insert(pk: string, sk: string): Entry {
    let partition = partitions.get(pk);
    if (partition === undefined) {
      partition = {
        pk,
        chunks: [],
        index: undefined,
        count: 0,
        dead: { from: undefined, to: undefined },
        notStored: { from: undefined, to: undefined, checkpoint: -1 },
      };
      partitions.set(pk, partition);
    }
    const entry: Entry = {
      pk,
      sk,
      order: sortForm(sk),
      item: undefined,
      bytes: -1,
      stored: false,
      dirty: false,
      flying: false,
      gone: false,
    };
    place(partition, entry);
    partition.count++;
    rows++;
    if (partition.index !== undefined) partition.index.set(sk, entry);
    else if (partition.count >= indexFrom) {
      partition.index = new Map();
      for (const chunk of partition.chunks) for (const each of chunk) partition.index.set(each.sk, each);
    }
    return entry;
  }

  function remove(entry: Entry): void {
    const partition = partitions.get(entry.pk);
    if (partition === undefined || entry.gone) return;
    entry.gone = true;
    rows--;
    partition.count--;
    if (partition.count === 0) {
      partitions.delete(entry.pk);
      return;
    }
    partition.index?.delete(entry.sk);
    const at = chunkFor(partition, entry.order);
    const chunk = partition.chunks[at] as Entry[];
    if (chunk.length === 1) partition.chunks.splice(at, 1);
    else chunk.splice(lowerBound(chunk, entry.order), 1);
  }

  /** A row lives where none was known to. */
  function revive(entry: Entry): void {
    const dead = partitions.get(entry.pk)?.dead;
    if (dead !== undefined && within(dead, entry.order)) dead.to = entry.order;
  }

  return {
    revive,
    partition: (pk: string): Partition | undefined => partitions.get(pk),
    find: (pk: string, sk: string): Entry | undefined => find(partitions.get(pk), sk),
    insert,
    remove,
    clear() {
      partitions.clear();
      rows = 0;
    },
    size: () => rows,
    partitions: (): string[] => [...partitions.keys()],
  };
}

function place(partition: Partition, entry: Entry): void {
  const { chunks } = partition;
  const last = chunks[chunks.length - 1];
  if (last === undefined) {
    chunks.push([entry]);
    return;
  }
  if ((last[last.length - 1] as Entry).order < entry.order) {
    if (last.length < chunkSize) last.push(entry);
    else chunks.push([entry]);
    return;
  }
  const at = chunkFor(partition, entry.order);
  const chunk = chunks[at] as Entry[];
  chunk.splice(lowerBound(chunk, entry.order), 0, entry);
  if (chunk.length > chunkSize) chunks.splice(at + 1, 0, chunk.splice(chunkSize >> 1));
}

/** The last chunk that begins at or before `order`, or the first. */
function chunkFor(partition: Partition, order: string): number {
  const { chunks } = partition;
  let low = 0;
  let high = chunks.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (((chunks[middle] as Entry[])[0] as Entry).order <= order) low = middle;
    else high = middle - 1;
  }
  return low;
}

function lowerBound(chunk: Entry[], order: string): number {
  let low = 0;
  let high = chunk.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((chunk[middle] as Entry).order < order) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Walks a partition's rows in order from the first at or after `from` (at or before, in reverse; `undefined`: the end). */
export function walk(partition: Partition, from: string | undefined, reverse: boolean): () => Entry | undefined {
  const { chunks } = partition;
  let at: number;
  let i: number;
  if (!reverse) {
    at = from === undefined ? 0 : chunkFor(partition, from);
    i = from === undefined ? 0 : lowerBound(chunks[at] as Entry[], from);
    return () => {
      for (;;) {
        const chunk = chunks[at];
        if (chunk === undefined) return undefined;
        if (i < chunk.length) return chunk[i++];
        at++;
        i = 0;
      }
    };
  }
  at = from === undefined ? chunks.length - 1 : chunkFor(partition, from);
  const first = chunks[at] as Entry[];
  if (from === undefined) i = first.length - 1;
  else {
    i = lowerBound(first, from);
    if (i === first.length || (first[i] as Entry).order > from) i--;
  }
  return () => {
    for (;;) {
      const chunk = chunks[at];
      if (chunk === undefined) return undefined;
      if (i >= 0) return chunk[i--];
      at--;
      i = (chunks[at]?.length ?? 0) - 1;
    }
  };
}
