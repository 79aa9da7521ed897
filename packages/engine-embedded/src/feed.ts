import type { Change, ChangeFeed, Clock, Item, RowKey as Key } from "@waggle/core";
import type { Journal } from "./journal.ts";
import type { ConsumerMark } from "./rows.ts";
import { Step } from "./step.ts";

const batchLimit = 1000;

interface Pending extends Change {
  readonly lsn: number;
}

interface Consumer {
  readonly name: string;
  kinds: readonly string[];
  /** Every change of its kinds up to this step was handled. */
  position: number;
  /** The position the log knows. */
  logged: number;
  pending: Pending[];
  handler: ((changes: readonly Change[]) => Promise<void>) | undefined;
  running: Promise<void> | undefined;
  failures: number;
  /** Set while it waits to try again. */
  cancelRetry: (() => void) | undefined;
}

export type Feed = ReturnType<typeof createFeed>;

/**
 * Change stream. Consumers known from before the last stop collect changes from the first write on,
 * even before they are there again.
 */
export function createFeed(journal: () => Journal, clock: Clock) {
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
      handler: undefined,
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
    const change: Pending = {
      lsn,
      position: String(lsn).padStart(16, "0"),
      key: { pk: key.pk, sk: key.sk },
      ...(old === undefined ? undefined : { old }),
      ...(next === undefined ? undefined : { new: next }),
    };
    for (const consumer of list) if (lsn > consumer.position) consumer.pending.push(change);
  }

  async function handle(consumer: Consumer): Promise<void> {
    const started = generation;
    const { handler, pending } = consumer;
    const batch = pending.length <= batchLimit ? pending : pending.slice(0, batchLimit);
    const count = batch.length;
    if (batch === pending) consumer.pending = [];
    else consumer.pending = pending.slice(batchLimit);
    try {
      await (handler as NonNullable<typeof handler>)(batch);
      if (started !== generation) return;
      consumer.position = (batch[count - 1] as Pending).lsn;
      consumer.failures = 0;
    } catch {
      if (started !== generation) return;
      consumer.pending = consumer.pending.length === 0 ? batch : batch.concat(consumer.pending);
      const delayMs = Math.min(10_000, 50 * 2 ** consumer.failures++);
      consumer.cancelRetry = clock.after(delayMs, () => {
        consumer.cancelRetry = undefined;
        journal().touch();
      });
    } finally {
      consumer.running = undefined;
      if (consumer.pending.length > 0 && consumer.cancelRetry === undefined) journal().touch();
    }
  }

  const changes: ChangeFeed = {
    consume(name, kinds, handler) {
      let consumer = consumers.get(name);
      if (consumer === undefined) {
        consumer = add(name, { kinds: [...kinds], position: journal().lsn });
        // So that it is known after a restart even when it handled nothing yet.
        consumer.logged = -1;
      } else if (consumer.handler !== undefined) throw new Error(`the change feed has a consumer ${name} already`);
      consumer.kinds = [...kinds];
      consumer.handler = handler;
      watch();
      if (consumer.pending.length > 0) journal().touch();
      const started = consumer;
      return async () => {
        if (started.handler !== handler) return;
        started.handler = undefined;
        started.cancelRetry?.();
        started.cancelRetry = undefined;
        await started.running;
      };
    },
  };

  return {
    changes,
    push,
    wants: (kind: string): boolean => byKind.has(kind),

    /** Starts every consumer that has something to do. */
    react(started: Promise<unknown>[]): void {
      for (const consumer of consumers.values()) {
        if (consumer.pending.length === 0 || consumer.handler === undefined) continue;
        if (consumer.running !== undefined || consumer.cancelRetry !== undefined) continue;
        consumer.running = handle(consumer);
        started.push(consumer.running);
      }
    },
    logPositions(): void {
      for (const consumer of consumers.values()) {
        if (consumer.position === consumer.logged) continue;
        const { steps } = journal();
        steps.push(Step.Position, consumer.name, consumer.kinds, consumer.position);
        journal().lsn++;
        consumer.logged = consumer.position;
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
    /** Nobody is behind: a checkpoint loses no change. */
    caughtUp(): boolean {
      for (const consumer of consumers.values()) {
        if (consumer.pending.length > 0 || consumer.running !== undefined) return false;
      }
      return true;
    },
    marks(lsn: number): Record<string, ConsumerMark> {
      const marks: Record<string, ConsumerMark> = {};
      for (const { name, kinds, pending, running, position } of consumers.values()) {
        marks[name] = { kinds, position: pending.length === 0 && running === undefined ? lsn : position };
      }
      return marks;
    },
    /** Back to what a checkpoint says; the log is replayed next. */
    load(marks: Readonly<Record<string, ConsumerMark>>): void {
      generation++;
      for (const consumer of consumers.values()) {
        consumer.pending = [];
        consumer.position = -1;
      }
      for (const [name, mark] of Object.entries(marks)) {
        const consumer = consumers.get(name);
        if (consumer === undefined) add(name, mark);
        else {
          consumer.position = mark.position;
          consumer.logged = mark.position;
        }
      }
      watch();
    },
    async stop(): Promise<void> {
      for (const consumer of consumers.values()) {
        consumer.handler = undefined;
        consumer.cancelRetry?.();
        consumer.cancelRetry = undefined;
      }
      await Promise.all([...consumers.values()].map((consumer) => consumer.running));
    },
  };
}
