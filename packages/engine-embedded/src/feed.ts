import type { Change, ChangeFeed, Clock, Item, RowKey as Key, Write } from "@waggle/core";
import type { Journal } from "./journal.ts";
import type { ConsumerMark } from "./rows.ts";
import { Step } from "./step.ts";

const batchLimit = 1000;
/** A projection waits this long for more changes: rows that come and go meanwhile are never written. */
const projectionLagMs = 100;
/** From here on a projection is behind: it takes as many at once, and no longer lets requests go first. */
const projectionBatch = 1000;
/** Otherwise so many at once, about a millisecond of work: requests come in between. */
const projectionSlice = 64;

interface Pending extends Change {
  readonly lsn: number;
}

interface Consumer {
  readonly name: string;
  kinds: readonly string[];
  /** Every change of its kinds up to this step was handled. */
  position: number;
  /** The position the log knows; -1: none. */
  logged: number;
  pending: Pending[];
  /** The batch its handler has now. */
  inHand: readonly Pending[];
  /** Steps of changes a checkpoint has put into LMDB for it, in order. */
  spilled: number[];
  handler: ((changes: readonly Change[]) => Promise<readonly Write[] | undefined>) | undefined;
  /** It derives rows, which are not logged; its position is known by checkpoints alone. */
  projection: boolean;
  /** A projection is due up to this step: what was pending when its time was up. */
  dueTo: number;
  cancelDue: (() => void) | undefined;
  running: Promise<void> | undefined;
  failures: number;
  /** Set while it waits to try again. */
  cancelRetry: (() => void) | undefined;
}

/** A change a consumer has yet to handle, as a checkpoint keeps it. */
export interface ChangeRecord {
  readonly consumer: string;
  readonly lsn: number;
  readonly key: Key;
  readonly old: Item | null;
  readonly new: Item | null;
}

export type Feed = ReturnType<typeof createFeed>;

/**
 * Change stream. Consumers known from before the last stop collect changes from the first write on,
 * even before they are there again.
 */
