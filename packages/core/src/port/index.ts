import type { Blobs } from "./blobs.ts";
import type { Bus } from "./bus.ts";
import type { Clock, Random } from "./clock.ts";
import type { Inspect } from "./inspect.ts";
import type { Live } from "./live.ts";
import type { Outbound } from "./outbound.ts";
import type { Queue, QueueFeed, QueueName } from "./queue.ts";
import type { ChangeFeed, Store } from "./store.ts";

export type * from "./blobs.ts";
export type * from "./bus.ts";
export * from "./channels.ts";
export * from "./check.ts";
export type * from "./clock.ts";
export type * from "./inspect.ts";
export type * from "./live.ts";
export * from "./outbound.ts";
export {
  type Message,
  type Outgoing,
  type Queue,
  type QueueFeed,
  type QueueName,
  type QueueOptions,
  queueLimits,
} from "./queue.ts";
export * from "./size.ts";
export * from "./store.ts";
export * from "./system.ts";

/** Everything the domain needs of an engine. */
export interface Ports {
  /**
   * Other processes write to the same store. What is remembered of it is then a cache of limited age, and decisions
   * are made by conditional writes and strong reads alone.
   */
  readonly shared: boolean;
  readonly store: Store;
  readonly queues: Readonly<Record<QueueName, Queue>>;
  readonly bus: Bus;
  readonly blobs: Blobs;
  readonly live: Live;
  readonly outbound: Outbound;
  readonly clock: Clock;
  readonly random: Random;
  /** Where the engine holds all it has in this process. */
  readonly inspect?: Inspect;
  /** What the data takes on this machine, where it lies here. */
  readonly disk?: () => Disk;
  /** What was taken and is not yet worked off, where this process does that. */
  readonly backlog?: () => Backlog;
}

export interface Backlog {
  /** Changed rows in memory and their log, until a checkpoint has carried them to the table. */
  readonly bytes: number;
  /** Changes that one of their consumers has yet to handle. */
  readonly changes: number;
}

/** Bytes on disk; payloads kept apart as blobs are not counted. */
export interface Disk {
  /** The file of the rows. It does not shrink … */
  readonly tableBytes: number;
  /** … but so much of it is free for new rows. */
  readonly freeBytes: number;
  readonly logBytes: number;
}

/** An opened engine: the ports, the feeds that drive handlers, and what it costs. */
export interface Engine {
  readonly ports: Ports;
  readonly changes: ChangeFeed;
  readonly queueFeed: QueueFeed;
  meter(): Meter;
  /** Called after writes that could not be made durable were taken back: what was remembered of them is void. */
  onReset(listener: () => void): void;
  /** Flushes, then closes; later calls throw `store.unavailable`. */
  close(): Promise<void>;
}

/** Counts since opening, in the units AWS bills. */
export interface Meter {
  /** DynamoDB write request units: 1 per started KB, twice that in a transaction of several and for `isTransactional` writes. */
  readonly writeUnits: number;
  /** DynamoDB read request units: 1 per started 4 KB, strongly consistent. */
  readonly readUnits: number;
  readonly storeCalls: number;
  /** SQS requests: 1 per started 64 KB of a send, receive or delete of up to 10 messages. */
  readonly queueRequests: number;
  /** EventBridge events: 1 per started 64 KB. */
  readonly busEvents: number;
  readonly blobRequests: number;
}
