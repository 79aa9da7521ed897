import type { Item, RowKey as Key } from "@waggle/core";
import { type Database, open, type RootDatabase } from "lmdb";
import { Packr } from "msgpackr";
import type { ExpiryRecord } from "./expiry.ts";
import type { ChangeRecord } from "./feed.ts";
import { type Place, rowKeys, sortForm } from "./key.ts";
import type { QueueRecord } from "./queue-state.ts";

/** What a checkpoint knows besides the rows. */
export interface Marker {
  /** Every logged step up to this one is in LMDB. */
  readonly lsn: number;
  readonly consumers: Readonly<Record<string, ConsumerMark>>;
}
export interface ConsumerMark {
  readonly kinds: readonly string[];
  readonly position: number;
}

/** A cursor; to be closed when not read to its end. */
export interface StoredRows {
  /** Goes to the next row. @returns its sort key in sort form */
  next(): string | undefined;
  /** The row it stands at. */
  item(): Item;
  close(): void;
}

export type Rows = ReturnType<typeof openRows>;

/** The settled part of the data: LMDB, written by checkpoints only. */
export function openRows(folder: string) {
  // 8 KB pages allow keys of 4026 bytes; 4 KB pages only 1978, less than DynamoDB's 2048 + 1024.
  // overlappingSync off: a commit resolves only once it is on disk.
  const root: RootDatabase = open(folder, {
    name: "meta",
    encoding: "binary",
    pageSize: 8192,
    overlappingSync: false,
    // Only whole checkpoints are written. Batching by turn makes promises of its own, whose rejection nobody could handle.
    eventTurnBatching: false,
    noSubdir: false,
    maxDbs: 8,
  } as never);
  const rows = root.openDB("rows", { encoding: "binary", keyEncoder: rowKeys } as never) as unknown as Database<
    Uint8Array,
    never
  > & { getBinaryFast(key: Key): Buffer | undefined };
  const queue = root.openDB("queue", { encoding: "binary" }) as Database<Uint8Array, string>;
  const changes = root.openDB("changes", { encoding: "binary" }) as Database<Uint8Array, string>;
  const expiry = root.openDB("expiry", { encoding: "binary" }) as Database<Uint8Array, string>;
  const meta = root as unknown as Database<Uint8Array, string>;

  // Rows of one shape share the list of their attribute names, kept under "shapes" and saved with the checkpoint that made it.
  let shapes: object[] | undefined;
  let shapesChanged = false;
  const packr = new Packr({
    useRecords: true,
    maxSharedStructures: 1024,
    getStructures: () => {
      const bytes = meta.get("shapes");
      return bytes === undefined ? [] : (JSON.parse(Buffer.from(bytes).toString()) as object[]);
    },
    saveStructures: (structures: object[] | { named?: object[] }) => {
      shapes = Array.isArray(structures) ? structures : (structures.named ?? []);
      shapesChanged = true;
      return true;
    },
  } as never);
  const plain = new Packr({ useRecords: false });

  function get(key: Key): Item | undefined {
    const bytes = rows.getBinaryFast(key);
    return bytes === undefined ? undefined : (packr.unpack(bytes, bytes.length) as Item);
  }

  return {
    get,
    /** Rows of a partition in order, from `low` (inclusive) up to `high` (inclusive). */
    range(pk: string, low: string, high: UpperBound, reverse: boolean): StoredRows {
      const lowest = sortForm(low);
      // Keys only: most rows of a busy lane have changed in memory, and then nobody wants the stored ones.
      const keys = rows
        .getKeys(
          (reverse
            ? { start: upperKey(pk, high, true), end: { pk, sk: "" }, reverse }
            : { start: { pk, sk: low }, end: upperKey(pk, high, false) }) as never,
        )
        [Symbol.iterator]();
      let sk: string | undefined;
      return {
        next() {
          const { done, value } = keys.next();
          if (done) return undefined;
          const order = sortForm(value as unknown as string);
          if (reverse && order < lowest) return undefined;
          sk = value as unknown as string;
          return order;
        },
        item: () => get({ pk, sk: sk as string }) as Item,
        close: () => void keys.return?.(),
      };
    },
    /** Every partition, in order: a step for each, however many rows it has. */
    *partitions(): Generator<string> {
      for (let start: Place = { pk: "", sk: "" }; ; ) {
        const [next] = [...rows.getRange({ start, limit: 1 } as never)];
        if (next === undefined) return;
        const { pk } = packr.unpack(next.value) as Item;
        yield pk;
        start = afterPartition(pk);
      }
    },
    encode: (item: Item): Uint8Array => packr.pack(item),

    marker(): Marker {
      const bytes = meta.get("marker");
      return bytes === undefined ? { lsn: 0, consumers: {} } : (plain.unpack(bytes) as Marker);
    },
    *messages(): Generator<QueueRecord> {
      for (const { value } of queue.getRange()) yield plain.unpack(value) as QueueRecord;
    },
    *changes(): Generator<ChangeRecord> {
      for (const { value } of changes.getRange()) yield plain.unpack(value) as ChangeRecord;
    },
    /** Records of rows to look at, from times up to `until`, the oldest first. */
    expiring(until: string, limit: number, without: ReadonlySet<string>): { key: string; record: ExpiryRecord }[] {
      const found: { key: string; record: ExpiryRecord }[] = [];
      for (const { key, value } of expiry.getRange({ end: until, limit: limit + without.size })) {
        if (without.has(key)) continue;
        found.push({ key, record: plain.unpack(value) as ExpiryRecord });
        if (found.length === limit) break;
      }
      return found;
    },
    /** Bytes of the file, and of those the ones no row needs, which are used for the next ones. */
    size(): { fileBytes: number; freeBytes: number } {
      const pagesOf = (database: { getStats(): object }) => {
        const stats = database.getStats() as {
          treeBranchPageCount: number;
          treeLeafPageCount: number;
          overflowPages: number;
        };
        return stats.treeBranchPageCount + stats.treeLeafPageCount + stats.overflowPages;
      };
      const {
        root: top,
        pageSize,
        lastPageNumber,
      } = root.getStats() as {
        root: object;
        pageSize: number;
        lastPageNumber: number;
      };
      const used = [rows, queue, changes, expiry, { getStats: () => top }].reduce(
        (sum, each) => sum + pagesOf(each),
        2,
      );
      const fileBytes = (lastPageNumber + 1) * pageSize;
      return { fileBytes, freeBytes: Math.max(0, fileBytes - used * pageSize) };
    },
    /** All of it in one synced transaction, or none. */
    async commit(batch: {
      rows: readonly { key: Key; bytes: Uint8Array | undefined }[];
      messages: readonly { key: string; record: QueueRecord | undefined }[];
      changes: readonly { key: string; record: ChangeRecord | undefined }[];
      expiry: readonly { key: string; record: ExpiryRecord | undefined }[];
      marker: Marker;
    }): Promise<void> {
      const savedShapes = shapesChanged ? Buffer.from(JSON.stringify(shapes)) : undefined;
      shapesChanged = false;
      const pinned: Uint8Array[] = [];
      try {
        await root.batch(() => {
          for (const row of batch.rows) {
            if (row.bytes === undefined) rows.remove(row.key as never);
            else rows.put(row.key as never, row.bytes);
          }
          for (const message of batch.messages) {
            if (message.record === undefined) queue.remove(message.key);
            else queue.put(message.key, pin(pinned, plain.pack(message.record)));
          }
          for (const change of batch.changes) {
            if (change.record === undefined) changes.remove(change.key);
            else changes.put(change.key, pin(pinned, plain.pack(change.record)));
          }
          for (const each of batch.expiry) {
            if (each.record === undefined) expiry.remove(each.key);
            else expiry.put(each.key, pin(pinned, plain.pack(each.record)));
          }
          if (savedShapes !== undefined) meta.put("shapes", pin(pinned, savedShapes));
          meta.put("marker", pin(pinned, plain.pack(batch.marker)));
        });
        await root.flushed;
      } catch (error) {
        shapesChanged ||= savedShapes !== undefined;
        // lmdb hands over what went wrong as a promise that rejects.
        const { commitError } = error as { commitError?: Promise<never> };
        if (commitError !== undefined) await commitError;
        throw error;
      } finally {
        root.resetReadTxn();
        rows.resetReadTxn();
        pinned.length = 0;
      }
    },
    close: (): Promise<void> => root.close(),
  };
}

const pin = (pinned: Uint8Array[], bytes: Uint8Array): Uint8Array => {
  pinned.push(bytes);
  return bytes;
};

/** undefined: the end of the partition; `prefix`: the last key that begins so */
export type UpperBound = { readonly text: string; readonly prefix: boolean } | undefined;

/** LMDB's ranges leave the end out and let the start in, so an upper bound that is an end lies one byte further. */
function upperKey(pk: string, high: UpperBound, isStart: boolean): Place {
  if (high === undefined) return afterPartition(pk);
  if (high.prefix) return { pk, sk: high.text, tail: 0xff };
  return isStart ? { pk, sk: high.text } : { pk, sk: high.text, tail: 0 };
}

/** A key right after the last one of a partition: rows begin with pk 0x00, this is pk 0x01. */
const afterPartition = (pk: string): Place => ({ pk: `${pk}\x01`, sk: "" });
