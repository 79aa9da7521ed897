import * as fs from "node:fs";
import { join, resolve } from "node:path";
import {
  type Clock,
  type Engine,
  isError,
  noOutbound,
  type Outbound,
  type QueueName,
  type QueueOptions,
  type Random,
  storeErrors,
  systemClock,
  systemRandom,
} from "@waggle/core";
import { createBlobs } from "./blobs.ts";
import { createBus, deliveries, deliveryOptions } from "./bus.ts";
import { type Checkpoints, createCheckpoints } from "./checkpoint.ts";
import { createExpiry } from "./expiry.ts";
import { createFeed } from "./feed.ts";
import { createJournal, type Journal } from "./journal.ts";
import { createLive } from "./live.ts";
import { lockFolder } from "./lock.ts";
import { diskFiles, type Log, type LogFiles, makeFolder, openLog, syncFolder } from "./log.ts";
import { createCounts } from "./meter.ts";
import { createQueues } from "./queue.ts";
import { openRows, type Rows } from "./rows.ts";
import { Step, stepArguments } from "./step.ts";
import { createStore, type StoreCore } from "./store.ts";
import { createTable } from "./table.ts";

export interface EmbeddedOptions {
  /** Made when it is not there. One process at a time. */
  readonly dataDir: string;
  readonly clock?: Clock;
  readonly random?: Random;
  /** Delivers work to agents that are called; none are unless given. */
  readonly outbound?: Outbound;
  readonly queues?: { readonly [Name in QueueName]?: Partial<QueueOptions> };
  readonly flush?: {
    /** Changed bytes after which rows move from the log into the table on disk. Default 4 MiB. */
    readonly checkpointBytes?: number;
    /** The same after this time. Default 30 s. */
    readonly checkpointSeconds?: number;
    readonly segmentBytes?: number;
    /** How the log writes; a test's way to a disk that fails. */
    readonly files?: LogFiles;
  };
  /**
   * Told of what fails in the background and is tried again: `log` and `table` for a disk that takes nothing, at the first of such failures in a
   * row; a follower of changes by its name.
   */
  readonly onError?: (component: string, error: unknown) => void;
}

export interface EmbeddedEngine extends Engine {
  /**
   * Calls back when a failed write took memory back to what is on disk: what was learned from writes since then is void.
   * @returns ends it
   */
  onReset(listener: () => void): () => void;
  /** Moves everything into the table on disk now. */
  checkpoint(): Promise<void>;
}

const format = 1;

/** With more segments of the log than that its first frame begins a checkpoint, which frees them. */
const segmentsAtStart = 4;

/**
 * Opens the engine that runs in this process on one folder.
 * Throws `store.locked`, `store.newer_format` and `store.unavailable`.
 * @example const engine = await openEmbedded({ dataDir: "./data" })
 */
export async function openEmbedded(options: EmbeddedOptions): Promise<EmbeddedEngine> {
  const dataDir = resolve(options.dataDir);
  let unlock: (() => void) | undefined;
  let rows: Rows | undefined;
  try {
    makeFolder(dataDir);
    fs.accessSync(dataDir, fs.constants.W_OK | fs.constants.X_OK);
    unlock = lockFolder(dataDir);
    checkFormat(dataDir);
    rows = openRows(join(dataDir, "table"));
    syncFolder(dataDir);
    return openOn(options, dataDir, rows, unlock);
  } catch (cause) {
    await rows?.close().catch(() => {});
    unlock?.();
    if (isError(cause)) throw cause;
    const { code, message } = cause as NodeJS.ErrnoException;
    const reason =
      code === "EEXIST" || code === "ENOTDIR"
        ? "it is not a folder"
        : code === "EACCES" || code === "EPERM" || code === "EROFS"
          ? "it cannot be written to"
          : code === "ENOSPC" || /ENOSPC|No space/.test(message)
            ? "the disk is full"
            : message;
    throw storeErrors.unavailable(`cannot open the data folder ${dataDir}: ${reason}`, { cause });
  }
}

function checkFormat(dataDir: string): void {
  const path = join(dataDir, "format.json");
  let text: string;
  try {
    text = fs.readFileSync(path, "utf8");
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "ENOENT") throw cause;
    const draft = `${path}.draft`;
    fs.writeFileSync(draft, `${JSON.stringify({ format })}\n`, { flush: true } as never);
    fs.renameSync(draft, path);
    return;
  }
  let found: unknown;
  try {
    found = (JSON.parse(text) as { format?: unknown }).format;
  } catch {}
  if (typeof found !== "number") throw storeErrors.unavailable(`${path} does not say which format the data has`);
  if (found > format) {
    throw storeErrors.newerFormat(`${dataDir} has format ${found}; this version reads up to ${format}. Update Waggle.`);
  }
}

