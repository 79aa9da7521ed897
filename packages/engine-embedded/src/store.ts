import {
  type Changes,
  checkBatchGet,
  checkItemBytes,
  checkKey,
  checkQuery,
  checkTransactBytes,
  checkTransactItems,
  type Delete,
  expiryOf,
  type Item,
  isTransactional,
  itemBytes,
  type RowKey as Key,
  nameBytes,
  type Page,
  type Put,
  type Query,
  type Refusal,
  readUnits,
  rowKeyOf,
  type Store,
  storeErrors,
  type TransactResult,
  type Value,
  valueBytes,
  type Write,
  type WriteResult,
  writeUnits,
} from "@waggle/core";
import type { Checkpoints } from "./checkpoint.ts";
import { holds } from "./condition.ts";
import type { Feed } from "./feed.ts";
import type { Journal } from "./journal.ts";
import { sortForm, unsorted } from "./key.ts";
import type { Counts } from "./meter.ts";
import type { Rows, StoredRows, UpperBound } from "./rows.ts";
import { Step } from "./step.ts";
import { type Entry, type Partition, type Table, walk, within } from "./table.ts";

/** One write, decided but not yet done. */
interface Prepared {
  readonly write: Write;
  readonly key: Key;
  readonly entry: Entry | undefined;
  /** LMDB holds a row under the key; known when there is no entry. */
  readonly stored: boolean;
  readonly old: Item | undefined;
  readonly oldBytes: number;
  readonly next: Item | undefined;
  readonly nextBytes: number;
  readonly holds: boolean;
}

export interface StoreParts {
  readonly table: Table;
  readonly rows: Rows;
  readonly journal: () => Journal;
  readonly checkpoints: () => Checkpoints;
  readonly feed: Feed;
  readonly counts: Counts;
}

export type StoreCore = ReturnType<typeof createStore>;

