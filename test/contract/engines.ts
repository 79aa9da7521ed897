import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Clock, Engine } from "@waggle/core";
import { type AwsConfig, createResources, deleteResources, type OpenAwsOptions, openAws } from "@waggle/engine-aws";
import { openEmbedded } from "@waggle/engine-embedded";
import { emulators, emulatorsLack } from "../support/emulator.ts";
import { createFaults } from "./faults.ts";

/** An engine under the contract, on data of its own. */
export interface Opened {
  readonly engine: Engine;
  /** Lets the engine's time pass: a clock in hand, or real seconds where a service keeps the time. */
  advance(seconds: number): Promise<void>;
  /** Stops it and opens it on the same data. */
  reopen(): Promise<Opened>;
  /** Stops it and takes its data away. */
  remove(): Promise<void>;
}

export type Suite = "store" | "queue" | "ports";

export interface EngineCase {
  readonly name: string;
  /** The suites it runs: a part that two engines share is tried once. */
  readonly suites: readonly Suite[];
  /** It keeps real time: tests then wait for seconds, a few at once, and beside one another. */
  readonly real: boolean;
  /** Why it cannot run here. */
  readonly lacks?: string | undefined;
  /** Why its meter cannot be held to what DynamoDB bills. */
  readonly unmetered?: string;
  /** Why a receipt stays good when its message is received again. */
  readonly receiptsStay?: string;
  open(): Promise<Opened>;
}

const embedded: EngineCase = {
  name: "embedded",
  suites: ["store", "queue", "ports"],
  real: false,
  open: () => openFolder(),
};

/** The AWS engine on emulators. Where what they need is missing it is skipped with the reason; in CI that is a failure. */
function onAws(
  name: string,
  suites: readonly Suite[],
  {
    service = emulators.ministack,
    store = service,
    lack,
    unmetered,
    receiptsStay,
    options = () => ({}),
  }: {
    /** Stands for all of AWS, or but for DynamoDB, where `store` is another. */
    service?: () => Promise<{ readonly endpoint: string }>;
    store?: () => Promise<{ readonly endpoint: string }>;
    lack: string | undefined;
    unmetered?: string;
    receiptsStay?: string | undefined;
    options?: () => OpenAwsOptions;
  },
): EngineCase {
  if (lack !== undefined && process.env.CI === "true") throw new Error(lack);
  if (lack !== undefined) console.warn(`skipped: ${name}: ${lack}`);
  return {
    name,
    suites,
    real: true,
    lacks: lack,
    ...(unmetered !== undefined && { unmetered }),
    ...(receiptsStay !== undefined && { receiptsStay }),
    async open() {
      // The SDK wants some; an emulator takes any.
      process.env.AWS_ACCESS_KEY_ID ??= "test";
      process.env.AWS_SECRET_ACCESS_KEY ??= "test";
      const [rest, own] = await Promise.all([service(), store()]);
      const config = await createResources({
        prefix: `contract-${process.pid}-${++opened}`,
        endpoint: rest.endpoint,
        storeEndpoint: own.endpoint,
        queues: { visibilitySeconds: 2 },
      });
      return await openOn(config, options);
    },
  };
}
let opened = 0;

async function openOn(config: AwsConfig, options: () => OpenAwsOptions): Promise<Opened> {
  const engine = await openAws(config, { streamIdleMs: 20, ruleRetrySeconds: 1, ...options() });
  return {
    engine,
    advance: (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000)),
    async reopen() {
      await engine.close();
      return await openOn(config, options);
    },
    async remove() {
      await engine.close();
      await deleteResources(config);
    },
  };
}

/** Plays the same faults again as far as calls come in the same order. */
const seed = Number(process.env.WAGGLE_FAULT_SEED ?? 1);
const faultRates = { throttle: 4, failure: 4, lostReply: 5, conflict: 4, partial: 25, reorder: 50, duplicate: 20 };

/** Somebody else's emulator, LocalStack for one: then it alone is tried. */
const given = process.env.AWS_ENDPOINT_URL;

const onGiven = (endpoint: string): EngineCase =>
  onAws(`aws on ${endpoint}`, ["store", "queue", "ports"], {
    service: async () => ({ endpoint }),
    lack: undefined,
    unmetered: "what it reports is its own",
    receiptsStay: process.env.WAGGLE_RECEIPTS_STAY,
  });

const ours = (): readonly EngineCase[] => [
  embedded,
  onAws("aws on MiniStack", ["store", "queue", "ports"], {
    lack: emulatorsLack.ministack(),
    unmetered: "MiniStack reports one unit for every get",
  }),
  onAws("aws on DynamoDB Local", ["store"], {
    store: emulators.dynamo,
    lack: emulatorsLack.ministack() ?? emulatorsLack.dynamo(),
  }),
  onAws(`aws with faults (WAGGLE_FAULT_SEED=${seed})`, ["store", "queue", "ports"], {
    lack: emulatorsLack.ministack(),
    unmetered: "what is tried again is billed again",
    options: () => ({ onClient: createFaults(seed, faultRates).onClient, retry: { baseMs: 2, capMs: 20 } }),
  }),
];

const all: readonly EngineCase[] = given ? [onGiven(given)] : ours();

/** Every engine that runs a suite. */
export const enginesOf = (suite: Suite): readonly EngineCase[] => all.filter((each) => each.suites.includes(suite));

async function openFolder(dataDir = mkdtempSync(join(tmpdir(), "waggle-contract-"))): Promise<Opened> {
  const { clock, advance } = manualClock();
  const engine = await openEmbedded({ dataDir, clock });
  return {
    engine,
    advance,
    async reopen() {
      await engine.close();
      return await openFolder(dataDir);
    },
    async remove() {
      await engine.close();
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}

function manualClock() {
  let now = Date.now();
  const timers = new Set<{ at: number; callback: () => void }>();
  const clock: Clock = {
    now: () => now,
    after(delayMs, callback) {
      const timer = { at: now + delayMs, callback };
      timers.add(timer);
      return () => timers.delete(timer);
    },
  };
  async function advance(seconds: number): Promise<void> {
    const until = now + seconds * 1000;
    for (;;) {
      // What the last timer set going may set timers of its own.
      for (let turns = 0; turns < 10; turns++) await new Promise((resolve) => setImmediate(resolve));
      const [next] = [...timers].sort((a, b) => a.at - b.at);
      if (next === undefined || next.at > until) break;
      timers.delete(next);
      now = Math.max(now, next.at);
      next.callback();
    }
    now = until;
  }
  return { clock, advance };
}
