import type { Value } from "./store.ts";

/** One event as EventBridge carries it. `detail` at most 256 KB as JSON. */
export interface BusEvent {
  readonly source: string;
  readonly detailType: string;
  readonly detail: { readonly [name: string]: Value };
  readonly time: string;
  readonly id: string;
}

/** An EventBridge event pattern: see https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html */
export type Pattern = { readonly [field: string]: unknown };

/** Publishes to rules; at least once, in no promised order. */
export interface Bus {
  /** Any number; entries the service refuses are sent again inside. Throws `bus.unavailable`. */
  publish(events: readonly BusEvent[]): Promise<void>;
  /** Adds or replaces a rule by name. Throws `bus.pattern_invalid`. */
  putRule(name: string, pattern: Pattern, target: (event: BusEvent) => Promise<void>): Promise<void>;
  deleteRule(name: string): Promise<void>;
}
