import { Agent, EventLog, isError, Key, Status, Task } from "@waggle/core";
import { minuteHandler } from "@waggle/edge";
import fc from "fast-check";
import { expect, test } from "vitest";
import { openFleet, type Process } from "../support/processes.ts";

/** An agent that holds a connection, as the SDK's does: it takes what is pushed, once, and says what it holds when it comes back. */
interface Worker {
  readonly id: string;
  readonly slots: number;
  connectionId: string | undefined;
  readonly held: Map<string, number>;
}

interface Frame {
  op: string;
  assignments?: Task.Assignment[];
  revoked?: string[];
  cancel?: string[];
}

const capabilities = ["red", "blue"] as const;
const of = (agentId: string) => ({ role: "agent", id: agentId }) as const;

/** A seeded stream of numbers below 1. */
function numbers(seed: number): () => number {
  let state = seed >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

async function world(seed: number, { dying = false } = {}) {
  const leaseSeconds = dying ? 60 : 3600;
  const random = numbers(seed);
  const fleet = await openFleet({ turns: () => (random() < 0.5 ? 0 : Math.floor(random() * 4)) });
  const callers = Array.from({ length: 3 }, () => fleet.process());
  const pick = <Each>(list: readonly Each[]): Each => list[Math.floor(random() * list.length)] as Each;
  const workers: Worker[] = [];
  const pullers: Worker[] = [];
  const tasks: string[] = [];
  const accepted: string[] = [];
  let connections = 0;
  let read = 0;

  await Key.create(fleet.process().scope(), { role: "admin" });
  /** A call that a client makes: when its process dies it asks another. */
  const call = async <Result>(run: (process: Process) => Promise<Result>): Promise<Result> => {
    for (;;) {
      const at = Math.floor(random() * callers.length);
      try {
        return await run(callers[at] as Process);
      } catch (error) {
        if (isError(error)) throw error;
        callers[at] = fleet.process();
      }
    }
  };
  const receive = () => {
    for (; read < fleet.sent.length; read++) {
      const { connectionId, text } = fleet.sent[read] as (typeof fleet.sent)[number];
      const worker = workers.find((each) => each.connectionId === connectionId);
      if (!worker) continue;
      const frame = JSON.parse(text) as Frame;
      for (const { task, fence } of frame.assignments ?? []) worker.held.set(task.id, fence);
      for (const id of frame.revoked ?? []) worker.held.delete(id);
      // One that died may have taken a task away and not said so: then it is fenced off, and not one of its slots.
      if (!dying) expect(worker.held.size).toBeLessThanOrEqual(worker.slots);
    }
  };
  const connect = async (worker: Worker) => {
    const connectionId = `c${++connections}`;
    const holding = [...worker.held].map(([taskId, fence]) => ({ taskId, fence }));
    const { again } = await call((process) =>
      Agent.attach(process.scope(of(worker.id)), worker.id, { connectionId, holding }),
    );
    worker.connectionId = connectionId;
    receive();
    for (const { task, fence } of again) worker.held.set(task.id, fence);
    await call((process) => Agent.serve(process.scope(of(worker.id)), worker.id));
  };
  const register = async (slots: number, capability: string, connected: boolean) => {
    const { agent } = await call((process) =>
      Agent.register(
        process.scope(),
        Agent.Register.parse({
          name: `agent-${workers.length + pullers.length}`,
          onConflict: "replace",
          capabilities: [{ name: capability }],
          maxConcurrency: slots,
          leaseSeconds,
        }),
      ),
    );
    const worker: Worker = { id: agent.id, slots, connectionId: undefined, held: new Map() };
    (connected ? workers : pullers).push(worker);
    if (connected) await connect(worker);
  };
  const submit = async (capability: string) => {
    const key = `submit-${tasks.length}`;
    const index = tasks.push("") - 1;
    const { task } = await call((process) =>
      Task.create(process.scope(), Task.Create.parse({ type: capability, requires: [{ capability }] }), {
        idempotency: { key, hash: key },
      }),
    );
    tasks[index] = task.id;
  };
  const complete = async (worker: Worker) => {
    receive();
    const [first] = worker.held;
    if (!first) return;
    const [id, fence] = first;
    worker.held.delete(id);
    const ended = await call((process) => Task.complete(process.scope(of(worker.id)), id, { fence })).catch((error) => {
      expect(error.code).toBe("task.lease_lost");
    });
    if (ended) accepted.push(id);
  };
  const lease = async (worker: Worker) => {
    const got = await call((process) =>
      Agent.lease(process.scope(of(worker.id)), worker.id, { max: 2, waitSeconds: 0 }),
    );
    for (const { task, fence } of got) worker.held.set(task.id, fence);
    if (!dying) expect(worker.held.size).toBeLessThanOrEqual(worker.slots);
  };
  /** What agents do while time passes, and what runs each minute. */
  const live = async () => {
    for (const worker of [...workers, ...pullers]) {
      const holding = [...worker.held].map(([taskId, fence]) => ({ taskId, fence }));
      await call((process) => Agent.heartbeat(process.scope(of(worker.id)), worker.id, { holding }));
    }
    const onError = (_: string, error: unknown) => void fleet.errors.push(error);
    return minuteHandler(fleet.process().ports, onError)();
  };
  const cancel = async () => {
    const id = pick(tasks);
    if (id) await call((process) => Task.cancel(process.scope(), id, {}));
  };
  const state = async () => {
    const { ports } = fleet.engine;
    const scope = fleet.process().scope();
    const rows = await Promise.all(tasks.map((id) => Task.get(scope, id)));
    const agents = await Promise.all([...workers, ...pullers].map(({ id }) => Agent.get(scope, id)));
    await ports.store.projected();
    return { rows, agents, scope };
  };
  return {
    live,
    fleet,
    random,
    pick,
    workers,
    pullers,
    tasks,
    accepted,
    receive,
    connect,
    register,
    submit,
    complete,
    lease,
    cancel,
    state,
    callers,
  };
}

type World = Awaited<ReturnType<typeof world>>;

/** What must hold whenever nothing is on its way. */
async function holds(each: World): Promise<void> {
  // A message that came before its task comes again a second later.
  await each.fleet.pass(2, 1);
  each.receive();
  const { rows, agents } = await each.state();
  for (const agent of agents) {
    const held = rows.filter(
      (row) => row.agentId === agent.id && (row.status === "assigned" || row.status === "running"),
    );
    expect(agent.running).toBe(held.length);
    expect(agent.running).toBeLessThanOrEqual(agent.maxConcurrency);
  }
  for (const worker of each.workers) {
    for (const row of rows)
      if (row.agentId === worker.id && row.status === "assigned") expect(worker.held.get(row.id)).toBe(row.fence);
  }
  for (const row of rows) {
    if (row.status !== "queued") continue;
    const idle = agents.filter(
      (agent, at) =>
        at < each.workers.length &&
        each.workers[at]?.connectionId !== undefined &&
        agent.freeSlots > 0 &&
        agent.capabilities.some(({ name }) => name === row.type),
    );
    expect(idle.map(({ name }) => name)).toEqual([]);
    expect(row.waiting).toBeDefined();
  }
}

/** Works until nothing is left, and compares the books with what was done. */
async function finish(each: World, { dying = false } = {}): Promise<void> {
  const { fleet } = each;
  for (let round = 0; round < 400; round++) {
    each.receive();
    for (const worker of [...each.workers, ...each.pullers]) while (worker.held.size > 0) await each.complete(worker);
    for (const worker of each.pullers) await each.lease(worker);
    await fleet.quiet();
    each.receive();
    if ([...each.workers, ...each.pullers].some((worker) => worker.held.size > 0)) continue;
    const { rows } = await each.state();
    const open = rows.filter(({ status }) => status !== "completed" && status !== "cancelled");
    if (open.length === 0) break;
    await fleet.pass(20, 10);
    await each.live();
  }
  // Who ended a task may have died before its slots were given back.
  if (dying) await each.live();
  await fleet.quiet();
  const { rows, agents, scope } = await each.state();
  const completed = rows.filter(({ status }) => status === "completed").map(({ id }) => id);
  expect(rows.filter(({ status }) => status !== "completed" && status !== "cancelled").map((row) => row)).toEqual([]);
  expect([...new Set(each.accepted)].sort()).toEqual(completed.sort());
  expect(agents.map(({ running }) => running)).toEqual(agents.map(() => 0));
  expect(agents.reduce((sum, { stats }) => sum + stats.completed, 0)).toBe(completed.length);
  const { items } = await EventLog.list(scope, { after: 0, limit: 10_000 });
  expect(items.map(({ sequence }) => sequence)).toEqual(items.map((_, at) => at + 1));
  expect(
    items
      .filter(({ type }) => type === "task.completed")
      .map(({ taskId }) => taskId)
      .sort(),
  ).toEqual(completed.sort());
  const status = await Status.read(scope);
  expect(status.tasks.byStatus).toMatchObject({ queued: 0, assigned: 0, running: 0, completed: completed.length });
  expect(status.totals.completed).toBe(completed.length);
  expect(fleet.errors).toEqual([]);
}

const command = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant("submit" as const), capability: fc.constantFrom(...capabilities) }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("complete" as const), who: fc.nat(5) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("lease" as const), who: fc.nat(5) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("register" as const),
      slots: fc.integer({ min: 1, max: 3 }),
      capability: fc.constantFrom(...capabilities),
      connected: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("reconnect" as const), who: fc.nat(5) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("cancel" as const) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("quiet" as const) }) },
);
type Command = typeof command extends fc.Arbitrary<infer Each> ? Each : never;