export function createStore({ table, rows, journal, checkpoints, feed, counts }: StoreParts) {
  function read(key: Key): Item | undefined {
    const entry = table.find(key.pk, key.sk);
    return entry === undefined ? rows.get(key) : entry.item;
  }

  function prepare(write: Write): Prepared {
    const key = rowKeyOf(write);
    checkKey(key);
    const entry = table.find(key.pk, key.sk);
    const old = entry === undefined ? rows.get(key) : entry.item;
    const passes = write.if === undefined || holds(write.if, old);
    let oldBytes = entry === undefined ? -1 : entry.bytes;
    if (old === undefined) oldBytes = 0;
    else if (oldBytes === -1) oldBytes = itemBytes(old);
    let next = old;
    let nextBytes = oldBytes;
    if (passes) {
      if ("put" in write) {
        next = write.put;
        nextBytes = itemBytes(next);
      } else if ("update" in write) {
        const changed = change(old, oldBytes, key, write.kind, write);
        next = changed.item;
        nextBytes = changed.bytes;
      } else if ("delete" in write) {
        next = undefined;
        nextBytes = 0;
      }
      checkItemBytes(nextBytes);
    }
    return { write, key, entry, stored: old !== undefined, old, oldBytes, next, nextBytes, holds: passes };
  }

  /** Makes a decided write visible and logs it. */
  function apply({ write, key, entry: known, stored, old, next, nextBytes }: Prepared): void {
    if ("check" in write || (old === undefined && next === undefined)) return;
    const log = journal();
    if ("put" in write) log.steps.push(Step.Put, next);
    else if ("update" in write) {
      log.steps.push(
        Step.Update,
        key.pk,
        key.sk,
        write.kind,
        write.set ?? null,
        write.add ?? null,
        write.remove ?? null,
      );
    } else log.steps.push(Step.Delete, key.pk, key.sk);
    log.lsn++;
    log.touch();
    place(key, known, stored, next, nextBytes);
    feed.push(log.lsn, key, old, next);
  }

  function place(key: Key, known: Entry | undefined, stored: boolean, next: Item | undefined, bytes: number): void {
    let entry = known;
    if (entry === undefined || entry.gone) {
      entry = table.insert(key.pk, key.sk);
      entry.stored = stored;
    }
    if (next !== undefined && entry.item === undefined) table.revive(entry);
    entry.item = next;
    entry.bytes = bytes;
    // Made and deleted between two checkpoints: LMDB never hears of it.
    if (next === undefined && !entry.stored && !entry.flying) table.remove(entry);
    else checkpoints().mark(entry, bytes);
  }

  function meterWrite(prepared: Prepared, factor: number): void {
    counts.writeUnits += factor * writeUnits(Math.max(prepared.oldBytes, prepared.nextBytes));
  }

  const refuse = (winner: Item | undefined): Refusal =>
    winner === undefined ? { code: "condition" } : { code: "condition", winner };

  function writeNow(write: Write): WriteResult {
    const prepared = prepare(write);
    counts.storeCalls++;
    meterWrite(prepared, isTransactional(write) ? 2 : 1);
    if (!prepared.holds) return { ok: false, ...refuse(prepared.old) };
    // DynamoDB's transactions answer no row: it is read after them.
    if ("update" in write && isTransactional(write)) counts.readUnits += readUnits(prepared.nextBytes);
    apply(prepared);
    return prepared.next === undefined || "check" in write ? { ok: true } : { ok: true, item: prepared.next };
  }

  function transactNow(writes: readonly Write[]): TransactResult {
    checkTransactItems(writes.length);
    const prepared = writes.map(prepare);
    let bytes = 0;
    let refused = false;
    for (let i = 0; i < prepared.length; i++) {
      const each = prepared[i] as Prepared;
      bytes += Math.max(each.oldBytes, each.nextBytes);
      refused ||= !each.holds;
      for (let j = 0; j < i; j++) {
        const other = (prepared[j] as Prepared).key;
        if (other.sk === each.key.sk && other.pk === each.key.pk) {
          throw storeErrors.keyInvalid("a transaction has two writes to one row");
        }
      }
    }
    checkTransactBytes(bytes);
    counts.storeCalls++;
    const factor = prepared.length === 1 && !isTransactional((prepared[0] as Prepared).write) ? 1 : 2;
    for (const each of prepared) meterWrite(each, factor);
    if (refused) return { ok: false, reasons: prepared.map((each) => (each.holds ? undefined : refuse(each.old))) };
    for (const each of prepared) apply(each);
    return { ok: true };
  }

  function batchNow(writes: readonly (Put | Delete)[]): void {
    // All are checked before the first is done, so that a bad one changes nothing. Of two writes of a row the later one counts.
    const last = new Map<string, Prepared>();
    for (const write of writes) {
      const each = prepare(write);
      last.set(`${each.key.pk}\0${each.key.sk}`, each);
    }
    counts.storeCalls += Math.ceil(last.size / 25);
    for (const each of last.values()) {
      meterWrite(each, 1);
      if (each.holds) apply(each);
    }
  }

  function queryNow(query: Query): Page {
    checkQuery(query);
    const { pk, from, to, prefix, reverse = false, limit, after } = query;
    counts.storeCalls++;
    let low = prefix ?? from ?? "";
    let high: UpperBound =
      prefix !== undefined
        ? { text: prefix, prefix: true }
        : to === undefined
          ? undefined
          : { text: to, prefix: false };
    if (after !== undefined) {
      if (!reverse) low = sortForm(after) > sortForm(low) ? after : low;
      else if (high === undefined || sortForm(after) < upperOrder(high)) high = { text: after, prefix: false };
    }
    const items = merged(pk, low, high, reverse, limit, after);
    let bytes = 0;
    for (const item of items) bytes += itemBytes(item);
    counts.readUnits += readUnits(bytes);
    const last = items.length === limit ? (items[limit - 1] as Item).sk : undefined;
    return last === undefined ? { items } : { items, last };
  }

  /** Live rows between two bounds, both inclusive, from memory and LMDB; memory wins. At most `limit`, but for `after`. */
  function merged(pk: string, from: string, to: UpperBound, reverse: boolean, limit: number, after?: string): Item[] {
    const items: Item[] = [];
    let low = sortForm(from);
    const high = to === undefined ? undefined : upperOrder(to);
    const partition = table.partition(pk);
    let first = from;
    if (partition !== undefined && !reverse && within(partition.dead, low)) {
      if (partition.dead.to === undefined) return items;
      low = partition.dead.to;
      first = unsorted(low);
    }
    if (high !== undefined && low > high) return items;
    const inMemory = partition === undefined ? undefined : walk(partition, reverse ? high : low, reverse);
    const gap = partition?.notStored;
    if (gap !== undefined && gap.checkpoint !== checkpoints().number()) gap.from = undefined;
    // Up to there LMDB is known to have nothing: most lanes live and die in memory, and a cursor is dear.
    let skipping = gap !== undefined && !reverse && within(gap, low);
    let stored: StoredRows | undefined;
    let row: string | undefined;
    function openStored(): void {
      skipping = false;
      stored = rows.range(pk, first, to, reverse);
      row = stored.next();
      if (gap === undefined || reverse || (row === undefined && high !== undefined)) return;
      gap.from = low;
      gap.to = row;
      gap.checkpoint = checkpoints().number();
    }
    if (!skipping) openStored();
    let passed = 0;
    let entry = inMemory?.();
    for (;;) {
      if (entry !== undefined && (reverse ? entry.order < low : high !== undefined && entry.order > high)) {
        entry = undefined;
      }
      if (skipping && gap?.to !== undefined && (entry === undefined || entry.order >= gap.to)) {
        if (high === undefined || gap.to <= high) openStored();
        else skipping = false;
      }
      if (entry === undefined && row === undefined) break;
      let item: Item | undefined;
      if (row === undefined || (entry !== undefined && (reverse ? entry.order >= row : entry.order <= row))) {
        const current = entry as Entry;
        if (row === current.order) row = stored?.next();
        item = current.item;
        entry = inMemory?.();
      } else {
        item = (stored as StoredRows).item();
        row = stored?.next();
      }
      if (item === undefined) passed++;
      else if (item.sk !== after) {
        if (items.length === 0 && after === undefined) bury(partition, low, sortForm(item.sk), reverse ? 0 : passed);
        items.push(item);
        if (items.length === limit) break;
      }
    }
    stored?.close();
    if (items.length === 0 && high === undefined && after === undefined) {
      bury(partition, low, undefined, reverse ? 0 : passed);
    }
    return items;
  }

  /** Remembers deleted rows that a query walked over. */
  function bury(partition: Partition | undefined, low: string, to: string | undefined, passed: number): void {
    if (partition === undefined || passed < 4) return;
    const { dead } = partition;
    // Grown from its end, it keeps its beginning.
    if (dead.from === undefined || dead.to !== low) dead.from = low;
    dead.to = to;
  }

  /** @throws `store.unavailable` while nothing is taken */
  function checkWritable(): void {
    journal().check();
    const refusal = checkpoints().refusal();
    if (refusal === undefined) return;
    throw storeErrors.unavailable("rows cannot be written to disk", { cause: refusal, retryAfterSeconds: 1 });
  }

  /** Runs a write now, or when memory has room for it. */
  async function admit<T>(run: () => T): Promise<T> {
    for (;;) {
      checkWritable();
      const room = checkpoints().room();
      if (room === undefined) return run();
      await room;
    }
  }

  const store: Store = {
    async get(key) {
      journal().check();
      checkKey(key);
      const item = read(key);
      counts.storeCalls++;
      counts.readUnits += item === undefined ? 1 : readUnits(itemBytes(item));
      return item;
    },
    async batchGet(keys) {
      journal().check();
      checkBatchGet(keys);
      counts.storeCalls++;
      return keys.map((key) => {
        const item = read(key);
        counts.readUnits += item === undefined ? 1 : readUnits(itemBytes(item));
        return item;
      });
    },
    async query(query) {
      journal().check();
      return queryNow(query);
    },
    write: (write) => admit(() => writeNow(write)),
    transact: (writes) => admit(() => transactNow(writes)),
    batchWrite: (writes) => admit(() => batchNow(writes)),
    projected: () => feed.projected(),
    settled: (since, patient) => journal().settled(since, patient),
    generation: () => journal().generation,
  };

  return {
    store,
    /** Deletes the row if its time is over by now. @throws `store.unavailable` */
    expire(key: Key, now: number): void {
      checkWritable();
      const prepared = prepare({ delete: key });
      if (prepared.old !== undefined && (expiryOf(prepared.old) ?? Number.POSITIVE_INFINITY) <= now) apply(prepared);
    },
    /** Rows of a projection: visible at once, in LMDB with the next checkpoint, never in the log. */
    derive(writes: readonly Write[]): void {
      for (const write of writes) {
        if ("put" in write) {
          // What was there before is of no interest, so LMDB is not asked: it may hold a row, which is all that matters.
          const bytes = itemBytes(write.put);
          counts.writeUnits += writeUnits(bytes);
          place(write.put, table.find(write.put.pk, write.put.sk), true, write.put, bytes);
          continue;
        }
        const { key, entry, stored, old, next, nextBytes } = prepare(write);
        counts.writeUnits += writeUnits(nextBytes);
        if (old !== undefined || next !== undefined) place(key, entry, stored, next, nextBytes);
      }
      counts.storeCalls += Math.ceil(writes.length / 25);
    },
    /** Does again what the log says was done. */
    replay: {
      put(item: Item): void {
        again({ put: item });
      },
      update(key: Key, kind: string, changes: Changes): void {
        again({ update: key, kind, ...changes });
      },
      delete(key: Key): void {
        again({ delete: key });
      },
    },
  };

  function again(write: Write): void {
    const { key, entry, stored, old, next, nextBytes } = prepare(write);
    const log = journal();
    if (old === undefined && next === undefined) return;
    place(key, entry, stored, next, nextBytes);
    feed.push(log.lsn, key, old, next);
  }
}

