import type { Clock, Item } from "@waggle/core";
import type { Expiry } from "./expiry.ts";
import type { Feed } from "./feed.ts";
import type { Log } from "./log.ts";
import type { Queues } from "./queue.ts";
import type { Rows } from "./rows.ts";
import type { Entry, Table } from "./table.ts";
import { nextTurn } from "./turn.ts";

export type Checkpoints = ReturnType<typeof createCheckpoints>;

/** Carries the memory table into LMDB in the background, so that it stays small and the log short. */
export function createCheckpoints(options: {
  readonly table: Table;
  readonly rows: Rows;
  readonly log: Log;
  readonly queues: Queues;
  readonly feed: Feed;
  readonly expiry: Expiry;
  readonly clock: Clock;
  /** Changed bytes in memory or bytes of log after which a checkpoint is due. */
  readonly everyBytes: number;
  readonly everyMs: number;
  /** One has ended, and carried what it was to. */
  readonly written: () => void;
  /**
   * One could not be written: while nothing is taken for want of room no frame would begin the next.
   * @param again nor could the one before
   */
  readonly failed: (cause: unknown, again: boolean) => void;
}) {
  const { table, rows, log, queues, feed, expiry, clock, everyBytes, everyMs } = options;
  let dirty: Entry[] = [];
  /** Bytes of changed rows and of log since the last snapshot. */
  let weight = 0;
  let flyingWeight = 0;
  let since = clock.now();
  let running: Promise<void> | undefined;
  let failure: unknown;
  let notBefore = 0;
  let number = 0;
  let forced = false;
  let room: { promise: Promise<void>; resolve: () => void } | undefined;

  /** What is in memory and not yet in LMDB, frozen at one step. */
  function snapshot(lsn: number) {
    const entries: Entry[] = [];
    const images: (Item | undefined)[] = [];
    for (const entry of dirty) {
      if (entry.gone || !entry.dirty) continue;
      entry.dirty = false;
      entry.flying = true;
      entries.push(entry);
      images.push(entry.item);
    }
    dirty = [];
    forced = false;
    flyingWeight = weight;
    weight = 0;
    since = clock.now();
    return { lsn, entries, images, queue: queues.snapshot(), changes: feed.snapshot(lsn), spent: expiry.snapshot() };
  }

  async function write(taken: ReturnType<typeof snapshot>): Promise<void> {
    const { lsn, entries, images, queue, changes, spent } = taken;
    let written = false;
    try {
      const encoded: { key: Entry; bytes: Uint8Array | undefined }[] = [];
      const expiring: { key: Entry; item: Item }[] = [];
      let sliceEnds = performance.now() + 2;
      for (let i = 0; i < entries.length; i++) {
        const item = images[i];
        const entry = entries[i] as Entry;
        if (item !== undefined) {
          encoded.push({ key: entry, bytes: rows.encode(item) });
          if (item.expiresAt !== undefined) expiring.push({ key: entry, item });
        } else if (entry.stored) encoded.push({ key: entry, bytes: undefined });
        if ((i & 63) === 63 && performance.now() > sliceEnds) {
          await nextTurn();
          sliceEnds = performance.now() + 2;
        }
      }
      const marker = { lsn, consumers: changes.marks };
      const gone = spent.keys.map((key) => ({ key, record: undefined }));
      await rows.commit({
        rows: encoded,
        messages: queue.messages,
        changes: changes.changes,
        expiry: [...expiry.records(expiring, lsn), ...gone],
        marker,
      });
      changes.written();
      spent.written();
      written = true;
      failure = undefined;
    } catch (error) {
      failure = error;
      notBefore = clock.now() + 1000;
    }
    number++;
    let sliceEnds = performance.now() + 2;
    for (let i = 0; i < entries.length; i++) {
      const entry = entries[i] as Entry;
      entry.flying = false;
      if (written) {
        entry.stored = images[i] !== undefined;
        if (!entry.dirty || (entry.item === undefined && !entry.stored)) table.remove(entry);
      } else if (!entry.dirty) {
        entry.dirty = true;
        dirty.push(entry);
      }
      if ((i & 255) === 255 && performance.now() > sliceEnds) {
        await nextTurn();
        sliceEnds = performance.now() + 2;
      }
    }
    queue.done(written);
    if (written) await log.free(lsn).catch(() => {});
    else weight += flyingWeight;
    flyingWeight = 0;
  }

  function start(taken: ReturnType<typeof snapshot>): Promise<void> {
    const failedBefore = failure !== undefined;
    running = write(taken).finally(() => {
      running = undefined;
      room?.resolve();
      room = undefined;
      if (failure === undefined) options.written();
      else options.failed(failure, failedBefore);
    });
    return running;
  }

  return {
    /** Counts the checkpoints tried; what is known of LMDB is good for one number. */
    number: () => number,
    mark(entry: Entry, bytes: number): void {
      if (entry.dirty) return;
      entry.dirty = true;
      dirty.push(entry);
      weight += bytes + 128;
    },
    logged(bytes: number): void {
      weight += bytes;
    },
    due(): boolean {
      if (running !== undefined) return false;
      if (forced) return true;
      if (clock.now() < notBefore) return false;
      // Consumers that are behind make a checkpoint dearer: it has to carry their changes.
      if (!feed.caughtUp() && weight < everyBytes * 2) return false;
      return weight > everyBytes || (weight > 0 && clock.now() - since > everyMs);
    },
    snapshot,
    start,
    /** The next frame begins one. */
    force(): void {
      forced = true;
    },
    /** Of changed rows and log that are not in LMDB yet. */
    bytes: (): number => weight + flyingWeight,
    failure: (): unknown => failure,
    idle: (): Promise<void> | undefined => running,
    /** Memory is full until the checkpoint under way ends. */
    room(): Promise<void> | undefined {
      if (weight + flyingWeight < everyBytes * 4 || running === undefined) return undefined;
      if (room === undefined) {
        let resolve!: () => void;
        room = { promise: new Promise<void>((done) => (resolve = done)), resolve: () => resolve() };
      }
      return room.promise;
    },
    /** Why writes have to be refused: memory is full and LMDB takes nothing. */
    refusal: (): unknown => (failure !== undefined && weight > everyBytes * 8 ? failure : undefined),
    clear(): void {
      dirty = [];
      weight = 0;
      flyingWeight = 0;
    },
  };
}