/** On a folder that is locked, and rows that are open. Apart from `openEmbedded` so that a simulation can bring rows of its own. */
export function openOn(options: EmbeddedOptions, dataDir: string, rows: Rows, unlock: () => void): EmbeddedEngine {
  const clock = options.clock ?? systemClock;
  const onError = options.onError ?? (() => {});
  const counts = createCounts();
  const flush = options.flush ?? {};
  const table = createTable();
  const log: Log = openLog({
    folder: join(dataDir, "log"),
    segmentBytes: flush.segmentBytes ?? 8 * 1024 * 1024,
    files: flush.files ?? diskFiles,
  });
  let journal!: Journal;
  let checkpoints!: Checkpoints;
  const queueOptions = { maxReceives: 5, visibilitySeconds: 30 };
  const feed = createFeed(
    () => journal,
    clock,
    (writes) => core.derive(writes),
    onError,
  );
  const queues = createQueues({
    journal: () => journal,
    clock,
    counts,
    queues: {
      dispatch: { ...queueOptions, ...options.queues?.dispatch },
      timers: { ...queueOptions, ...options.queues?.timers },
      // A delivery may wait for its answer: longer than that it never takes, and after a crash it is seen at once.
      deliver: { ...queueOptions, visibilitySeconds: 960, ...options.queues?.deliver },
      intake: { ...queueOptions, ...options.queues?.intake },
      [deliveries]: deliveryOptions,
    },
  });
  const core: StoreCore = createStore({
    table,
    rows,
    journal: () => journal,
    checkpoints: () => checkpoints,
    feed,
    counts,
  });
  const expiry = createExpiry({ rows, clock, feed, expire: core.expire, busy: () => checkpoints.room() });
  const resetListeners = new Set<() => void>();
  let cancelRetry = (): unknown => undefined;

  /** Memory from the last checkpoint and the log after it. */
  function load(upTo: number): void {
    const marker = rows.marker();
    table.clear();
    checkpoints.clear();
    expiry.reset();
    feed.load(marker.consumers, rows.changes());
    queues.load(rows.messages());
    // After a failed write handlers went on until now: an ack of theirs must not reach the disk without what it was for.
    journal.forget();
    journal.lsn = marker.lsn;
    log.replay(marker.lsn, upTo, (firstLsn, payload) => {
      journal.lsn = firstLsn - 1;
      checkpoints.logged(payload.length);
      replay(JSON.parse(payload.toString()) as unknown[]);
    });
  }

  function replay(steps: readonly unknown[]): void {
    for (let i = 0; i < steps.length; ) {
      const step = steps[i] as number;
      journal.lsn++;
      const [a, b, c, d, e, f] = steps.slice(i + 1, i + 1 + (stepArguments[step] as number)) as unknown[];
      if (step === Step.Put) core.replay.put(a as never);
      else if (step === Step.Update) {
        core.replay.update({ pk: a as never, sk: b as never }, c as never, {
          ...(d !== null && { set: d as never }),
          ...(e !== null && { add: e as never }),
          ...(f !== null && { remove: f as never }),
        });
      } else if (step === Step.Delete) core.replay.delete({ pk: a as never, sk: b as never });
      else if (step === Step.Send) queues.replay.send(a as never, b as never, c as never, d as never);
      else if (step === Step.Ack) queues.replay.ack(a as never, b as never);
      else if (step === Step.Retry) queues.replay.retry(a as never, b as never, c as never, d as never);
      else if (step === Step.Bury) queues.replay.bury(a as never, b as never, c as never);
      else if (step === Step.Redrive) queues.replay.redrive(a as never, b as never);
      else if (step === Step.Position) feed.replayPosition(a as never, b as never, c as never);
      i += 1 + (stepArguments[step] as number);
    }
  }

  journal = createJournal(log, {
    react(hurried) {
      const started: Promise<unknown>[] = [];
      feed.react(started, hurried);
      // No handler could do anything, and a message that fails too often is given up.
      if (checkpoints.refusal() === undefined) queues.react(started);
      return started.length === 0 ? undefined : settleSoon(started);
    },
    beforeFrame: () => feed.logPositions(),
    framed(lsn, bytes) {
      checkpoints.logged(bytes);
      if (!checkpoints.due()) return undefined;
      const taken = checkpoints.snapshot(lsn);
      return () => {
        log.turn();
        void checkpoints.start(taken);
      };
    },
    failed: (cause) => onError("log", cause),
    async recover() {
      await checkpoints.idle();
      load(journal.durable);
      feed.loaded();
      for (const listener of resetListeners) listener();
      queues.wake();
    },
  });
  checkpoints = createCheckpoints({
    table,
    rows,
    log,
    queues,
    feed,
    expiry,
    clock,
    everyBytes: flush.checkpointBytes ?? 4 * 1024 * 1024,
    everyMs: (flush.checkpointSeconds ?? 30) * 1000,
    written: () => journal.touch(),
    failed(cause, again) {
      if (!again) onError("table", cause);
      tryAgain();
    },
  });

  load(Number.POSITIVE_INFINITY);
  journal.durable = journal.lsn;
  // Each start begins a segment: one after the other, each killed before its first checkpoint, would fill the disk with them.
  if (log.segments() > segmentsAtStart) checkpoints.force();
  expiry.start();

  const blobs = createBlobs(join(dataDir, "blobs"), counts, () => journal.check());
  let closing: Promise<void> | undefined;

  /** Until one is written: it may fail before it begins as well, with the frame that was to begin it. */
  function tryAgain(): void {
    cancelRetry();
    if (closing === undefined) cancelRetry = clock.after(1000, () => void checkpoint().catch(tryAgain));
  }

  async function checkpoint(): Promise<void> {
    for (;;) {
      while (checkpoints.idle() !== undefined) await checkpoints.idle();
      if (journal.clean()) {
        await checkpoints.start(checkpoints.snapshot(journal.lsn));
        break;
      }
      // The next frame takes the snapshot; unless there is none, because all was in the frame being written.
      const before = checkpoints.number();
      checkpoints.force();
      await journal.settled();
      await checkpoints.idle();
      if (checkpoints.number() > before) break;
    }
    const cause = checkpoints.failure();
    if (cause !== undefined) throw storeErrors.unavailable("rows cannot be written to disk", { cause });
  }

  async function close(): Promise<void> {
    await expiry.stop();
    cancelRetry();
    await feed.projected();
    await feed.stop();
    await queues.stop();
    queues.close();
    const closed = storeErrors.unavailable("the engine is closed");
    journal.refuse(closed);
    try {
      await checkpoint();
    } finally {
      journal.stop(closed);
      await log.close();
      await rows.close();
      unlock();
    }
  }

  return {
    ports: {
      shared: false,
      store: core.store,
      queues: {
        dispatch: queues.queue("dispatch"),
        timers: queues.queue("timers"),
        deliver: queues.queue("deliver"),
        intake: queues.queue("intake"),
      },
      bus: createBus({ queue: queues.queue(deliveries), feed: queues.queueFeed, journal, counts }),
      blobs,
      live: createLive(journal),
      outbound: options.outbound ?? noOutbound,
      clock,
      random: options.random ?? systemRandom,
      backlog: () => ({ bytes: checkpoints.bytes(), changes: feed.backlog() }),
      disk() {
        const { fileBytes, freeBytes } = rows.size();
        return { tableBytes: fileBytes, freeBytes, logBytes: log.bytes() };
      },
      inspect: {
        *partitions() {
          const inMemory = new Set(table.partitions());
          yield* inMemory;
          for (const pk of rows.partitions()) if (!inMemory.has(pk)) yield pk;
        },
        messages: queues.messages,
        unhandled: feed.unhandled,
      },
    },
    changes: feed.changes,
    queueFeed: queues.queueFeed,
    meter: () => ({ ...counts }),
    onReset(listener) {
      const own = () => listener();
      resetListeners.add(own);
      return () => resetListeners.delete(own);
    },
    checkpoint,
    close: () => (closing ??= close()),
  };
}

/**
 * Waits for handlers, but not for one that itself waits for something slow (or for the flush that waits for it):
 * most end within this turn, and what they wrote then joins the frame.
 */
async function settleSoon(started: readonly Promise<unknown>[]): Promise<void> {
  let done = false;
  const all = Promise.all(started).then(() => {
    done = true;
  });
  const until = performance.now() + 2;
  while (!done) {
    let immediate: NodeJS.Immediate | undefined;
    await Promise.race([all, new Promise<void>((turn) => (immediate = setImmediate(turn)))]);
    clearImmediate(immediate);
    if (performance.now() > until) return;
  }
}
