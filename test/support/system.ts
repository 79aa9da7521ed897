import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  Agent,
  type Clock,
  type Engine,
  forget,
  type JsonText,
  type Outbound,
  type Ports,
  type Scope,
  systemScope,
  Task,
  wasAway,
} from "@waggle/core";
import { Audit } from "@waggle/core/audit";
import { deliverHandler, dispatchHandler, followChanges, timersHandler } from "@waggle/edge";
import { openEmbedded } from "@waggle/engine-embedded";

/** Time that stands still until the test moves it. */
export function manualClock(start = Date.parse("2030-01-01T00:00:00Z")) {
  let now = start;
  const timers = new Set<{ at: number; callback: () => void }>();
  return {
    now: () => now,
    /** When the next timer is due. */
    next: () => Math.min(...[...timers].map((timer) => timer.at)),
    after(delayMs: number, callback: () => void) {
      const timer = { at: now + delayMs, callback };
      timers.add(timer);
      return () => timers.delete(timer);
    },
    /** Moves time on, firing what comes due in order. */
    advance(ms: number) {
      const until = now + ms;
      for (;;) {
        const next = [...timers].filter((timer) => timer.at <= until).sort((a, b) => a.at - b.at)[0];
        if (!next) break;
        timers.delete(next);
        now = Math.max(now, next.at);
        next.callback();
      }
      now = until;
    },
  };
}

/** What a system stands on. */
export interface Base {
  readonly engine: Engine;
  readonly ports: Ports;
  /** Each look for what is left to do takes its time: where no timer is due, time need not pass in steps. */
  readonly real: boolean;
  /** Until nothing is left to do at this time. */
  quiet(): Promise<void>;
  /** Stops it and opens it on the same data. */
  again(): Promise<Base>;
  /** Stops it and takes its data away. */
  remove(): Promise<void>;
}

type OpenBase = (options: { clock: ReturnType<typeof manualClock>; outbound?: Outbound | undefined }) => Promise<Base>;

/**
 * How systems are opened; `shared`: as if other processes wrote to the same store; `brief`: what takes long there is left out;
 * `repeats`: messages come more than once, and with them the calls they order.
 */
export const mode: { shared: boolean; brief: boolean; repeats: boolean; open: OpenBase } = {
  shared: false,
  brief: false,
  repeats: false,
  open: openEmbeddedBase,
};