function run(each: World, step: Command): Promise<unknown> | undefined {
  if (step.do === "submit") return each.submit(step.capability);
  if (step.do === "register") {
    return each.workers.length + each.pullers.length < 6
      ? each.register(step.slots, step.capability, step.connected)
      : undefined;
  }
  if (step.do === "cancel") return each.tasks.length > 0 ? each.cancel() : undefined;
  if (step.do === "quiet") return undefined;
  const all =
    step.do === "reconnect" ? each.workers : step.do === "lease" ? each.pullers : [...each.workers, ...each.pullers];
  const worker = all[step.who % Math.max(1, all.length)];
  if (!worker) return undefined;
  return step.do === "complete"
    ? each.complete(worker)
    : step.do === "lease"
      ? each.lease(worker)
      : each.connect(worker);
}

/** Registrations by themselves, so that names come in order; all else at once until the next pause. */
async function runAll(each: World, steps: readonly Command[], calm: () => Promise<void>): Promise<void> {
  let running: Promise<unknown>[] = [];
  const settle = async () => {
    await Promise.all(running);
    running = [];
  };
  for (const step of steps) {
    const alone = step.do === "register" || step.do === "reconnect";
    if (alone || step.do === "quiet") await settle();
    const started = run(each, step);
    if (started) running.push(started);
    if (alone) await settle();
    if (step.do !== "quiet") continue;
    await each.fleet.quiet();
    await calm();
  }
  await settle();
  await each.fleet.quiet();
  await calm();
}

