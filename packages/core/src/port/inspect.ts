import type { QueueName } from "./queue.ts";
import type { RowKey, Value } from "./store.ts";

/** What an engine of one process can tell of all it holds, for whoever checks it: see `audit/run.ts`. */
export interface Inspect {
  /** Every partition that has a row, in no order. One that comes while they are read may be missing. */
  partitions(): Iterable<string>;
  /** Bodies of the messages that are not done, those being handled included and dead letters not. */
  messages(queue: QueueName): Iterable<Value>;
  /** Keys of rows with a change that this consumer has not handled. */
  unhandled(consumer: string): Iterable<RowKey>;
}