async function openEmbeddedBase(
  options: Parameters<OpenBase>[0],
  dataDir = mkdtempSync(join(tmpdir(), "waggle-")),
): Promise<Base> {
  const { clock, outbound } = options;
  const engine = await openEmbedded({ dataDir, clock: clock as Clock, ...(outbound && { outbound }) });
  const ports = mode.shared ? processOn(engine.ports) : engine.ports;
  return {
    engine,
    ports,
    real: false,
    async quiet() {
      for (let calm = 0; calm < 3; ) {
        await new Promise((resolve) => setImmediate(resolve));
        await ports.store.settled();
        const busy = (await Promise.all(Object.values(ports.queues).map((queue) => queue.depth()))).some(
          ({ waiting, inFlight }) => waiting + inFlight > 0,
        );
        calm = busy ? 0 : calm + 1;
      }
    },
    async again() {
      await engine.close();
      return await openEmbeddedBase(options, dataDir);
    },
    async remove() {
      await engine.close();
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}

/** The ports of one more process on the engine's store: it shares what is stored and nothing it remembers. */
export const processOn = (ports: Ports, more: Partial<Ports> = {}): Ports => ({
  ...ports,
  shared: true,
  live: { ...ports.live, pollMs: 250 },
  // Short waits, to let others go first, are over at once: the clock in hand stands still meanwhile.
  clock: {
    ...ports.clock,
    after(delayMs, callback) {
      if (delayMs >= 250) return ports.clock.after(delayMs, callback);
      const immediate = setImmediate(callback);
      return () => clearImmediate(immediate);
    },
  },
  ...more,
});

export interface System {
  readonly engine: Engine;
  readonly ports: Ports;
  readonly clock: ReturnType<typeof manualClock>;
  readonly errors: unknown[];
  /** Kinds of findings a test makes on purpose; any other at the end is a fault. */
  readonly damaged: Set<string>;
  readonly admin: Scope;
  as(agentId: string): Scope;
  tenant(name: string): Scope;
  /** Until nothing is left to do at this time. */
  quiet(): Promise<void>;
  /** Moves time on in steps, doing at each what is due. */
  pass(seconds: number, stepSeconds?: number): Promise<void>;
  agent(name: string, more?: Record<string, unknown>): Promise<string>;
  task(type: string, more?: Record<string, unknown>): Promise<Task.Info>;
  get(id: string): Promise<Task.Info>;
  /** Leases, expecting exactly one assignment. */
  lease(agentId: string): Promise<Task.Assignment>;
  /** As `lease`, and the agent begins with it. */
  run(agentId: string): Promise<Task.Assignment>;
  /** Stops and starts again, `awaySeconds` later. */
  reopen(options?: { awaySeconds: number }): Promise<System>;
  close(): Promise<void>;
}

/** All that a server does by itself, without its API. */
export function drive(engine: Engine, ports: Ports, onError: (component: string, error: unknown) => void) {
  engine.onReset(() => forget(ports));
  wasAway(ports);
  return [
    ...followChanges(engine.changes, ports),
    engine.queueFeed.consume("dispatch", { batch: 10, concurrency: 4 }, dispatchHandler(ports, onError)),
    engine.queueFeed.consume("timers", { batch: 10, concurrency: 4 }, timersHandler(ports, onError)),
    engine.queueFeed.consume("deliver", { batch: 1, concurrency: 16 }, deliverHandler(ports, onError)),
  ];
}

export async function openSystem(
  options: { clock?: ReturnType<typeof manualClock>; outbound?: Outbound } = {},
): Promise<System> {
  const { clock = manualClock(), outbound } = options;
  return systemOn(await mode.open({ clock, outbound }), clock);
}

async function systemOn(base: Base, clock: ReturnType<typeof manualClock>): Promise<System> {
  const { engine, ports } = base;
  const errors: unknown[] = [];
  const onError = (_: string, error: unknown) => errors.push(error);
  const feeds = drive(engine, ports, onError);
  const admin: Scope = { tenant: "acme", actor: { role: "admin", id: "key_test" }, ports, requestId: "test" };
  const stop = async () => void (await Promise.all(feeds.map((end) => end())));
  const system: System = {
    engine,
    ports,
    clock,
    errors,
    damaged: new Set(),
    admin,
    as: (agentId) => ({ ...admin, actor: { role: "agent", id: agentId } }),
    tenant: (name) => ({ ...systemScope(ports, name, "test"), actor: { role: "admin", id: "key_other" } }),
    quiet: () => base.quiet(),
    async pass(seconds, stepSeconds = Math.min(seconds, 0.5)) {
      for (let left = seconds; left > 1e-9; ) {
        const idle = base.real ? Math.floor((clock.next() - clock.now()) / 1000 / stepSeconds) : 0;
        const step = Math.min(left, Math.max(1, idle) * stepSeconds);
        clock.advance(Math.round(step * 1000));
        left -= step;
        await system.quiet();
      }
    },
    async agent(name, more = {}) {
      const { agent } = await Agent.register(
        admin,
        Agent.Register.parse({ name, capabilities: [{ name: "work" }], ...more }),
      );
      return agent.id;
    },
    async task(type, more = {}) {
      const { task } = await Task.create(
        admin,
        Task.Create.parse({ type, input: '{"n":1}' as JsonText, requires: [{ capability: "work" }], ...more }),
      );
      await system.quiet();
      return task;
    },
    get: (id) => Task.get(admin, id),
    async lease(agentId) {
      const scope = system.as(agentId);
      await Agent.seen(scope, agentId);
      let [assignment, ...more] = await Agent.lease(scope, agentId, { max: 1, waitSeconds: 0 });
      // A queue of its own says only about how many messages it has.
      for (let again = 0; base.real && !assignment && again < 5; again++) {
        await system.quiet();
        [assignment, ...more] = await Agent.lease(scope, agentId, { max: 1, waitSeconds: 0 });
      }
      if (!assignment || more.length > 0)
        throw new Error(`expected one assignment, got ${assignment ? 1 + more.length : 0}`);
      await system.quiet();
      return assignment;
    },
    async run(agentId) {
      const assignment = await system.lease(agentId);
      await Task.start(system.as(agentId), assignment.task.id, { fence: assignment.fence });
      return assignment;
    },
    async reopen({ awaySeconds } = { awaySeconds: 0 }) {
      await stop();
      clock.advance(awaySeconds * 1000);
      return systemOn(await base.again(), clock);
    },
    async close() {
      await system.quiet();
      const { findings } = await Audit.run(ports);
      const faults = findings.filter(({ code }) => !system.damaged.has(code));
      await stop();
      await base.remove();
      if (faults.length > 0) throw new Error(`the store is not whole: ${JSON.stringify(faults, null, 1)}`);
    },
  };
  await system.quiet();
  return system;
}

/** The next such call takes effect, and whoever made it dies before hearing of it. */
export function diesAfter({ store }: Ports, call: "write" | "transact"): void {
  const own = store[call] as (writes: never) => Promise<unknown>;
  Object.assign(store, {
    async [call](writes: never) {
      Object.assign(store, { [call]: own });
      await own(writes);
      throw new Error("died");
    },
  });
}

/**
 * The server is killed once the next such call took effect, and started again. Where others share the store it is one process of them.
 * @param first done just before that call
 */
export async function killedAfter(
  system: System,
  call: "write" | "transact",
  run: () => Promise<unknown>,
  first: () => Promise<unknown> = async () => {},
): Promise<System> {
  const { store, live, shared } = system.ports;
  const own = store[call] as (writes: never) => Promise<unknown>;
  const die = () => {
    throw new Error("killed");
  };
  const dead = async () => die();
  const all = {
    get: dead,
    batchGet: dead,
    query: dead,
    write: dead,
    transact: dead,
    batchWrite: dead,
    projected: dead,
  };
  Object.assign(store, {
    async [call](writes: never) {
      Object.assign(store, { [call]: own });
      await first();
      // What runs beside it in its process comes to nothing, too.
      if (!shared) {
        Object.assign(store, all);
        Object.assign(live, { publish: die });
      }
      await own(writes);
      die();
    },
  });
  const thrown = await run().then(
    () => new Error("it lives"),
    (error: Error) => error,
  );
  if (thrown.message !== "killed") throw thrown;
  if (!shared) return await system.reopen();
  await system.quiet();
  return system;
}

/** The code of the error a call is refused with. */
export const code = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "no error",
    (error) => error.code,
  );
