import type { Message, QueueOptions, Value } from "@waggle/core";
import { createFifo, type Fifo } from "./fifo.ts";
import { createHeap, type Heap } from "./heap.ts";

/** A message as a checkpoint keeps it. */
export interface QueueRecord {
  readonly queue: string;
  readonly id: string;
  readonly body: Value;
  readonly receives: number;
  readonly visibleAt: number;
  readonly dead: boolean;
}

/** Ready to be taken, not yet, with somebody who works on it, given up, gone. */
export type State = "ready" | "delayed" | "flight" | "dead" | "done";

export interface Held {
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

export interface Handler {
  readonly batch: number;
  readonly concurrency: number;
  running: Set<Promise<void>>;
  stopped: boolean;
  handle(messages: readonly Message[]): Promise<{ failed: readonly string[] }>;
}

export interface Waiter {
  readonly max: number;
  readonly visibilitySeconds: number;
  resolve(messages: readonly Message[]): void;
}

export interface QueueState {
  readonly name: string;
  readonly options: QueueOptions;
  readonly messages: Map<string, Held>;
  readonly ready: Fifo<Held>;
  readonly later: Heap<Held>;
  readonly waiters: Set<Waiter>;
  handlers: Handler[];
  waiting: number;
  inFlight: number;
  delayed: number;
  dead: number;
}

export function createState(name: string, options: QueueOptions): QueueState {
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

/** The counts of `depth` follow a message that comes to a state, or leaves it. */
export function count(queue: QueueState, state: State, by: number): void {
  if (state === "ready") queue.waiting += by;
  else if (state === "flight") queue.inFlight += by;
  else if (state === "delayed") queue.delayed += by;
  else if (state === "dead") queue.dead += by;
}
