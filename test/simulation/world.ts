import { createHash } from "node:crypto";
import { Agent, type Clock, EventLog, isError, type JsonText, type Random, type Scope, Task } from "@waggle/core";
import { Audit } from "@waggle/core/audit";
import { type EmbeddedEngine, openOn } from "../../packages/engine-embedded/src/engine.ts";
import { randomOf } from "../chaos/plan.ts";
import { drive, manualClock } from "../support/system.ts";
import { createDisk, type Session } from "./disk.ts";
import { createSpec } from "./spec.ts";

/** One thing that happens; `turns` of the event loop pass before it, in which whatever is under way goes on. */
export type Step = { readonly turns: number } & (
  | { readonly do: "submit"; readonly kind: "plain" | "following" | "limited" | "delayed" | "urgent" | "batch" }
  | { readonly do: "lease" | "complete" | "fail" | "release" | "beat"; readonly who: number }
  | { readonly do: "cancel"; readonly which: number }
  | { readonly do: "pass"; readonly seconds: number }
  | { readonly do: "crash" }
);

interface Worker {
  readonly id: string;
  readonly held: Map<string, number>;
}

/** One life of the server, from its start to the crash. */
interface Life {
  readonly engine: EmbeddedEngine;
  readonly clock: ReturnType<typeof manualClock>;
  readonly session: Session;
  /** Rejects when the machine stops: nobody gets an answer any more. */
  readonly ended: Promise<never>;
  end(): void;
}

export interface Outcome {
  readonly faults: readonly string[];
  readonly crashes: number;
  readonly tasks: number;
  /** Of the event log and the tasks: the same seed and steps give the same. */
  readonly digest: string;
}

const gone = new Error("the machine has stopped");
const agents = 3;
const slots = 2;
const leaseSeconds = 10;
const maxAttempts = 50;
const immediate = setImmediate;
const turn = (): Promise<void> => new Promise((resolve) => immediate(resolve));
async function pass(turns: number): Promise<void> {
  for (let left = turns; left > 0; left--) await turn();
}

/**
 * Time that passes with the turns of the event loop and no other way, and chance that a seed decides: what happens then depends on
 * nothing but the seed. The function it answers gives both back.
 */
function takeOver(random: () => number): () => void {
  const { setTimeout, clearTimeout } = globalThis;
  const { random: chance } = Math;
  const { now } = performance;
  let turns = 0;
  const waiting = new Map<object, { at: number; run: () => void }>();
  const after = (run: () => void, ms = 0) => {
    const timer = { unref: () => timer, ref: () => timer };
    waiting.set(timer, { at: turns + Math.max(1, ms), run });
    return timer;
  };
  Object.assign(globalThis, { setTimeout: after, clearTimeout: (timer: object) => waiting.delete(timer) });
  Math.random = random;
  performance.now = () => turns;
  let over = false;
  const tick = () => {
    if (over) return;
    turns++;
    for (const [timer, { at, run }] of [...waiting]) {
      if (at > turns) continue;
      waiting.delete(timer);
      run();
    }
    immediate(tick);
  };
  immediate(tick);
  return () => {
    over = true;
    Object.assign(globalThis, { setTimeout, clearTimeout });
    Math.random = chance;
    performance.now = now;
  };
}

/** Ids count on through a process, so that each is called by its place in the text. */
function named(text: string): string {
  const names = new Map<string, string>();
  return text.replace(/\b(?:tsk|agt)_\w+/g, (id) => {
    const name = names.get(id) ?? String(names.size);
    names.set(id, name);
    return name;
  });
}

/** Plays steps on a real engine and domain, over a disk and a clock of its own, with a crash wherever one is asked for. */
export async function play(seed: number, steps: readonly Step[], { lies = false } = {}): Promise<Outcome> {
  const random = randomOf(seed);
  const restore = takeOver(random);
  const disk = createDisk(
    random,
    async () => {
      for (let left = Math.floor(random() * 6); left >= 0; left--) await turn();
    },
    lies,
  );
  try {
    return await run(disk, random, steps);
  } finally {
    // What the machine had begun when it stopped has come to nothing by then, and meets no other history.
    await pass(200);
    disk.remove();
    restore();
  }
}

