import {
  type Clock,
  checkOutgoing,
  type Message,
  type Outgoing,
  type Queue,
  type QueueFeed,
  type QueueOptions,
  type Value,
} from "@waggle/core";
import type { Journal } from "./journal.ts";
import { type Counts, units } from "./meter.ts";
import { Step } from "./step.ts";

/** A message as a checkpoint keeps it. */
export interface QueueRecord {
  readonly queue: string;
  readonly id: string;
  readonly body: Value;
  readonly receives: number;
  readonly visibleAt: number;
  readonly dead: boolean;
}

type State = "ready" | "delayed" | "flight" | "dead" | "done";

interface Held {
  readonly id: string;
  readonly body: Value;
  receives: number;
  /** Ready from then on, when delayed or in flight. */
  visibleAt: number;
  state: State;
  /** LMDB has it. */
  stored: boolean;
  flying: boolean;
  dirty: boolean;
  /** Where its Send step lies, while that is not yet in a frame. */
  readonly frame: number;
  readonly step: number;
}

interface Handler {
  readonly batch: number;
  readonly concurrency: number;
  running: Set<Promise<void>>;
  stopped: boolean;
  handle(messages: readonly Message[]): Promise<{ failed: readonly string[] }>;
}

interface Waiter {
  readonly max: number;
  readonly visibilitySeconds: number;
  resolve(messages: readonly Message[]): void;
}

interface QueueState {
  readonly name: string;
  readonly options: QueueOptions;
  readonly messages: Map<string, Held>;
  readonly ready: Fifo;
  readonly later: Heap;
  readonly waiters: Set<Waiter>;
  handlers: Handler[];
  waiting: number;
  inFlight: number;
  delayed: number;
  dead: number;
}

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

  function createQueue(queue: QueueState): Queue {
    return {
      async send(outgoing: readonly Outgoing[]) {
        const journal = options.journal();
        journal.check();
        const sizes = outgoing.map(checkOutgoing);
        for (let i = 0; i < sizes.length; i += 10) {
          counts.queueRequests += units(
            sizes.slice(i, i + 10).reduce((sum, each) => sum + each, 0),
            64 * 1024,
          );
        }
        const now = clock.now();
        for (const { body, delaySeconds } of outgoing) {
          const id = (journal.lsn + 1).toString(36);
          const visibleAt = delaySeconds ? now + delaySeconds * 1000 : 0;
          const step = journal.steps.length;
          journal.steps.push(Step.Send, queue.name, id, body, visibleAt);
          journal.lsn++;
          const held = add(queue, id, body, 0, visibleAt, step);
          place(queue, held);
          mark(queue, held);
        }
        journal.touch();
        deliver(queue);
      },
      async receive({ max, waitSeconds = 0, visibilitySeconds = queue.options.visibilitySeconds }) {
        options.journal().check();
        const messages = take(queue, Math.min(10, max), visibilitySeconds);
        if (messages.length > 0 || waitSeconds === 0) {
          if (messages.length === 0) counts.queueRequests++;
          return messages;
        }
        return await new Promise((resolve) => {
          const cancel = clock.after(waitSeconds * 1000, () => {
            counts.queueRequests++;
            queue.waiters.delete(waiter);
            resolve([]);
          });
          const waiter: Waiter = {
            max: Math.min(10, max),
            visibilitySeconds,
            resolve(found) {
              cancel();
              resolve(found);
            },
          };
          queue.waiters.add(waiter);
        });
      },
      async ack(receipts) {
        options.journal().check();
        counts.queueRequests += Math.ceil(receipts.length / 10);
        for (const receipt of receipts) {
          const held = delivered(queue, receipt);
          if (held !== undefined) ack(queue, held);
        }
      },
      async retry(receipt, delaySeconds) {
        options.journal().check();
        counts.queueRequests++;
        const held = delivered(queue, receipt);
        if (held === undefined) return;
        retry(queue, held, delaySeconds);
        deliver(queue);
      },
      deadLetters: {
        async list({ limit }) {
          options.journal().check();
          counts.queueRequests++;
          const found: Message[] = [];
          if (queue.dead === 0) return found;
          for (const held of queue.messages.values()) {
            if (held.state !== "dead") continue;
            found.push({ id: held.id, body: held.body, receives: held.receives, receipt: "" });
            if (found.length >= limit) break;
          }
          return found;
        },
        async redrive({ limit }) {
          options.journal().check();
          counts.queueRequests++;
          let moved = 0;
          if (queue.dead === 0) return moved;
          for (const held of queue.messages.values()) {
            if (moved >= limit) break;
            if (held.state !== "dead") continue;
            log(Step.Redrive, queue.name, held.id);
            held.receives = 0;
            held.visibleAt = 0;
            place(queue, held);
            mark(queue, held);
            moved++;
          }
          deliver(queue);
          return moved;
        },
      },
      async depth() {
        const { waiting, inFlight, delayed, dead } = queue;
        return { waiting, inFlight, delayed, dead };
      },
    };
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
    queue: (name: string): Queue => createQueue(all.get(name) as QueueState),
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

function createState(name: string, options: QueueOptions): QueueState {
  return {
    name,
    options,
    messages: new Map(),
    ready: createFifo(),
    later: createHeap(),
    waiters: new Set(),
    handlers: [],
    waiting: 0,
    inFlight: 0,
    delayed: 0,
    dead: 0,
  };
}

function count(queue: QueueState, state: State, by: number): void {
  if (state === "ready") queue.waiting += by;
  else if (state === "flight") queue.inFlight += by;
  else if (state === "delayed") queue.delayed += by;
  else if (state === "dead") queue.dead += by;
}

type Fifo = ReturnType<typeof createFifo>;
function createFifo() {
  let items: Held[] = [];
  let head = 0;
  return {
    push(held: Held): void {
      items.push(held);
    },
    shift(): Held | undefined {
      if (head === items.length) return undefined;
      const held = items[head++] as Held;
      if (head === items.length) {
        items = [];
        head = 0;
      } else if (head > 1024 && head * 2 > items.length) {
        items = items.slice(head);
        head = 0;
      }
      return held;
    },
    clear(): void {
      items = [];
      head = 0;
    },
  };
}

type Heap = ReturnType<typeof createHeap>;
/** Binary heap by time. */
function createHeap() {
  const times: number[] = [];
  const items: Held[] = [];
  function swap(a: number, b: number): void {
    const time = times[a] as number;
    const item = items[a] as Held;
    times[a] = times[b] as number;
    items[a] = items[b] as Held;
    times[b] = time;
    items[b] = item;
  }
  return {
    least: (): number | undefined => times[0],
    push(held: Held, at: number): void {
      let i = times.push(at) - 1;
      items.push(held);
      while (i > 0) {
        const parent = (i - 1) >> 1;
        if ((times[parent] as number) <= (times[i] as number)) break;
        swap(i, parent);
        i = parent;
      }
    },
    pop(): Held {
      const top = items[0] as Held;
      const last = times.length - 1;
      swap(0, last);
      times.pop();
      items.pop();
      for (let i = 0; ; ) {
        const left = 2 * i + 1;
        if (left >= last) break;
        const right = left + 1;
        const least = right < last && (times[right] as number) < (times[left] as number) ? right : left;
        if ((times[i] as number) <= (times[least] as number)) break;
        swap(i, least);
        i = least;
      }
      return top;
    },
    clear(): void {
      times.length = 0;
      items.length = 0;
    },
  };
}
