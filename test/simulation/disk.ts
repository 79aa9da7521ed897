import { closeSync, mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Item } from "@waggle/core";
import type { LogFiles } from "@waggle/engine-embedded";
import type { ExpiryRecord } from "../../packages/engine-embedded/src/expiry.ts";
import type { ChangeRecord } from "../../packages/engine-embedded/src/feed.ts";
import { sortForm } from "../../packages/engine-embedded/src/key.ts";
import type { QueueRecord } from "../../packages/engine-embedded/src/queue-state.ts";
import type { Rows } from "../../packages/engine-embedded/src/rows.ts";

/** What a process does to a disk, until the machine stops. */
export interface Session {
  readonly files: LogFiles;
  readonly rows: Rows;
  /** So many of the next writes fail, with all, some or nothing of what they wrote on disk. */
  fail(times: number): void;
  /**
   * The machine stops: of what was being written any part may be there, a checkpoint is there whole or not at all, and the
   * process hears of nothing any more.
   */
  crash(): void;
}

export interface Disk {
  readonly dataDir: string;
  session(): Session;
  remove(): void;
}

const never = new Promise<never>(() => {});
const copy = <T>(value: T): T => JSON.parse(JSON.stringify(value)) as T;

/**
 * A disk that takes its time and can lose what it had not confirmed. The log lies in real files, written where and when this says so; rows
 * in memory stand for LMDB, whose transactions are taken at their word.
 * @param wait some turns of the event loop, as the seed says
 * @param lies confirms what it has not written, now and then: to see that this is found out
 */
export function createDisk(random: () => number, wait: () => Promise<void>, lies: boolean): Disk {
  const dataDir = mkdtempSync(join(tmpdir(), "waggle-simulation-"));
  const partitions = new Map<string, Map<string, Item>>();
  const stored = {
    messages: new Map<string, QueueRecord>(),
    changes: new Map<string, ChangeRecord>(),
    expiry: new Map<string, ExpiryRecord>(),
  };
  let marker: ReturnType<Rows["marker"]> = { lsn: 0, consumers: {} };

  function session(): Session {
    let dead = false;
    let failing = 0;
    const writing = new Set<{ fd: number; bytes: Buffer; at: number }>();
    let committing: (() => void) | undefined;
    const alive = async () => {
      await wait();
      if (dead) await never;
    };

    const files: LogFiles = {
      async write(fd, bytes, length, at) {
        if (dead) return never;
        const write = { fd, bytes: Buffer.from(bytes.subarray(0, length)), at };
        writing.add(write);
        await alive();
        writing.delete(write);
        if (lies && random() < 0.2) return;
        const fails = failing > 0;
        if (fails) failing--;
        const arrives = !fails || random() < 0.3 ? length : Math.floor(random() * length);
        writeSync(fd, write.bytes, 0, arrives, at);
        if (fails) throw Object.assign(new Error("EIO: i/o error, write"), { code: "EIO" });
      },
      async fill(path, bytes) {
        await alive();
        writeFileSync(path, Buffer.alloc(bytes));
      },
    };

    const rows: Rows = {
      get: ({ pk, sk }) => partitions.get(pk)?.get(sk),
      range(pk, low, high, reverse) {
        const [from, to] = [sortForm(low), high && sortForm(high.text) + (high.prefix ? "\uffff" : "")];
        const found = [...(partitions.get(pk)?.values() ?? [])]
          .map((item) => ({ item, order: sortForm(item.sk) }))
          .filter(({ order }) => order >= from && (to === undefined || order <= to))
          .sort((a, b) => (a.order < b.order ? -1 : 1));
        if (reverse) found.reverse();
        let at = -1;
        return {
          next: () => found[++at]?.order,
          item: () => (found[at] as (typeof found)[number]).item,
          close() {},
        };
      },
      *partitions() {
        yield* partitions.keys();
      },
      encode: (item) => Buffer.from(JSON.stringify(item)),
      marker: () => marker,
      *messages() {
        yield* stored.messages.values();
      },
      *changes() {
        yield* stored.changes.values();
      },
      expiring: (until, limit, without) =>
        [...stored.expiry]
          .filter(([key]) => key < until && !without.has(key))
          .sort(([a], [b]) => (a < b ? -1 : 1))
          .slice(0, limit)
          .map(([key, record]) => ({ key, record })),
      size: () => ({ fileBytes: 0, freeBytes: 0 }),
      async commit(batch) {
        const { messages, changes, expiry } = batch;
        const taken = copy({ messages, changes, expiry, marker: batch.marker });
        committing = () => {
          for (const { key, bytes } of batch.rows) {
            const partition = partitions.get(key.pk) ?? new Map<string, Item>();
            partitions.set(key.pk, partition);
            if (bytes === undefined) partition.delete(key.sk);
            else partition.set(key.sk, JSON.parse(Buffer.from(bytes).toString()) as Item);
          }
          for (const name of ["messages", "changes", "expiry"] as const)
            for (const { key, record } of taken[name])
              if (record === undefined) stored[name].delete(key);
              else (stored[name] as Map<string, unknown>).set(key, record);
          marker = taken.marker;
        };
        await alive();
        committing();
        committing = undefined;
      },
      close: () => Promise.resolve(),
    };

    return {
      files,
      rows,
      fail(times) {
        failing = times;
      },
      crash() {
        dead = true;
        for (const { fd, bytes, at } of writing) {
          const part = Math.floor(random() * (bytes.length + 1));
          if (part > 0) writeSync(fd, bytes, 0, part, at);
        }
        if (random() < 0.5) committing?.();
      },
    };
  }

  return {
    dataDir,
    session,
    remove() {
      closeLeft(dataDir);
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}

/** A machine that stopped closed nothing: thousands of histories in one process would leave more files open than it may have. */
function closeLeft(folder: string): void {
  const open = "/proc/self/fd";
  if (process.platform !== "linux") return;
  for (const fd of readdirSync(open)) {
    let path = "";
    try {
      path = readlinkSync(join(open, fd));
    } catch {
      // The one the folder was listed through.
    }
    if (path.startsWith(folder)) closeSync(Number(fd));
  }
}