async function run(
  disk: ReturnType<typeof createDisk>,
  random: () => number,
  steps: readonly Step[],
): Promise<Outcome> {
  const spec = createSpec();
  const workers: Worker[] = [];
  const errors: unknown[] = [];
  let crashes = 0;
  /** The machine has stopped and not started again. */
  let down = false;
  let life = boot(Date.parse("2030-01-01T00:00:00Z"));

  function boot(at: number): Life {
    const clock = manualClock(at);
    const session = disk.session();
    const letters: Random = (length) => Array.from({ length }, () => Math.floor(random() * 32).toString(32)).join("");
    const flush = { files: session.files, checkpointBytes: 6 * 1024, checkpointSeconds: 5, segmentBytes: 8 * 1024 };
    const engine = openOn(
      { dataDir: disk.dataDir, clock: clock as Clock, random: letters, flush },
      disk.dataDir,
      session.rows,
      () => {},
    );
    drive(engine, engine.ports, (_, error) => errors.push(error));
    let end = () => {};
    const ended = new Promise<never>((_, reject) => {
      end = () => reject(gone);
    });
    ended.catch(() => {});
    return { engine, clock, session, ended, end };
  }
  async function crash(): Promise<void> {
    crashes++;
    const { clock, session, end } = life;
    session.crash();
    down = true;
    end();
    await pass(3);
    down = false;
    life = boot(clock.now() + Math.floor(random() * 3000));
  }
  const scopeOf = (actor: Scope["actor"] = { role: "admin", id: "key_test" }): Scope => ({
    tenant: "acme",
    actor,
    ports: life.engine.ports,
    requestId: "test",
  });

  /** As an edge does: no answer before all of it is on disk. */
  async function call<T>(
    work: (scope: Scope) => Promise<T>,
    actor?: Scope["actor"],
  ): Promise<{ value: T } | "no" | "lost"> {
    while (down) await turn();
    const { engine, ended } = life;
    const { store } = engine.ports;
    const generation = store.generation();
    const answered = (async () => {
      try {
        const value = await work(scopeOf(actor));
        await store.settled(generation);
        return { value };
      } catch (error) {
        if (isError(error)) return "no" as const;
        throw error;
      }
    })();
    answered.catch(() => {});
    return Promise.race([answered, ended]).catch((error) => {
      if (error === gone) return "lost" as const;
      throw error;
    });
  }
  const answerOf = (got: { value: unknown } | "no" | "lost") => (typeof got === "string" ? got : ("yes" as const));
  const agentOf = (worker: Worker): Scope["actor"] => ({ role: "agent", id: worker.id });

  const submits: Record<Extract<Step, { do: "submit" }>["kind"], () => object> = {
    plain: () => ({}),
    urgent: () => ({ priority: 9, tags: ["u"] }),
    limited: () => ({ concurrency: [{ key: "k", limit: 1 }] }),
    delayed: () => ({ delaySeconds: 3 }),
    following: () => ({ dependsOn: spec.ids().slice(-2) }),
    batch: () => ({}),
  };
  async function submit(kind: keyof typeof submits): Promise<void> {
    const retry = { maxAttempts, initialSeconds: 1, maxSeconds: 1 };
    const asked = { type: kind, requires: [{ capability: "x" }], retry, ...submits[kind]() };
    const key = { key: `k${spec.ids().length}.${random()}`, hash: "h" };
    // A caller sends it again until it is answered.
    for (;;) {
      const got = await call(async (scope) => {
        if (kind !== "batch") return [(await Task.create(scope, Task.Create.parse(asked), { idempotency: key })).task];
        const tasks = [
          { ...asked, ref: "a" },
          { ...asked, dependsOn: ["ref:a"] },
        ];
        const { results } = await Task.createBatch(scope, { tasks, atomic: random() < 0.5 }, { idempotency: key });
        return results.flatMap((each) => ("task" in each ? [each.task] : []));
      });
      if (typeof got === "string") continue;
      for (const { id, dependsOn } of got.value) spec.submitted(id, { maxAttempts, dependsOn });
      return;
    }
  }
  const take = (worker: Worker, given: readonly Task.Assignment[]) => {
    for (const { task, fence } of given) {
      if (!spec.known(task.id)) continue;
      spec.given(task.id, fence, worker.id);
      worker.held.set(task.id, fence);
    }
  };
  const holding = (worker: Worker) => [...worker.held].map(([taskId, fence]) => ({ taskId, fence }));
  const one = (worker: Worker): [string, number] | undefined => {
    const [first] = worker.held;
    if (first) worker.held.delete(first[0]);
    return first;
  };

  const acts = {
    async lease(worker: Worker) {
      const got = await call((scope) => Agent.lease(scope, worker.id, { max: slots, waitSeconds: 0 }), agentOf(worker));
      if (typeof got !== "string") take(worker, got.value);
    },
    async complete(worker: Worker) {
      const first = one(worker);
      if (!first) return;
      const [id, fence] = first;
      const input = Task.Complete.parse({ fence, result: String(fence) as JsonText });
      for (;;) {
        const got = await call((scope) => Task.complete(scope, id, input), agentOf(worker));
        spec.completed(id, fence, answerOf(got));
        if (got !== "lost") return;
      }
    },
    async fail(worker: Worker) {
      const first = one(worker);
      if (!first) return;
      const [id, fence] = first;
      const input = Task.Fail.parse({ fence, error: { code: "bad", message: "bad", retryable: random() < 0.8 } });
      spec.failed(id, fence, answerOf(await call((scope) => Task.fail(scope, id, input), agentOf(worker))));
    },
    async release(worker: Worker) {
      const first = one(worker);
      if (first) await call((scope) => Task.release(scope, first[0], { fence: first[1] }), agentOf(worker));
    },
    async beat(worker: Worker) {
      await call((scope) => Agent.heartbeat(scope, worker.id, { holding: holding(worker) }), agentOf(worker));
    },
  };
  async function cancel(which: number): Promise<void> {
    const ids = spec.ids();
    const id = ids[which % Math.max(1, ids.length)];
    if (id !== undefined) spec.cancelled(id, answerOf(await call((scope) => Task.cancel(scope, id, {}))));
  }
  async function advance(seconds: number): Promise<void> {
    for (let left = seconds; left > 0; left -= 1) {
      life.clock.advance(Math.min(1, left) * 1000);
      await pass(2);
    }
  }
  async function settle(): Promise<void> {
    for (let calm = 0; calm < 3; ) {
      await pass(4);
      const depths = await Promise.all(Object.values(life.engine.ports.queues).map((queue) => queue.depth()));
      calm = depths.some(({ waiting, inFlight }) => waiting + inFlight > 0) ? 0 : calm + 1;
    }
  }

  for (let i = 0; i < agents; i++) {
    const asked = { name: `a${i}`, capabilities: [{ name: "x" }], maxConcurrency: slots, leaseSeconds };
    const got = await call((scope) => Agent.register(scope, Agent.Register.parse(asked)));
    if (typeof got === "string") throw new Error("an agent could not be registered");
    workers.push({ id: got.value.agent.id, held: new Map() });
  }

  const running: Promise<unknown>[] = [];
  for (const step of steps) {
    await pass(step.turns);
    if (step.do === "crash") await crash();
    else if (step.do === "pass") await advance(step.seconds);
    else if (step.do === "submit") running.push(submit(step.kind));
    else if (step.do === "cancel") running.push(cancel(step.which));
    else running.push(acts[step.do](workers[step.who % agents] as Worker));
  }
  await Promise.all(running);

  const read = () => Promise.all(spec.ids().map((id) => Task.get(scopeOf(), id).catch(() => undefined)));
  const open = async () => (await read()).filter((info) => info && !info.finishedAt);
  for (let round = 0; round < 60 && (await open()).length > 0; round++) {
    for (const worker of workers) {
      await acts.beat(worker);
      await acts.lease(worker);
      while (worker.held.size > 0) await acts.complete(worker);
    }
    await advance(4);
    await settle();
  }
  await settle();
  const infos = await read();
  const stored = new Map(infos.flatMap((info) => (info ? [[info.id, info] as const] : [])));
  const { findings } = await Audit.run(life.engine.ports);
  const { items } = await EventLog.list(scopeOf(), { after: 0, limit: 10_000 });
  const faults = [
    ...spec.contradicted(stored),
    ...findings.map(({ code, subject, problem }) => `${code} ${subject} ${problem}`),
    ...errors.map((error) => `a handler failed: ${error instanceof Error ? error.stack : String(error)}`),
  ];
  const digest = createHash("sha256")
    .update(named(JSON.stringify([items, infos])))
    .digest("hex")
    .slice(0, 16);
  life.session.crash();
  return { faults, crashes, tasks: spec.ids().length, digest };
}
