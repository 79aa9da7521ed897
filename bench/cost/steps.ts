import type { Change } from "@waggle/core";
import { type Deployment, deploy } from "./deployment.ts";
import type { RigKind } from "./rig.ts";
import { mean, sum, type Units } from "./units.ts";

export interface Step {
  readonly name: string;
  readonly what: string;
  /** Of one task, or of one of what it names. */
  readonly units: Units;
}

/** Tasks of each measure come in rounds of as many as the agent has slots. */
const round = 10;
/** As `batch` of the queues in `infra/manifest.ts`, the most SQS gives at once. */
const queueBatch = 10;

/** About 200 bytes, and 100: a task stays within 1 KB to its end. */
const input = {
  repository: "https://example.com/acme/store.git",
  revision: "9f1c2ab7d4e05f63",
  paths: ["src", "test"],
  question: "Which of these functions can be reached without a session? Name file and line.",
};
const result = { findings: [{ file: "src/session.ts", line: 42, severity: "high" }], tokens: 1834 };
const wanted = { type: "review", requires: [{ capability: "review" }], input };

type How = "single" | "id" | "key" | "batch";
interface Held {
  readonly id: string;
  readonly fence: number;
}

const assignedIn = (changes: readonly Change[]): Held[] =>
  changes.flatMap(({ new: next }) =>
    next?.kind === "task" && next.status === "assigned" ? [{ id: next.id as string, fence: next.fence as number }] : [],
  );

/** Every step of a task's way, each from the meter of the engine that did it. */
export async function measureSteps(kind: RigKind, rounds = 10): Promise<Step[]> {
  const connected = await deploy(kind, { result });
  try {
    const steps = await ofConnected(connected, rounds);
    const called = await deploy(kind, { result });
    try {
      return [...steps, ...(await ofCalled(called, rounds))];
    } finally {
      await called.close();
    }
  } finally {
    await connected.close();
  }
}

async function submit({ call, key, number }: Deployment, how: How): Promise<void> {
  if (how === "batch") {
    const { results } = await call("POST", "/v1/tasks/batch", key, {
      tasks: Array.from({ length: round }, () => wanted),
    });
    if (!results.every((each: object) => "task" in each)) throw new Error(JSON.stringify(results[0]));
    return;
  }
  for (let i = 0; i < round; i++) {
    const own = how === "id" ? { id: `tsk_${String(number()).padStart(22, "0")}` } : {};
    const headers = how === "key" ? { "Idempotency-Key": `key-${String(number()).padStart(8, "0")}` } : {};
    await call("POST", "/v1/tasks", key, { ...wanted, ...own }, headers);
  }
}

/** Rounds of tasks from submit to whatever `act` makes of them; the changes by phase. */
async function rounded(
  on: Deployment,
  rounds: number,
  how: How,
  act: (held: readonly Held[]) => Promise<readonly Units[]>,
): Promise<{ submit: Units; acts: Units[]; phases: Change[][] }> {
  const phases: [Change[], Change[]] = [[], []];
  const all: Units[][] = [];
  for (let i = 0; i < rounds; i++) {
    on.clock.advance(100);
    const submitted = await on.count(round, () => submit(on, how));
    const changes = await on.changes();
    phases[0].push(...changes);
    const held = assignedIn(changes);
    if (held.length !== round) throw new Error(`${held.length} of ${round} tasks were assigned`);
    all.push([submitted, ...(await act(held))]);
    phases[1].push(...(await on.changes()));
  }
  const [submitted, ...acts] = (all[0] as Units[]).map((_, at) => mean(all.map((each) => each[at] as Units)));
  return { submit: submitted as Units, acts, phases };
}

const inOrder = (phases: readonly (readonly Change[])[]): Change[] =>
  phases.flat().sort((a, b) => (BigInt(a.position) < BigInt(b.position) ? -1 : 1));