/** The row after an update, and its size worked out from the old one's. */
function change(
  old: Item | undefined,
  oldBytes: number,
  key: Key,
  kind: string,
  { set, add, remove }: Changes,
): { item: Item; bytes: number } {
  let bytes = oldBytes;
  let item: Record<string, Value>;
  if (old === undefined) {
    item = { pk: key.pk, sk: key.sk, kind };
    bytes = itemBytes(item as unknown as Item);
  } else item = { ...old } as Record<string, Value>;
  if (remove !== undefined) {
    for (const name of remove) {
      const before = item[name];
      if (before === undefined) continue;
      bytes -= nameBytes(name) + valueBytes(before);
      // Undefined rather than `delete`d: V8 keeps objects that lost a property in a slow form.
      item[name] = undefined as never;
    }
  }
  if (set !== undefined) {
    for (const name in set) {
      const value = set[name] as Value;
      if (value === undefined) continue;
      const before = item[name];
      bytes += valueBytes(value) + (before === undefined ? nameBytes(name) : -valueBytes(before));
      item[name] = value;
    }
  }
  if (add !== undefined) {
    for (const name in add) {
      const before = item[name];
      if (before !== undefined && typeof before !== "number") {
        throw new TypeError(`cannot add to ${name}: it is not a number`);
      }
      const value = (before ?? 0) + (add[name] as number);
      bytes += valueBytes(value) + (before === undefined ? nameBytes(name) : -valueBytes(before));
      item[name] = value;
    }
  }
  if (item.pk !== key.pk || item.sk !== key.sk || typeof item.kind !== "string") {
    throw new TypeError("an update cannot change the key of a row or take its kind");
  }
  return { item: item as unknown as Item, bytes };
}

/** No text that begins with the prefix sorts after this: U+FFFF in sort form is half a character. */
const upperOrder = (high: NonNullable<UpperBound>): string => sortForm(high.text) + (high.prefix ? "\uffff" : "");
