import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Clock, consumers, type Engine, type Live, outboxKinds, type Ports, type Scope } from "@waggle/core";
import { dispatchHandler, outboxHandler, projectChanges, timersHandler } from "@waggle/edge";
import { openEmbedded } from "@waggle/engine-embedded";
import { manualClock, processOn } from "./system.ts";

/** Thrown by every call of a process that has died. */
const died = new Error("the process has died");

export interface Process {
  readonly ports: Ports;
  scope(actor?: Scope["actor"]): Scope;
  /** It dies at its `nth` call of the store or a queue from now on: before it, or once it took effect. */
  crash(nth: number, when: "before" | "after"): void;
}

export interface Fleet {
  readonly engine: Engine;
  readonly clock: ReturnType<typeof manualClock>;
  readonly errors: unknown[];
  /** What was published to each connection, as text. */
  readonly sent: { readonly connectionId: string; readonly text: string }[];
  /** Connections that were ended from here. */
  readonly ended: ReadonlySet<string>;
  /** Connections to which nothing gets through any more. */
  readonly gone: Set<string>;
  /** One more process on the same store. */
  process(): Process;
  /** Who runs what queues and changes bring: each batch goes to another of these. */
  readonly workers: Process[];
  quiet(): Promise<void>;
  pass(seconds: number, stepSeconds?: number): Promise<void>;
  close(): Promise<void>;
}

/** Many processes on one store, as Lambda functions are: none knows what another remembers, and any may die. */
export async function openFleet(
  options: {
    workers?: number;
    /** Turns of the event loop that pass before a call: where processes overtake one another. */
    turns?: () => number;
  } = {},
): Promise<Fleet> {
  const dataDir = mkdtempSync(join(tmpdir(), "waggle-fleet-"));
  const clock = manualClock();
  const engine = await openEmbedded({ dataDir, clock: clock as Clock });
  const errors: unknown[] = [];
  const sent: { connectionId: string; text: string }[] = [];
  const gone = new Set<string>();
  const ended = new Set<string>();
  const found: ((connectionId: string) => Promise<void>)[] = [];

  /** What reaches other processes is what goes to a connection. */
  const live = (): Live => ({
    pollMs: 250,
    publish(channel, message) {
      if (!channel.startsWith("connection/")) return;
      const connectionId = channel.slice("connection/".length);
      if (message !== null && typeof message !== "string") throw new Error("a connection takes text");
      if (message === null) ended.add(connectionId);
      else if (!gone.has(connectionId)) sent.push({ connectionId, text: message });
      else for (const listener of found) pending.push(listener(connectionId).catch((error) => errors.push(error)));
    },
    subscribe: () => () => {},
    onGone(listener) {
      found.push(listener);
      return () => void found.splice(found.indexOf(listener), 1);
    },
  });
  const pending: Promise<unknown>[] = [];

  function process(): Process {
    let left = Number.POSITIVE_INFINITY;
    let how: "before" | "after" = "before";
    const guard =
      <Args extends unknown[], Result>(call: (...args: Args) => Promise<Result>) =>
      async (...args: Args): Promise<Result> => {
        for (let turns = options.turns?.() ?? 0; turns > 0; turns--)
          await new Promise((resolve) => setImmediate(resolve));
        if (left <= 0 || (--left <= 0 && how === "before")) throw died;
        const result = await call(...args);
        if (left <= 0) throw died;
        return result;
      };
    const { store, queues } = engine.ports;
    const queue = (name: keyof typeof queues) => ({ ...queues[name], send: guard(queues[name].send) });
    const ports = processOn(engine.ports, {
      live: live(),
      store: {
        ...store,
        get: guard(store.get),
        batchGet: guard(store.batchGet),
        query: guard(store.query),
        write: guard(store.write),
        transact: guard(store.transact),
        batchWrite: guard(store.batchWrite),
        // Lists follow a moment later there, and nobody waits for them.
        projected: () => Promise.resolve(),
      },
      queues: {
        dispatch: queue("dispatch"),
        timers: queue("timers"),
        deliver: queue("deliver"),
        intake: queue("intake"),
      },
    });
    return {
      ports,
      scope: (actor = { role: "admin", id: "key_test" }) => ({ tenant: "acme", actor, ports, requestId: "test" }),
      crash(nth, when) {
        left = nth;
        how = when;
      },
    };
  }

  const workers = Array.from({ length: options.workers ?? 3 }, process);
  let turn = 0;
  /** Batches that workers have not ended yet. */
  let running = 0;
  const onError = (_: string, error: unknown) => {
    if (error !== died) errors.push(error);
  };
  /** The next worker has it; one that died is replaced, as Lambda does. */
  const next = <Batch, Result>(handler: (ports: Ports) => (batch: Batch) => Promise<Result>) => {
    const handlers = new WeakMap<Process, (batch: Batch) => Promise<Result>>();
    return async (batch: Batch) => {
      const at = turn++ % workers.length;
      const worker = workers[at] as Process;
      const run = handlers.get(worker) ?? handler(worker.ports);
      handlers.set(worker, run);
      running++;
      try {
        return await run(batch);
      } finally {
        const alive = await worker.ports.store.get({ pk: "alive", sk: "alive" }).then(
          () => true,
          () => false,
        );
        if (!alive && workers[at] === worker) workers[at] = process();
        running--;
      }
    };
  };
  const feeds = [
    engine.changes.consume(consumers.outbox, outboxKinds, next(outboxHandler)),
    projectChanges(engine.changes, { ...engine.ports, shared: true }),
    engine.queueFeed.consume(
      "dispatch",
      { batch: 3, concurrency: 4 },
      next((ports) => dispatchHandler(ports, onError)),
    ),
    engine.queueFeed.consume(
      "timers",
      { batch: 3, concurrency: 4 },
      next((ports) => timersHandler(ports, onError)),
    ),
  ];
  const fleet: Fleet = {
    engine,
    clock,
    errors,
    sent,
    ended,
    gone,
    process,
    workers,
    async quiet() {
      const { ports } = engine;
      for (let calm = 0; calm < 4; ) {
        await new Promise((resolve) => setImmediate(resolve));
        await ports.store.settled();
        await ports.store.projected();
        await Promise.all(pending.splice(0));
        const depths = await Promise.all(Object.values(ports.queues).map((each) => each.depth()));
        const left = depths.reduce((sum, { waiting, inFlight }) => sum + waiting + inFlight, running);
        calm = left > 0 ? 0 : calm + 1;
      }
    },
    async pass(seconds, stepSeconds = 0.5) {
      for (let left = seconds; left > 1e-9; left -= stepSeconds) {
        clock.advance(Math.min(stepSeconds, left) * 1000);
        await fleet.quiet();
      }
    },
    async close() {
      for (const end of feeds) await end();
      await engine.close();
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
  return fleet;
}
