import { createHash } from "node:crypto";
import {
  Agent,
  type Clock,
  EventLog,
  Status as FleetStatus,
  isError,
  type JsonText,
  type Random,
  Retention,
  type Scope,
  Task,
} from "@waggle/core";
import { Audit } from "@waggle/core/audit";
import { type EmbeddedEngine, openOn } from "../../packages/engine-embedded/src/engine.ts";
import { randomOf } from "../support/random.ts";
import { drive, manualClock } from "../support/system.ts";
import { createDisk, type Session } from "./disk.ts";
import { createSpec, limitFaults, type Status } from "./spec.ts";

/** One thing that happens; `turns` of the event loop pass before it, in which whatever is under way goes on. */
export type Step = { readonly turns: number } & (
  | { readonly do: "submit"; readonly kind: Kind; readonly who: number }
  | { readonly do: Act; readonly who: number }
  | { readonly do: "cancel"; readonly which: number }
  | { readonly do: "retry"; readonly which: number }
  | { readonly do: "keep"; readonly seconds: number }
  | { readonly do: "pass"; readonly seconds: number }
  | { readonly do: "crash" }
  | { readonly do: "fault"; readonly times: number }
);

/** What a task asks for beside an agent. */
export type Kind = "plain" | "following" | "limited" | "delayed" | "urgent" | "batch" | Rarer;
type Rarer = "limited batch" | "rated" | "sticky" | "bound" | "timed";

/** What an agent does, and what is done with it. */
export type Act = "lease" | "complete" | "fail" | "release" | "beat" | "connect" | "disconnect" | Managed;
type Managed = "pause" | "drain" | "resume" | "leave" | "remove" | "replace";