async function ofConnected(on: Deployment, rounds: number): Promise<Step[]> {
  const tasks = rounds * round;
  const { token } = await on.call("POST", "/v1/agents", on.key, {
    name: "reviewer",
    capabilities: [{ name: "review" }],
    maxConcurrency: round,
    // Longer than all that is measured: signs of life are counted with the idle fleet.
    leaseSeconds: 3600,
  });
  await on.connect("connection-1", token);
  const each = async (held: readonly Held[], verb: string, body: object = {}) => {
    for (const { id, fence } of held) await on.call("POST", `/v1/tasks/${id}/${verb}`, token, { fence, ...body });
  };
  const complete = (held: readonly Held[]) => on.count(round, () => each(held, "complete", { result }));
  const onlyComplete = async (held: readonly Held[]) => [await complete(held)];

  // The first fill what processes remember: who the agents are, and where a projection stands.
  await on.follow(await on.changes());
  await on.follow(inOrder((await rounded(on, rounds, "single", onlyComplete)).phases));

  const single = await rounded(on, rounds, "single", onlyComplete);
  const apart = await on.count(tasks, async () => {
    for (const phase of single.phases) await on.follow(phase);
  });
  const withId = await rounded(on, rounds, "id", onlyComplete);
  const together = await on.count(tasks, () => on.follow(inOrder(withId.phases)));
  const withKey = await rounded(on, rounds, "key", onlyComplete);
  const alone = await on.count(tasks, () => on.follow(inOrder(withKey.phases), 1));
  const batched = await rounded(on, rounds, "batch", onlyComplete);
  await on.follow(inOrder(batched.phases));

  const long = await rounded(on, rounds, "single", async (held) => [
    await on.count(round, () => each(held, "start")),
    await on.count(round, () => each(held, "heartbeat")),
    await on.count(round, () => each(held, "heartbeat", { progress: { percent: 50 } })),
    await complete(held),
  ]);
  await on.follow(inOrder(long.phases));
  const [start, heartbeat, progress] = long.acts as [Units, Units, Units];

  const spoken = await rounded(on, rounds, "single", async (held) => [
    await on.count(round, async () => {
      for (const { id, fence } of held)
        await on.say("connection-1", { op: "complete", re: 2, taskId: id, fence, result });
    }),
  ]);
  await on.follow(inOrder(spoken.phases));

  const retried = await rounded(on, rounds, "single", async (held) => {
    const error = { code: "tool.broken", message: "out of reach" };
    const failing = await on.count(round, () => each(held, "fail", { error }));
    await on.follow(await on.changes());
    on.clock.advance(60_000);
    await on.drain("timers", queueBatch);
    await on.changes();
    const again = await on.count(round, () => on.drain("dispatch", queueBatch));
    await each(assignedIn(await on.changes()), "complete", { result });
    return [failing, again];
  });

  // Scheduled ones are not given to anybody by whoever submits them.
  const queued = async (batch: number): Promise<Units> => {
    const all: Units[] = [];
    for (let i = 0; i < rounds; i++) {
      for (let n = 0; n < round; n++) await on.call("POST", "/v1/tasks", on.key, { ...wanted, delaySeconds: 1 });
      await on.follow(await on.changes());
      on.clock.advance(1_100);
      await on.drain("timers", queueBatch);
      await on.changes();
      all.push(await on.count(round, () => on.drain("dispatch", batch)));
      await each(assignedIn(await on.changes()), "complete", { result });
      await on.changes();
    }
    return mean(all);
  };
  const [dispatched, dispatchedAlone] = [await queued(queueBatch), await queued(1)];

  // Twice as many as the agent has slots: half of them wait. In the first round nobody knows that any do, and the outbox finds them.
  const waits: Units[][] = [];
  const endAll = async (held: readonly Held[]) => {
    for (let left = held; left.length > 0; ) {
      await each(left, "complete", { result });
      const changes = await on.changes();
      await on.follow(changes);
      left = assignedIn([...changes, ...(await on.changes())]);
    }
  };
  for (let i = 0; i <= rounds; i++) {
    on.clock.advance(1_100);
    await submit(on, "single");
    const first = assignedIn(await on.changes());
    const behind = await on.count(round, () => submit(on, "single"));
    const parked = await on.count(round, () => on.drain("dispatch", queueBatch));
    await on.changes();
    if (i === 0) {
      await endAll(first);
      continue;
    }
    const relieved = await on.count(round, () => each(first, "complete", { result }));
    await endAll(assignedIn(await on.changes()));
    waits.push([behind, parked, relieved]);
  }
  const [behind, parked, relieved] = [0, 1, 2].map((at) => mean(waits.map((all) => all[at] as Units)));

  // Each is due by itself: those due within 100 ms of one another share a message.
  const firings: Units[] = [];
  for (let i = 0; i < rounds; i++) {
    await on.call("POST", "/v1/tasks", on.key, { ...wanted, delaySeconds: 30 });
    const created = await on.changes();
    const armed = await on.count(1, () => on.follow(created));
    on.clock.advance(31_000);
    const fired = await on.count(1, () => on.drain("timers", queueBatch));
    const { queueRequests } = armed;
    firings.push({ ...fired, queueRequests: fired.queueRequests + queueRequests });
    await on.drain("dispatch", queueBatch);
    const held = assignedIn(await on.changes());
    await each(held, "complete", { result });
    await on.changes();
  }

  return [
    { name: "submit", what: "one task a request, given to an agent that is free", units: single.submit },
    { name: "submit, id", what: "… with an id of the caller's own", units: withId.submit },
    { name: "submit, key", what: "… with an Idempotency-Key", units: withKey.submit },
    { name: "submit, batch", what: "ten tasks a request", units: batched.submit },
    { name: "submit, nobody free", what: "… left to the queue", units: behind as Units },
    { name: "dispatch", what: "from the queue, ten messages a batch", units: dispatched },
    { name: "dispatch, alone", what: "one message a batch", units: dispatchedAlone },
    { name: "dispatch, parked", what: "nobody is free still", units: parked as Units },
    { name: "start", what: "said by itself; complete implies it", units: start },
    { name: "heartbeat", what: "with nothing to note", units: heartbeat },
    { name: "progress", what: "a heartbeat with progress", units: progress },
    { name: "complete", what: "over HTTP", units: single.acts[0] as Units },
    { name: "complete, next", what: "… and the agent is given one that waits", units: relieved as Units },
    { name: "complete, socket", what: "over the agent's WebSocket", units: spoken.acts[0] as Units },
    { name: "retry", what: "an attempt fails, and is dispatched anew", units: sum(...retried.acts) },
    { name: "timer", what: "set, fired alone, and the task is queued", units: mean(firings) },
    { name: "follow", what: "events, lists, counters: batches of 100 changes, no two of one task", units: apart },
    { name: "follow, quick", what: "… of tasks that end in the batch they began in", units: together },
    { name: "follow, alone", what: "… one change a batch, as in a quiet hour", units: alone },
  ];
}