const settings = {
  numRuns: Number(process.env.WAGGLE_MODEL_RUNS ?? 40),
  interruptAfterTimeLimit: 15_000,
  markInterruptAsFailure: false,
};
const history = fc.array(command, { minLength: 10, maxLength: 60, size: "max" });

test("however their steps cross, processes give each task to one agent within its slots, and let none wait beside a free one", async () => {
  await fc.assert(
    fc.asyncProperty(history, fc.integer(), async (steps, seed) => {
      const each = await world(seed);
      try {
        await runAll(each, steps, () => holds(each));
        await each.register(3, "red", true);
        await each.register(3, "blue", true);
        await finish(each);
      } finally {
        await each.fleet.close();
      }
    }),
    settings,
  );
});

test("processes that die between any two calls lose no task and do none twice", async () => {
  const crash = fc.record({
    after: fc.nat(60),
    worker: fc.boolean(),
    who: fc.nat(2),
    nth: fc.integer({ min: 1, max: 40 }),
    when: fc.constantFrom("before" as const, "after" as const),
  });
  const crashes = fc.array(crash, { minLength: 1, maxLength: 8 });
  await fc.assert(
    fc.asyncProperty(history, crashes, fc.integer(), async (steps, deaths, seed) => {
      const each = await world(seed, { dying: true });
      try {
        let at = 0;
        for (const step of steps) {
          for (const { after, worker, who, nth, when } of deaths)
            if (after === at) (worker ? each.fleet.workers : each.callers)[who]?.crash(nth, when);
          at++;
          await run(each, step);
          if (step.do === "quiet") await each.fleet.pass(20, 10).then(each.live);
        }
        await each.register(3, "red", true);
        await each.register(3, "blue", true);
        await finish(each, { dying: true });
      } finally {
        await each.fleet.close();
      }
    }),
    settings,
  );
});

test("a task that is parked behind another, while an agent with more room takes that one, is taken along", async () => {
  const fleet = await openFleet();
  try {
    await Key.create(fleet.process().scope(), { role: "admin" });
    const submit = async () => {
      const asked = Task.Create.parse({ type: "t", requires: [{ capability: "x" }] });
      const { task } = await Task.create(fleet.process().scope(), asked);
      await fleet.quiet();
      return task.id;
    };
    const first = await submit();
    const taker = fleet.process();
    const { store } = taker.ports;
    const { transact } = store;
    let second: string | undefined;
    // It has read the lane, and is about to take what it read.
    (store as { transact: typeof transact }).transact = async (writes) => {
      const takes = writes.some((write) => "delete" in write);
      if (takes && second === undefined) {
        second = "";
        second = await submit();
      }
      return transact(writes);
    };
    const capabilities = [{ name: "x" }];
    const registered = Agent.Register.parse({ name: "a", capabilities, maxConcurrency: 2, leaseSeconds: 3600 });
    const { agent } = await Agent.register(taker.scope(), registered);
    const { again } = await Agent.attach(taker.scope(of(agent.id)), agent.id, { connectionId: "c1" });
    expect(again).toEqual([]);
    await Agent.serve(taker.scope(), agent.id);
    for (const id of [first, second as unknown as string])
      expect((await Task.get(fleet.process().scope(), id)).status).toBe("assigned");
  } finally {
    await fleet.close();
  }
});