interface Worker {
  readonly name: string;
  id: string;
  readonly held: Map<string, number>;
  /** Ends its connection, if it has one. */
  disconnect: (() => Promise<void>) | undefined;
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
const isUnavailable = (error: unknown): boolean => isError(error) && error.code === "store.unavailable";
function unlessUnavailable(error: unknown): void {
  if (!isUnavailable(error)) throw error;
}
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
    drive(engine, engine.ports, (_, error) => void (isUnavailable(error) || errors.push(error)));
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
        // It may have happened: what failed to be written may be on disk all the same, and there after a crash.
        if (isUnavailable(error)) return "lost" as const;
        if (isError(error)) return "no" as const;
        throw error;
      }
    })();
    answered.catch(() => {});
    const answer = await Promise.race([answered, ended]).catch((error) => {
      if (error === gone) return "lost" as const;
      throw error;
    });
    // Whoever asks again at once leaves no turn to the disk that everybody waits for.
    if (answer === "lost") await turn();
    return answer;
  }
  const answerOf = (got: { value: unknown } | "no" | "lost") => (typeof got === "string" ? got : ("yes" as const));
  const agentOf = (worker: Worker): Scope["actor"] => ({ role: "agent", id: worker.id });

  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
  const timeouts = [{ queueSeconds: 2 }, { runSeconds: 2 }, { totalSeconds: 6 }, { heartbeatSeconds: 2 }] as const;
  const limit = { concurrency: [{ key: "k", limit: 1 }] };
  const submits: Record<Kind, (who: Worker) => object> = {
    plain: () => ({}),
    urgent: () => ({ priority: 9, tags: ["u"] }),
    limited: () => limit,
    delayed: () => ({ delaySeconds: 3 }),
    following: () => ({ dependsOn: spec.ids().slice(-2) }),
    batch: () => ({}),
    "limited batch": () => limit,
    rated: () => ({ rate: { key: "r", limit: 2, perSeconds: 3 } }),
    sticky: () => ({ stickyKey: "s" }),
    bound: ({ id }) => ({ agentId: id }),
    timed: () => ({ timeouts: pick(timeouts) }),
  };
  async function submit(kind: Kind, who: Worker): Promise<void> {
    const retry = { maxAttempts, initialSeconds: 1, maxSeconds: 1 };
    const asked = { type: kind, requires: [{ capability: "x" }], retry, ...submits[kind](who) };
    const key = { key: `k${spec.ids().length}.${random()}`, hash: "h" };
    const atomic = random() < 0.5;
    // A caller sends it again until it is answered.
    for (;;) {
      const got = await call(async (scope) => {
        if (!kind.endsWith("batch"))
          return [(await Task.create(scope, Task.Create.parse(asked), { idempotency: key })).task];
        const tasks = [
          { ...asked, ref: "a" },
          { ...asked, dependsOn: ["ref:a"] },
        ];
        const { results } = await Task.createBatch(scope, { tasks, atomic }, { idempotency: key });
        return results.flatMap((each) => ("task" in each ? [each.task] : []));
      });
      if (got === "lost") continue;
      // What it was to follow has been deleted, or its agent was removed.
      if (got === "no") return;
      for (const { id, dependsOn, timeouts, boundAgentId } of got.value)
        spec.submitted(id, { maxAttempts, dependsOn, timed: Object.keys(timeouts).length > 0, boundAgentId });
      return;
    }
  }
  const take = (worker: Worker, id: string, given: readonly Task.Assignment[]) => {
    for (const { task, fence } of given) {
      if (!spec.known(task.id)) continue;
      spec.given(task.id, fence, id);
      if (worker.id === id) worker.held.set(task.id, fence);
    }
  };
  const register = async (worker: Worker) => {
    const offer = { name: worker.name, capabilities: [{ name: "x" }], maxConcurrency: slots, leaseSeconds };
    for (;;) {
      const input = Agent.Register.parse({ ...offer, onConflict: "replace" });
      const got = await call((scope) => Agent.register(scope, input));
      if (typeof got === "string") continue;
      worker.id = got.value.agent.id;
      worker.held.clear();
      worker.disconnect = undefined;
      return;
    }
  };
  /** By an operator, who asks until it is answered. */
  const manage = async (run: (scope: Scope) => Promise<unknown>) => {
    while ((await call(run)) === "lost");
  };
  const holding = (worker: Worker) => [...worker.held].map(([taskId, fence]) => ({ taskId, fence }));
  const one = (worker: Worker): [string, number] | undefined => {
    const [first] = worker.held;
    if (first) worker.held.delete(first[0]);
    return first;
  };

  const acts: Record<Act, (worker: Worker) => Promise<unknown>> = {
    async lease(worker: Worker) {
      const { id } = worker;
      const got = await call(async (scope) => {
        await Agent.seen(scope, id);
        return Agent.lease(scope, id, { max: slots, waitSeconds: 0 });
      }, agentOf(worker));
      if (typeof got !== "string") take(worker, id, got.value);
    },
    async connect(worker: Worker) {
      const { id } = worker;
      let engine: EmbeddedEngine | undefined;
      const connectionId = `c${random()}`;
      const early: Agent.AgentMessage[] = [];
      let welcome = false;
      const push = (message: Agent.AgentMessage) => {
        if (life.engine !== engine) return;
        // What is pushed before the connection stands leaves with the welcome.
        if (!welcome) early.push(message);
        else if ("assign" in message) take(worker, id, message.assign);
        else if ("revoked" in message) for (const taskId of message.revoked) worker.held.delete(taskId);
      };
      const options = { connectionId, holding: holding(worker), push };
      let made: Agent.Connection | undefined;
      const got = await call(async (scope) => {
        engine = life.engine;
        made = await Agent.connect(scope, id, options);
        return made;
      }, agentOf(worker));
      if (typeof got === "string") {
        if (life.engine === engine) await made?.disconnect().catch(unlessUnavailable);
        return;
      }
      welcome = true;
      for (const message of early) push(message);
      worker.disconnect = async () => {
        if (life.engine === engine) await got.value.disconnect().catch(unlessUnavailable);
      };
    },
    async disconnect(worker: Worker) {
      await worker.disconnect?.();
      worker.disconnect = undefined;
    },
    pause: ({ id }) => manage((scope) => Agent.pause(scope, id)),
    drain: ({ id }) => manage((scope) => Agent.drain(scope, id)),
    resume: ({ id }) => manage((scope) => Agent.resume(scope, id)),
    leave: ({ id }) => manage((scope) => Agent.remove(scope, id, { mode: "graceful", graceSeconds: 3 })),
    async remove(worker: Worker) {
      const { id } = worker;
      await manage((scope) => Agent.remove(scope, id, { mode: "force", graceSeconds: 0 }));
      await register(worker);
    },
    replace: register,
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
  async function retry(which: number): Promise<void> {
    const ids = spec.ids();
    const id = ids[which % Math.max(1, ids.length)];
    if (id !== undefined) spec.retried(id, answerOf(await call((scope) => Task.retry(scope, id))));
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
    const worker: Worker = { name: `a${i}`, id: "", held: new Map(), disconnect: undefined };
    await register(worker);
    workers.push(worker);
  }

  const running: Promise<unknown>[] = [];
  for (const step of steps) {
    await pass(step.turns);
    if (step.do === "crash") await crash();
    else if (step.do === "fault") life.session.fail(step.times);
    else if (step.do === "pass") await advance(step.seconds);
    else if (step.do === "submit") running.push(submit(step.kind, workers[step.who % agents] as Worker));
    else if (step.do === "cancel") running.push(cancel(step.which));
    else if (step.do === "retry") running.push(retry(step.which));
    else if (step.do === "keep") running.push(manage((scope) => Retention.put(scope, { taskSeconds: step.seconds })));
    else running.push(acts[step.do](workers[step.who % agents] as Worker));
  }
  await Promise.all(running);
  // The disk is well again, and what a failed write took back is done again.
  life.session.fail(0);
  await pass(50);

  const read = () => Promise.all(spec.ids().map((id) => Task.get(scopeOf(), id).catch(() => undefined)));
  // One at least goes on. Of the others nothing is heard any more.
  const silent = workers.slice(1).filter(() => random() < 0.3);
  for (const worker of silent) await acts.disconnect(worker);
  const others = workers.filter((worker) => !silent.includes(worker));
  for (const worker of others) {
    const { status } = await Agent.get(scopeOf(), worker.id);
    if (status === "stopped" || status === "draining") await register(worker);
    // One that is lost may have been paused or draining before, and would be that again.
    else if (status === "paused" || status === "lost") await acts.resume(worker);
  }
  /** What has not ended, though neither a task it waits for is open nor the agent it names silent. */
  const due = async () => {
    const open = (await read()).flatMap((info) => (info && !info.finishedAt ? [info] : []));
    const waitsFor = new Set([...open, ...silent].map(({ id }) => id));
    return open.filter(
      ({ dependsOn, boundAgentId = "" }) => ![...dependsOn, boundAgentId].some((id) => waitsFor.has(id)),
    );
  };
  for (let round = 0; round < 60 && (await due()).length > 0; round++) {
    for (const worker of others) {
      await acts.beat(worker);
      await acts.lease(worker);
      while (worker.held.size > 0) await acts.complete(worker);
    }
    await advance(4);
    await settle();
  }
  const stuck = await due();
  // Tasks for them alone wait until they are given up.
  for (const { id } of silent) await manage((scope) => Agent.remove(scope, id, { mode: "force", graceSeconds: 0 }));
  await settle();
  const infos = await read();
  const stored = new Map(infos.flatMap((info) => (info ? [[info.id, info] as const] : [])));
  const { findings } = await Audit.run(life.engine.ports);
  const items: EventLog.Info[] = [];
  for (let after = 0; ; ) {
    const page = await EventLog.list(scopeOf(), { after, limit: 1000 });
    items.push(...page.items);
    if (page.nextAfter === after) break;
    after = page.nextAfter;
  }
  const fleet = (await Agent.list(scopeOf(), Agent.ListQuery.parse({ limit: 200 }))).items;
  const { agents: counted } = await FleetStatus.read(scopeOf());
  const listed: Record<string, number> = {};
  for (const { status } of fleet) listed[status] = (listed[status] ?? 0) + 1;
  const miscounted = Object.entries(counted.byStatus).filter(
    ([status, count]) => status !== "stopped" && count !== (listed[status] ?? 0),
  );
  const inUse = fleet.reduce((sum, { running }) => sum + running, 0);
  const told = new Map<string, Status>();
  for (const { type, taskId } of items)
    if (taskId !== undefined) told.set(taskId, type.slice("task.".length) as Status);
  const faults = [
    ...stuck.map(({ id, status }) => `${id} is ${status}, though there is somebody to do it`),
    ...spec.contradicted(stored, told),
    ...limitFaults(
      items,
      new Set([...stored.values()].flatMap(({ id, concurrency }) => (concurrency.length > 0 ? [id] : []))),
    ),
    ...miscounted.map(([status, count]) => `${count} agents are counted as ${status}, ${listed[status] ?? 0} are`),
    ...(inUse === counted.slotsInUse ? [] : [`${counted.slotsInUse} slots are counted as in use, ${inUse} are`]),
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
