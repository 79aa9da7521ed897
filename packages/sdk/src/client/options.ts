import { type Sleep, sleep } from "../retry.ts";
import type { Transport } from "../transport.ts";

export interface ClientOptions {
  /** Where the server is, e.g. `http://127.0.0.1:9244`. Without it: `WAGGLE_URL`, then (in Node) the local data folder. */
  url?: string;
  /** Without it: `WAGGLE_API_KEY`, then (in Node) the key of the local data folder. */
  key?: string;
  /** The longest silence of the server before a try counts as failed. Default 30. */
  timeoutSeconds?: number;
  /** How long it tries again on 429, 502, 503, 504 and network errors. Default 30; 0 never tries again. */
  retrySeconds?: number;
  /** Joins tasks created in one turn of the event loop into one request. Default true. */
  coalesce?: boolean;
  /** Sent with every call, e.g. a `traceparent`. */
  headers?: Record<string, string>;
  fetch?: typeof fetch;
}

export interface CallOptions {
  signal?: AbortSignal;
  /** The longest silence of the server, for this call. */
  timeoutSeconds?: number;
}
export interface CreateOptions extends CallOptions {
  /** Yours, to make the same call safe across restarts. Without it the client makes one. */
  idempotencyKey?: string;
}
export interface FollowOptions {
  /** The sequence number to go on after. Default 0: from the first. */
  after?: number;
  /** Comma-separated; `task.*` matches a family. */
  types?: string;
  signal?: AbortSignal;
}

/** What differs between Node and a browser. */
export interface Platform {
  resolve(options: ClientOptions): { url: string; key: string | undefined };
  transport(url: string, options: ClientOptions): Transport;
  afterTurn(callback: () => void): void;
  /** Long polls the transport carries at one time. */
  readonly waits: number;
  readonly random: () => number;
  readonly sleep: Sleep;
  /** A monotonic clock, in ms. */
  readonly now: () => number;
}
export const commonPlatform = { random: Math.random, sleep, now: () => performance.now() } as const;
