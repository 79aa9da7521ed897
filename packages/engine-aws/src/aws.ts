import {
  type Bus,
  type Clock,
  noOutbound,
  type Outbound,
  type Ports,
  type Random,
  storeErrors,
  systemClock,
  systemRandom,
} from "@waggle/core";
import { createBlobs } from "./blobs.ts";
import { createBus } from "./bus.ts";
import { type Clients, createClients, type OnClient } from "./clients.ts";
import { type AwsConfig, forQueues } from "./config.ts";
import { lazyQueue } from "./lazy.ts";
import { type AwsLive, createLive } from "./live.ts";
import { type AwsMeter, createCounts } from "./meter.ts";
import { type Caller, createCaller, defaultPolicy, type RetryPolicy, within } from "./retry.ts";
import { createStore } from "./store.ts";

export interface AwsOptions {
  readonly clock?: Clock;
  readonly random?: Random;
  readonly retry?: Partial<RetryPolicy>;
  /** Sees every SDK client that is made, to add middleware: tracing, or faults in a test. */
  readonly onClient?: OnClient;
  /** How often who waits looks again, as nothing published in another process arrives. Default 1,000. */
  readonly pollMs?: number;
  /**
   * Told of a message to a connection that was given up: not that the connection is gone, but that AWS would not or could not. And of what
   * failed of seeing to one that is gone.
   */
  readonly onUnsent?: (error: unknown) => void;
  /** What calls agents with a webhook, a function or a queue. None unless given: then no such agent can be registered. */
  readonly outbound?: Outbound;
}

/** What every port is made of. */
export interface Parts {
  readonly clients: Clients;
  readonly caller: Caller;
  readonly counts: ReturnType<typeof createCounts>;
  /** Throws once the engine is closed. */
  readonly check: () => void;
}

export interface Aws {
  readonly ports: Ports & { readonly live: AwsLive };
  /** Since it was made. */
  meter(): AwsMeter;
  /**
   * Runs an invocation with its deadline: calls to AWS give up in time for a typed answer. Settles once what was published to
   * connections has left too, and no call is under way any more. A Lambda stands still after its answer: where one of two calls
   * has failed, the other would go on with the next invocation, over what others wrote meanwhile.
   * @param ms what is left, less what the answer needs
   * @example await aws.invocation(context.getRemainingTimeInMillis() - 500, () => handle(event))
   */
  invocation<T>(ms: number, run: () => Promise<T>): Promise<T>;
  /** Later calls throw `store.unavailable`. */
  close(): Promise<void>;
}

/**
 * The ports on DynamoDB, SQS, EventBridge, S3 and API Gateway. Nothing is called, and no client made, before it is needed.
 * @example const aws = createAws(configFromEnv(process.env))
 */
export function createAws(config: AwsConfig, options: AwsOptions = {}): Aws {
  return assemble(config, options, createParts(config, options));
}

export function createParts(config: AwsConfig, options: AwsOptions): Parts & { close(): void } {
  let closed = false;
  const check = () => {
    if (closed) throw storeErrors.unavailable("the engine is closed");
  };
  const clients = createClients(config, options.onClient);
  return {
    clients,
    caller: createCaller({ ...defaultPolicy, ...options.retry }, check),
    counts: createCounts(),
    check,
    close() {
      closed = true;
      clients.destroy();
    },
  };
}

export function assemble(
  config: AwsConfig,
  options: AwsOptions,
  parts: ReturnType<typeof createParts>,
  rules?: Pick<Bus, "putRule" | "deleteRule">,
): Aws {
  const { counts, caller } = parts;
  const live = createLive({
    ...parts,
    sockets: config.socketEndpoint !== undefined,
    pollMs: options.pollMs ?? 1_000,
    onUnsent: options.onUnsent,
  });
  return {
    ports: {
      shared: true,
      store: createStore({ ...parts, table: config.table }),
      queues: forQueues((name) =>
        lazyQueue({ ...parts, url: config.queues[name], deadLetters: config.deadLetters[name] }),
      ),
      bus: createBus({ ...parts, bus: config.bus, ...(rules !== undefined && { rules }) }),
      blobs: createBlobs({ ...parts, bucket: config.bucket }),
      live,
      clock: options.clock ?? systemClock,
      random: options.random ?? systemRandom,
      outbound: options.outbound ?? noOutbound,
    },
    meter: () => ({ ...counts, modelled: { ...counts.modelled } }),
    invocation: (ms, run) =>
      within(ms, async () => {
        try {
          return await run();
        } finally {
          await caller.idle();
          await live.idle();
        }
      }),
    async close() {
      await live.idle();
      parts.close();
    },
  };
}