export function createFeed(
  journal: () => Journal,
  clock: Clock,
  derive: (writes: readonly Write[]) => void,
  onError: (consumer: string, error: unknown) => void,
) {
  const consumers = new Map<string, Consumer>();
  const byKind = new Map<string, Consumer[]>();
  let generation = 0;

  function watch(): void {
    byKind.clear();
    for (const consumer of consumers.values()) {
      for (const kind of consumer.kinds) {
        const list = byKind.get(kind);
        if (list === undefined) byKind.set(kind, [consumer]);
        else if (!list.includes(consumer)) list.push(consumer);
      }
    }
  }

  function add(name: string, mark: ConsumerMark): Consumer {
    const consumer: Consumer = {
      name,
      kinds: mark.kinds,
      position: mark.position,
      logged: mark.position,
      pending: [],
      inHand: [],
      spilled: [],
      handler: undefined,
      projection: false,
      dueTo: 0,
      cancelDue: undefined,
      running: undefined,
      failures: 0,
      cancelRetry: undefined,
    };
    consumers.set(name, consumer);
    return consumer;
  }

  /** Notes a change for whoever wants rows of its kind. */
  function push(lsn: number, key: Key, old: Item | undefined, next: Item | undefined): void {
    const kind = (next ?? (old as Item)).kind;
    give(byKind.get(kind), lsn, key, old, next);
    if (old !== undefined && old.kind !== kind) {
      const others = byKind.get(old.kind)?.filter((each) => !each.kinds.includes(kind));
      give(others, lsn, key, old, next);
    }
  }

  function give(list: Consumer[] | undefined, lsn: number, key: Key, old: Item | undefined, next: Item | undefined) {
    if (list === undefined) return;
    const change = pendingOf(lsn, key, old, next);
    for (const consumer of list) {
      if (lsn <= consumer.position) continue;
      consumer.pending.push(change);
      if (consumer.projection) schedule(consumer);
    }
  }

  function schedule(consumer: Consumer): void {
    if (behind(consumer)) consumer.dueTo = lastOf(consumer);
    consumer.cancelDue ??= clock.after(projectionLagMs, () => {
      consumer.cancelDue = undefined;
      consumer.dueTo = lastOf(consumer);
      journal().touch();
    });
  }

  async function handle(consumer: Consumer, most: number): Promise<void> {
    const started = generation;
    const { handler, pending } = consumer;
    const batch = pending.length <= most ? pending : pending.slice(0, most);
    const count = batch.length;
    if (batch === pending) consumer.pending = [];
    else consumer.pending = pending.slice(most);
    consumer.inHand = batch;
    try {
      const writes = await (handler as NonNullable<typeof handler>)(batch);
      if (started !== generation) return;
      // In one step with the position: a checkpoint sees both or neither.
      if (consumer.projection && writes) derive(writes);
      consumer.position = (batch[count - 1] as Pending).lsn;
      consumer.failures = 0;
    } catch (error) {
      if (started !== generation) return;
      onError(consumer.name, error);
      consumer.pending = consumer.pending.length === 0 ? batch : batch.concat(consumer.pending);
      const delayMs = Math.min(10_000, 50 * 2 ** consumer.failures++);
      consumer.cancelRetry = clock.after(delayMs, () => {
        consumer.cancelRetry = undefined;
        journal().touch();
      });
    } finally {
      consumer.running = undefined;
      if (started === generation) consumer.inHand = [];
      if (consumer.pending.length > 0 && consumer.cancelRetry === undefined) {
        if (consumer.projection) schedule(consumer);
        if (!consumer.projection || due(consumer)) journal().touch();
      }
    }
  }

  /** Logged before the first change it is to be given: a recovery collects changes for consumers it knows. */
  function log(consumer: Consumer): void {
    journal().steps.push(Step.Position, consumer.name, consumer.kinds, consumer.position);
    journal().lsn++;
    journal().touch();
    consumer.logged = consumer.position;
  }

  function start(
    name: string,
    kinds: readonly string[],
    handler: NonNullable<Consumer["handler"]>,
    projection: boolean,
  ): () => Promise<void> {
    let consumer = consumers.get(name);
    if (consumer?.handler !== undefined) throw new Error(`the change feed has a consumer ${name} already`);
    if (consumer === undefined) {
      consumer = add(name, { kinds: [...kinds], position: journal().lsn });
      log(consumer);
    } else if (consumer.kinds.join() !== kinds.join()) {
      consumer.kinds = [...kinds];
      log(consumer);
    }
    consumer.handler = handler;
    consumer.projection = projection;
    watch();
    if (consumer.pending.length > 0) {
      if (projection) schedule(consumer);
      journal().touch();
    }
    const started = consumer;
    return async () => {
      if (started.handler !== handler) return;
      started.handler = undefined;
      silence(started);
      await started.running;
    };
  }

  function silence(consumer: Consumer): void {
    consumer.cancelRetry?.();
    consumer.cancelRetry = undefined;
    consumer.cancelDue?.();
    consumer.cancelDue = undefined;
  }

  const changes: ChangeFeed = {
    consume: (name, kinds, handler) => start(name, kinds, (batch) => handler(batch).then(() => undefined), false),
    project: (name, kinds, _groupOf, derive) =>
      start(name, kinds, (batch) => derive(batch).then(({ once, again }) => [...again, ...once]), true),
  };

  return {
    changes,
    push,
    wants: (kind: string): boolean => byKind.has(kind),

    /**
     * Starts every consumer that has something to do.
     * @param hurried somebody waits for a frame: projections, which have time, let it go first
     */
    react(started: Promise<unknown>[], hurried: boolean): void {
      for (const consumer of consumers.values()) {
        if (consumer.pending.length === 0 || consumer.handler === undefined) continue;
        if (consumer.running !== undefined || consumer.cancelRetry !== undefined) continue;
        const late = behind(consumer);
        if (consumer.projection && (!due(consumer) || (hurried && !late))) continue;
        consumer.running = handle(consumer, consumer.projection && !late ? projectionSlice : batchLimit);
        started.push(consumer.running);
      }
    },
    logPositions(): void {
      for (const consumer of consumers.values()) {
        if (consumer.position !== consumer.logged && !consumer.projection) log(consumer);
      }
    },
    replayPosition(name: string, kinds: readonly string[], position: number): void {
      const consumer = consumers.get(name);
      if (consumer === undefined) add(name, { kinds, position });
      else {
        consumer.position = position;
        consumer.logged = position;
        if (consumer.handler === undefined) consumer.kinds = kinds;
        const at = consumer.pending.findIndex((change) => change.lsn > position);
        consumer.pending = at === -1 ? [] : consumer.pending.slice(at);
      }
      watch();
    },
    /** Keys of rows with changes that this consumer has yet to handle. */
    *unhandled(name: string): Generator<Key> {
      const consumer = consumers.get(name);
      if (consumer === undefined) return;
      for (const list of [consumer.inHand, consumer.pending]) for (const { key } of list) yield key;
    },
    /** Until projections show all that was decided. */
    async projected(): Promise<void> {
      for (const consumer of consumers.values()) {
        while (consumer.projection && consumer.handler !== undefined && consumer.cancelRetry === undefined) {
          if (consumer.running === undefined) {
            if (consumer.pending.length === 0) break;
            consumer.running = handle(consumer, batchLimit);
          }
          await consumer.running;
        }
      }
    },
    /** Changes that the consumer furthest behind has yet to handle. */
    backlog(): number {
      let most = 0;
      for (const { pending, inHand } of consumers.values()) most = Math.max(most, pending.length + inHand.length);
      return most;
    },
    /** Nobody is behind: a checkpoint need not carry changes. Projections are, as a rule, by what came last. */
    caughtUp(): boolean {
      for (const consumer of consumers.values()) {
        if (consumer.projection && !behind(consumer)) continue;
        if (consumer.pending.length > 0 || consumer.running !== undefined) return false;
      }
      return true;
    },
    /**
     * What a checkpoint has to keep so that the log before it can go: positions, and the changes not yet handled,
     * with both images.
     */
    snapshot(lsn: number) {
      const marks: Record<string, ConsumerMark> = {};
      const changes: { key: string; record: ChangeRecord | undefined }[] = [];
      const after: { consumer: Consumer; spilled: number[] }[] = [];
      for (const consumer of consumers.values()) {
        const { name, kinds, pending, inHand, position } = consumer;
        const open = pending.length > 0 || inHand.length > 0;
        marks[name] = { kinds, position: open ? position : lsn };
        if (!open && consumer.spilled.length === 0) continue;
        const kept = consumer.spilled.filter((each) => open && each > position);
        for (const each of consumer.spilled) {
          if (!open || each <= position) changes.push({ key: changeKey(name, each), record: undefined });
        }
        const newest = consumer.spilled[consumer.spilled.length - 1] ?? 0;
        for (const list of [inHand, pending]) {
          for (const change of list) {
            if (change.lsn <= newest) continue;
            const { lsn, key, old, new: next } = change;
            kept.push(lsn);
            changes.push({
              key: changeKey(name, lsn),
              record: { consumer: name, lsn, key, old: old ?? null, new: next ?? null },
            });
          }
        }
        after.push({ consumer, spilled: kept });
      }
      return {
        marks,
        changes,
        written(): void {
          for (const { consumer, spilled } of after) consumer.spilled = spilled;
        },
      };
    },
    /** Back to what a checkpoint says; the log is replayed next. */
    load(marks: Readonly<Record<string, ConsumerMark>>, records: Iterable<ChangeRecord>): void {
      generation++;
      for (const consumer of consumers.values()) {
        consumer.pending = [];
        consumer.inHand = [];
        consumer.spilled = [];
        // What it failed at may have been the disk: readers (`projected`) wait for it again.
        consumer.cancelRetry?.();
        consumer.cancelRetry = undefined;
        // Nothing is for it until the log says where it begins.
        consumer.position = Number.POSITIVE_INFINITY;
        consumer.logged = -1;
      }
      for (const [name, mark] of Object.entries(marks)) {
        const consumer = consumers.get(name);
        if (consumer === undefined) add(name, mark);
        else {
          consumer.position = mark.position;
          consumer.logged = mark.position;
        }
      }
      for (const record of records) {
        const consumer = consumers.get(record.consumer);
        if (consumer === undefined) continue;
        consumer.spilled.push(record.lsn);
        if (record.lsn <= consumer.position) continue;
        consumer.pending.push(pendingOf(record.lsn, record.key, record.old ?? undefined, record.new ?? undefined));
      }
      watch();
    },
    /** Consumers whose beginning was in a frame that failed begin now: all that came after them failed as well. */
    loaded(): void {
      for (const consumer of consumers.values()) {
        if (consumer.logged !== -1) continue;
        consumer.pending = [];
        consumer.position = journal().lsn;
        log(consumer);
      }
    },
    async stop(): Promise<void> {
      for (const consumer of consumers.values()) {
        consumer.handler = undefined;
        silence(consumer);
      }
      await Promise.all([...consumers.values()].map((consumer) => consumer.running));
    },
  };
}

const behind = ({ pending }: Consumer): boolean => pending.length >= projectionBatch;
const lastOf = ({ pending }: Consumer): number => pending[pending.length - 1]?.lsn ?? 0;
const due = ({ pending, dueTo }: Consumer): boolean => pending.length > 0 && (pending[0] as Pending).lsn <= dueTo;

function pendingOf(lsn: number, key: Key, old: Item | undefined, next: Item | undefined): Pending {
  return {
    lsn,
    position: padded(lsn),
    key: { pk: key.pk, sk: key.sk },
    ...(old === undefined ? undefined : { old }),
    ...(next === undefined ? undefined : { new: next }),
  };
}

const padded = (lsn: number): string => String(lsn).padStart(16, "0");
const changeKey = (consumer: string, lsn: number): string => `${consumer}/${padded(lsn)}`;