async function ofCalled(on: Deployment, rounds: number): Promise<Step[]> {
  const delivery = { type: "webhook", url: "https://agent.example.com/work" };
  await on.call("POST", "/v1/agents", on.key, {
    name: "reviewer",
    capabilities: [{ name: "review" }],
    maxConcurrency: round,
    delivery,
  });
  await on.follow(await on.changes());
  const passes: Units[][] = [];
  for (let i = 0; i <= rounds; i++) {
    on.clock.advance(100);
    await submit(on, "single");
    const given = await on.changes();
    const ordered = await on.count(round, () => on.follow(given));
    const delivered = await on.count(round, () => on.drain("deliver", queueBatch));
    const ended = await on.changes();
    if (!ended.some((change) => change.new?.status === "completed")) throw new Error("no task was completed");
    passes.push([ordered, delivered, await on.count(round, () => on.follow(ended))]);
  }
  // The first fills what processes remember.
  const [ordered, delivered, followed] = [0, 1, 2].map((at) => mean(passes.slice(1).map((pass) => pass[at] as Units)));
  return [
    { name: "deliver", what: "a webhook is called, and its answer is the result", units: delivered as Units },
    {
      name: "follow, called",
      what: "events, lists, counters, orders to deliver: batches of 20 changes",
      units: sum(ordered as Units, followed as Units),
    },
  ];
}
