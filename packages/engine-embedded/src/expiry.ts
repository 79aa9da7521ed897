import { type Clock, expiryOf, type Item, type RowKey } from "@waggle/core";
import type { Feed } from "./feed.ts";
import type { Rows } from "./rows.ts";

/** Rows to look at from a time on: each checkpoint notes those it wrote, a few a record. */
export type ExpiryRecord = readonly (readonly [pk: string, sk: string])[];

/** Due within so many milliseconds of one another, rows share records. */
const grainMs = 10_000;
const keysPerRecord = 64;
/** Between looks at what is due. */
const everyMs = 5_000;
const recordsAtOnce = 32;
/**
 * A slice of work, and the pause after it: whoever writes meanwhile waits for a slice at most, and what follows from the
 * deletions keeps up.
 */
const slice = { milliseconds: 1, rows: 32, pauseMs: 8 } as const;

/** Changes waiting to be followed up: above it deletions make no more. */
const backlogMost = 1_000;

export type Expiry = ReturnType<typeof createExpiry>;

/** Deletes rows some time after they expire, a few at a time and out of the writers' way, as DynamoDB's TTL does. */
export function createExpiry(options: {
  readonly rows: Rows;
  readonly clock: Clock;
  readonly feed: Feed;
  /** Deletes the row if it has expired. */
  readonly expire: (key: RowKey, now: number) => void;
  /** Settles once rows can be written again; undefined while they can. */
  readonly busy: () => Promise<void> | undefined;
}) {
  const { rows, clock, feed, expire, busy } = options;
  /** Records worked through, which the next checkpoint removes. */
  let spent = new Set<string>();
  let generation = 0;
  let stopped = false;
  let begun = false;
  let running: Promise<void> | undefined;
  let cancelNext = () => {};

  let endPause = () => {};
  const pause = (): Promise<void> =>
    new Promise((resolve) => {
      const cancel = clock.after(slice.pauseMs, resolve);
      endPause = () => {
        cancel();
        resolve();
      };
    });

  /** @returns whether there may be more */
  async function round(): Promise<boolean> {
    const started = generation;
    // One time for all of it: were the clock set back meanwhile, rows of a record that is worked through would stay for ever.
    const now = clock.now();
    const due = rows.expiring(padded(now), recordsAtOnce, spent);
    for (const { key, record } of due) {
      for (let i = 0; i < record.length; ) {
        while (feed.backlog() > backlogMost && !stopped) await pause();
        await busy();
        // Memory went back to what is on disk, and with it what was deleted here.
        if (stopped || started !== generation) return false;
        i = deleteSome(record, i, now);
        if (i < record.length) await pause();
      }
      spent.add(key);
      await pause();
      if (stopped || started !== generation) return false;
    }
    return due.length === recordsAtOnce;
  }

  function deleteSome(record: ExpiryRecord, from: number, now: number): number {
    const until = performance.now() + slice.milliseconds;
    let i = from;
    while (i < record.length && i - from < slice.rows) {
      const [pk, sk] = record[i++] as ExpiryRecord[number];
      expire({ pk, sk }, now);
      if (performance.now() > until) break;
    }
    return i;
  }

  function look(): void {
    if (stopped) return;
    running = (async () => {
      try {
        while (await round());
      } catch {
        // A store that takes nothing now is looked at again.
      }
      running = undefined;
      if (!stopped) cancelNext = clock.after(everyMs, look);
    })();
  }

  /** From when on there is something that expires. */
  function begin(): void {
    if (begun || stopped) return;
    begun = true;
    cancelNext = clock.after(everyMs, look);
  }

  return {
    start(): void {
      if (rows.expiring("9", 1, spent).length > 0) begin();
    },
    /** What a checkpoint has to keep of the rows it writes. */
    records(written: Iterable<{ readonly key: RowKey; readonly item: Item }>, lsn: number) {
      const byTime = new Map<number, (readonly [string, string])[]>();
      for (const { key, item } of written) {
        const at = expiryOf(item);
        if (at === undefined) continue;
        const time = Math.ceil(at / grainMs) * grainMs;
        const keys = byTime.get(time);
        if (keys === undefined) byTime.set(time, [[key.pk, key.sk]]);
        else keys.push([key.pk, key.sk]);
      }
      const records: { key: string; record: ExpiryRecord }[] = [];
      for (const [time, keys] of byTime)
        for (let i = 0; i < keys.length; i += keysPerRecord)
          records.push({
            key: `${padded(time)}/${padded(lsn)}/${padded(i)}`,
            record: keys.slice(i, i + keysPerRecord),
          });
      if (records.length > 0) begin();
      return records;
    },
    /** Records that a checkpoint taken now may remove. */
    snapshot(): { readonly keys: readonly string[]; written(): void } {
      const keys = [...spent];
      return {
        keys,
        written(): void {
          for (const key of keys) spent.delete(key);
        },
      };
    },
    reset(): void {
      generation++;
      spent = new Set();
    },
    async stop(): Promise<void> {
      stopped = true;
      cancelNext();
      endPause();
      await running;
    },
  };
}

const padded = (number: number): string => String(number).padStart(16, "0");
