import type { Clock, Message, Queue, QueueFeed, QueueOptions, Value } from "@waggle/core";
import type { Journal } from "./journal.ts";
import type { Counts } from "./meter.ts";
import { createQueue } from "./queue-port.ts";
import {
  count,
  createState,
  type Handler,
  type Held,
  type QueueRecord,
  type QueueState,
  type State,
} from "./queue-state.ts";
import { Step } from "./step.ts";

export type Queues = ReturnType<typeof createQueues>;

/** Queues on the store's log. Every live message is in memory; what outlives a checkpoint is in LMDB as well. */
export function createQueues(options: {
  readonly journal: () => Journal;
  readonly clock: Clock;
  readonly counts: Counts;
  readonly queues: Readonly<Record<string, QueueOptions>>;
}) {
  const { clock, counts } = options;
  const all = new Map<string, QueueState>();
  for (const [name, each] of Object.entries(options.queues)) all.set(name, createState(name, each));
  let dirty: { queue: QueueState; held: Held }[] = [];
  let generation = 0;
  let cancelTimer: (() => void) | undefined;
  let timerAt = Number.POSITIVE_INFINITY;
  let closed = false;

  function log(...step: unknown[]): void {
    const journal = options.journal();
    journal.steps.push(...step);
    journal.lsn++;
    journal.touch();
  }

  function mark(queue: QueueState, held: Held): void {
    if (held.dirty) return;
    held.dirty = true;
    dirty.push({ queue, held });
  }

  /** The only place where a message changes state: the counts of `depth` follow. */
  function move(queue: QueueState, held: Held, state: State): void {
    count(queue, held.state, -1);
    held.state = state;
    count(queue, state, 1);
    if (state === "ready") queue.ready.push(held);
    else if (state === "delayed" || state === "flight") {
      if (held.visibleAt !== Number.POSITIVE_INFINITY) {
        queue.later.push(held, held.visibleAt);
        wakeAt(held.visibleAt);
      }
    } else if (state === "done") queue.messages.delete(held.id);
  }

  function add(queue: QueueState, id: string, body: Value, receives: number, visibleAt: number, step: number): Held {
    const held: Held = {
      id,
      body,
      receives,
      visibleAt,
      state: "done",
      stored: false,
      flying: false,
      dirty: false,
      frame: step === -1 ? -1 : options.journal().frame,
      step,
    };
    queue.messages.set(id, held);
    return held;
  }

  function place(queue: QueueState, held: Held): void {
    move(queue, held, held.visibleAt > clock.now() ? "delayed" : "ready");
  }

  function wakeAt(at: number): void {
    if (at >= timerAt || closed) return;
    cancelTimer?.();
    timerAt = at;
    cancelTimer = clock.after(Math.max(0, at - clock.now()), () => {
      cancelTimer = undefined;
      timerAt = Number.POSITIVE_INFINITY;
      ripen();
    });
  }

  /** Delayed messages whose time has come, and those in flight that nobody acked in time, become ready. */
  function ripen(): void {
    const now = clock.now();
    for (const queue of all.values()) {
      let ripe = false;
      for (;;) {
        const at = queue.later.least();
        if (at === undefined) break;
        if (at > now) {
          wakeAt(at);
          break;
        }
        const held = queue.later.pop();
        // Acked, retried or received since: another entry of the heap speaks for it.
        if ((held.state !== "delayed" && held.state !== "flight") || held.visibleAt !== at) continue;
        giveBack(queue, held, now);
        ripe = true;
      }
      if (ripe) deliver(queue);
    }
  }

  /** Ready again, or dead when it was received often enough. */
  function giveBack(queue: QueueState, held: Held, visibleAt: number): void {
    if (held.receives >= queue.options.maxReceives) {
      log(Step.Bury, queue.name, held.id, held.receives);
      move(queue, held, "dead");
      mark(queue, held);
      return;
    }
    held.visibleAt = visibleAt;
    place(queue, held);
  }

  function deliver(queue: QueueState): void {
    for (const waiter of queue.waiters) {
      const messages = take(queue, waiter.max, waiter.visibilitySeconds);
      if (messages.length === 0) return;
      queue.waiters.delete(waiter);
      waiter.resolve(messages);
    }
    if (queue.handlers.length > 0 && queue.waiting > 0) options.journal().touch();
  }

  function take(queue: QueueState, max: number, visibilitySeconds: number): Message[] {
    const messages: Message[] = [];
    while (messages.length < max) {
      const held = queue.ready.shift();
      if (held === undefined) break;
      if (held.state !== "ready") continue;
      held.receives++;
      held.visibleAt =
        visibilitySeconds === Number.POSITIVE_INFINITY ? visibilitySeconds : clock.now() + visibilitySeconds * 1000;
      move(queue, held, "flight");
      messages.push({ id: held.id, body: held.body, receives: held.receives, receipt: `${held.receives}.${held.id}` });
    }
    if (messages.length > 0) counts.queueRequests++;
    return messages;
  }

  /** The message a receipt still speaks for. */
  function delivered(queue: QueueState, receipt: string): Held | undefined {
    const dot = receipt.indexOf(".");
    const held = queue.messages.get(receipt.slice(dot + 1));
    return held !== undefined && held.state === "flight" && held.receives === Number(receipt.slice(0, dot))
      ? held
      : undefined;
  }

  function ack(queue: QueueState, held: Held): void {
    const journal = options.journal();
    if (held.frame === journal.frame) {
      // Sent and done within one frame: the log need not know the body.
      journal.steps[held.step] = Step.Void;
      for (let i = 1; i <= 4; i++) journal.steps[held.step + i] = null;
    } else log(Step.Ack, queue.name, held.id);
    move(queue, held, "done");
    if (held.stored || held.flying) mark(queue, held);
  }

  function retry(queue: QueueState, held: Held, delaySeconds: number): void {
    if (held.receives < queue.options.maxReceives) {
      log(Step.Retry, queue.name, held.id, held.receives, clock.now() + delaySeconds * 1000);
      mark(queue, held);
    }
    giveBack(queue, held, clock.now() + delaySeconds * 1000);
  }

  async function handle(queue: QueueState, handler: Handler, messages: readonly Message[]): Promise<void> {
    const started = generation;
    let failed: ReadonlySet<string>;
    try {
      const answer = await handler.handle(messages);
      failed = new Set(answer.failed);
    } catch {
      failed = new Set(messages.map((message) => message.id));
    }
    // After a reset these messages were given back already.
    if (started !== generation || closed) return;
    counts.queueRequests++;
    let back = false;
    for (const message of messages) {
      const held = delivered(queue, message.receipt);
      if (held === undefined) continue;
      if (!failed.has(message.id)) ack(queue, held);
      else {
        // The first try again comes soon: what fails here is mostly a moment's conflict.
        retry(queue, held, Math.min(queue.options.visibilitySeconds, 0.2 * 4 ** (held.receives - 1)));
        back = true;
      }
    }
    if (back) deliver(queue);
  }

  function run(queue: QueueState, handler: Handler, messages: readonly Message[]): Promise<void> {
    const running = handle(queue, handler, messages).finally(() => {
      handler.running.delete(running);
      if (queue.waiting > 0) options.journal().touch();
    });
    handler.running.add(running);
    return running;
  }

  const queueFeed: QueueFeed = {
    consume(name, { batch, concurrency }, handle) {
      const queue = all.get(name) as QueueState;
      const handler: Handler = { batch, concurrency, running: new Set(), stopped: false, handle };
      queue.handlers.push(handler);
      deliver(queue);
      return async () => {
        handler.stopped = true;
        queue.handlers = queue.handlers.filter((each) => each !== handler);
        await Promise.all(handler.running);
      };
    },
  };

  return {
    queueFeed,
    queue: (name: string): Queue =>
      createQueue(all.get(name) as QueueState, {
        journal: options.journal,
        clock,
        counts,
        moves: { log, add, place, mark, take, delivered, ack, retry, deliver },
      }),
    /** Bodies of all that is not done, those in flight included. */
    *messages(name: string): Generator<Value> {
      for (const { state, body } of all.get(name)?.messages.values() ?? []) if (state !== "dead") yield body;
    },

    /** Hands ready messages to free handlers. A message in a handler's hands stays hidden until the handler ends. */
    react(started: Promise<unknown>[]): void {
      for (const queue of all.values()) {
        for (const handler of queue.handlers) {
          while (queue.waiting > 0 && handler.running.size < handler.concurrency) {
            const messages = take(queue, handler.batch, Number.POSITIVE_INFINITY);
            if (messages.length === 0) break;
            started.push(run(queue, handler, messages));
          }
        }
      }
    },

    replay: {
      send(name: string, id: string, body: Value, visibleAt: number): void {
        const queue = all.get(name);
        if (queue === undefined) return;
        const held = add(queue, id, body, 0, visibleAt, -1);
        place(queue, held);
        mark(queue, held);
      },
      ack(name: string, id: string): void {
        const queue = all.get(name);
        const held = queue?.messages.get(id);
        if (queue === undefined || held === undefined) return;
        move(queue, held, "done");
        if (held.stored) mark(queue, held);
      },
      retry(name: string, id: string, receives: number, visibleAt: number): void {
        const queue = all.get(name);
        const held = queue?.messages.get(id);
        if (queue === undefined || held === undefined) return;
        held.receives = receives;
        held.visibleAt = visibleAt;
        place(queue, held);
        mark(queue, held);
      },
      bury(name: string, id: string, receives: number): void {
        const queue = all.get(name);
        const held = queue?.messages.get(id);
        if (queue === undefined || held === undefined) return;
        held.receives = receives;
        move(queue, held, "dead");
        mark(queue, held);
      },
      redrive(name: string, id: string): void {
        const queue = all.get(name);
        const held = queue?.messages.get(id);
        if (queue === undefined || held === undefined) return;
        held.receives = 0;
        held.visibleAt = 0;
        place(queue, held);
        mark(queue, held);
      },
    },

    /** Back to what a checkpoint says; the log is replayed next. */
    load(records: Iterable<QueueRecord>): void {
      generation++;
      dirty = [];
      for (const queue of all.values()) {
        queue.messages.clear();
        queue.ready.clear();
        queue.later.clear();
        queue.waiting = queue.inFlight = queue.delayed = queue.dead = 0;
      }
      for (const record of records) {
        const queue = all.get(record.queue);
        if (queue === undefined) continue;
        const held = add(queue, record.id, record.body, record.receives, record.visibleAt, -1);
        held.stored = true;
        if (record.dead) move(queue, held, "dead");
        else place(queue, held);
      }
    },
    wake(): void {
      for (const queue of all.values()) deliver(queue);
    },

    /** What changed since the last checkpoint, and what to do when it is in LMDB, or not. */
    snapshot() {
      const taken: { queue: QueueState; held: Held; gone: boolean }[] = [];
      const messages: { key: string; record: QueueRecord | undefined }[] = [];
      for (const { queue, held } of dirty) {
        held.dirty = false;
        const gone = held.state === "done";
        if (gone && !held.stored && !held.flying) continue;
        held.flying = true;
        taken.push({ queue, held, gone });
        const { id, body, receives, visibleAt, state } = held;
        messages.push({
          key: `${queue.name}/${id}`,
          record: gone
            ? undefined
            : {
                queue: queue.name,
                id,
                body,
                receives,
                // In flight when the process ends: free again at once.
                visibleAt: state === "flight" ? 0 : visibleAt,
                dead: state === "dead",
              },
        });
      }
      dirty = [];
      return {
        messages,
        done(written: boolean): void {
          for (const { queue, held, gone } of taken) {
            held.flying = false;
            if (written) held.stored = !gone;
            else mark(queue, held);
          }
        },
      };
    },

    async stop(): Promise<void> {
      const running: Promise<void>[] = [];
      for (const queue of all.values()) {
        for (const handler of queue.handlers) running.push(...handler.running);
        queue.handlers = [];
      }
      await Promise.all(running);
    },
    close(): void {
      closed = true;
      cancelTimer?.();
      for (const queue of all.values()) {
        for (const waiter of queue.waiters) waiter.resolve([]);
        queue.waiters.clear();
      }
    },
  };
}
