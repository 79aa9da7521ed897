import { setTimeout as sleep } from "node:timers/promises";
import { createAgent, createClient, type Task } from "@waggle/sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { FunctionName } from "../../infra/manifest.ts";
import { checkBooks, type Entry, isEnded, outcomeOf } from "../chaos/books.ts";
import { type Input, kindOf, kinds, resultOf } from "../chaos/plan.ts";
import { eventually } from "../support/eventually.ts";
import { pick, randomOf } from "../support/random.ts";
import { type Deployment, lack, openDeployment } from "./deploy.ts";

/*
 * Functions die in the middle of what they do, batches come twice, messages are lost; then the books are opened.
 * WAGGLE_AWS_SEED plays the same tasks and, as far as calls come in the same order, the same faults again.
 */
const seed = Number(process.env.WAGGLE_AWS_SEED ?? 1);
const long = process.env.WAGGLE_AWS_ALL === "1";
const plan = { tasks: long ? 400 : 60, kills: long ? 120 : 20, everyMs: 350, lanes: 4 };
/** Calls of the API that come to their end between two kills: on a slow machine, too, most of them do. */
const callsBetween = 4;
/** No longer than this, and this many runs of what puts things right, may pass without a change to any task that has not ended. */
const standstill = { seconds: 75, runs: 8 };

let deployment: Deployment;
const lost: Record<string, number> = {};
beforeAll(async () => {
  if (lack !== undefined) return;
  const random = randomOf(seed);
  deployment = await openDeployment({
    visibilitySeconds: 4,
    scheduleSeconds: 5,
    fate(source) {
      const drawn = random();
      if (drawn < 0.15) return "twice";
      // What is lost there is found again; an agent's call is the deliver queue's to keep.
      if (drawn > 0.93 && (source === "dispatch" || source === "timers")) {
        lost[source] = (lost[source] ?? 0) + 1;
        return "lost";
      }
      return "given";
    },
  });
}, 60_000);
afterAll(() => deployment?.stop());

/** Of these one is killed, if it is at work. */
const victims: readonly FunctionName[] = [
  "api",
  "api",
  "api",
  "socket",
  "socket",
  "dispatch",
  "timers",
  "outbox",
  "outbox",
  "minute",
];

test.skipIf(lack !== undefined)(
  "every acknowledged task has one outcome, though functions are killed, batches come twice and messages are lost",
  {
    // What is judged is standstill. Where many share the machine, it all takes longer.
    timeout: 900_000,
  },
  async () => {
    const { url, key } = deployment;
    const client = createClient({ url, key, retrySeconds: 100 });
    const said: string[] = [];
    const say = (message: string) => void said.push(`${new Date().toISOString()} ${message}`);
    /** What agents did with each task, for when it does not end. */
    const done = new Map<string, string[]>();
    const agents = (["socket", "socket", "poll"] as const).map((transport, i) =>
      createAgent({
        url,
        key,
        name: `books-${i}`,
        transport,
        capabilities: transport === "socket" ? ["chaos", "bulk", "narrow"] : ["chaos", "bulk"],
        concurrency: 6,
        leaseSeconds: 10,
        log: { debug() {}, info() {}, warn: say, error: say },
        handlers: {
          "*": async (task, { attempt, signal }) => {
            const input = task.input as Input;
            const notes = done.get(task.id) ?? [];
            const note = (what: string) =>
              notes.push(`${new Date().toISOString()} books-${i} ${what} attempt ${attempt}`);
            done.set(task.id, notes);
            note("begins");
            signal.addEventListener("abort", () => note(`is told ${signal.reason.code} of`));
            await sleep(input.busyMs, undefined, { signal });
            const { error } = kinds.find((kind) => kind.name === input.kind) ?? {};
            if (error !== undefined) throw Object.assign(new Error("meant to fail"), { code: error, retryable: false });
            if (input.kind === "flaky" && attempt === 1) throw Object.assign(new Error("not yet"), { code: "flaky" });
            return resultOf(input);
          },
        },
      }),
    );
    await Promise.all(agents.map((agent) => agent.start()));

    const entries: Entry[] = [];
    const look = async (entry: Entry): Promise<Task> => {
      const task = await client.tasks.get(entry.id);
      if (isEnded(task)) entry.seen ??= outcomeOf(task);
      return task;
    };
    let loading = plan.lanes;
    async function load(lane: number): Promise<void> {
      const random = randomOf(seed * 31 + lane);
      for (let n = lane; n < plan.tasks; n += plan.lanes) {
        // Half a second is what a call may take here.
        const kind =
          [kindOf(random), kindOf(random)].find(({ name }) => name !== "hasty") ?? (kinds[0] as Entry["kind"]);
        const pad = "x".repeat(kind.inputBytes ?? 100);
        const input: Input = { n, kind: kind.name, busyMs: Math.round(random() * kind.busyMs), pad };
        const earlier = entries.filter((entry) => entry.kind.ends.join() === "completed" && !entry.kind.follows);
        const another = earlier.length > 0 ? pick(random, earlier).id : undefined;
        const task = await client.tasks.create({
          ...kind.task,
          ...kind.more?.(random),
          type: kind.name,
          input,
          ...(another && kind.follows && { dependsOn: [another] }),
          ...(another && kind.child && { parentId: another }),
        });
        const entry: Entry = { id: task.id, kind, input };
        entries.push(entry);
        if (kind.cancelled)
          void sleep(random() * 600)
            .then(() => client.tasks.cancel(entry.id))
            .catch(() => {});
        await look(pick(random, entries));
      }
      loading--;
    }
    async function kill(): Promise<number> {
      const random = randomOf(seed + 1);
      let killed = 0;
      const { counts } = deployment.functions.api;
      for (let tries = 0; killed < plan.kills && tries < plan.kills * 4; tries++) {
        const { done } = counts;
        await sleep(random() * 2 * plan.everyMs);
        while (loading > 0 && counts.done < done + callsBetween) await sleep(20);
        const { kill } = deployment.functions[pick(random, victims)];
        if (kill((count) => Math.floor(random() * count))) killed++;
      }
      return killed;
    }
    const [killed] = await Promise.all([kill(), ...Array.from({ length: plan.lanes }, (_, lane) => load(lane))]);

    const waiting = new Set(entries);
    const { counts } = deployment.functions.minute;
    for (let last = "", at = 0, runs = 0; waiting.size > 0; await sleep(500)) {
      const states: string[] = [];
      for (const entry of waiting) {
        const task = await look(entry);
        if (isEnded(task)) waiting.delete(entry);
        else states.push(`${task.id} ${task.status} ${task.fence}`);
      }
      if (states.join() !== last) [last, at, runs] = [states.join(), performance.now(), counts.invocations];
      else if (performance.now() - at > standstill.seconds * 1_000 && counts.invocations - runs > standstill.runs)
        break;
    }
    const stuck = await Promise.all(
      [...waiting].map(async ({ id }) =>
        JSON.stringify([await client.tasks.get(id), await client.tasks.explain(id), done.get(id)]),
      ),
    );
    if (stuck.length > 0) {
      const rows = await Promise.all(agents.map(({ id }) => client.agents.get(id as string)));
      stuck.push(...agents.map(({ state, running }, i) => `${JSON.stringify(rows[i])} is ${state}, runs ${running}`));
      stuck.push(...said.slice(-20));
    }
    expect(stuck, "tasks that did not end").toEqual([]);

    const books = await eventually(
      "the books balance",
      async () => {
        const read = await checkBooks(client, entries);
        return read.faults.length === 0 && read;
      },
      { seconds: 60, everyMs: 1_000 },
    ).catch(() => checkBooks(client, entries));
    const dead = Object.entries(lost).map(([source, count]) => `${count} of ${source}`);
    console.log(
      `seed ${seed}: ${entries.length} tasks, ${JSON.stringify(books.byStatus)}, ${books.repeated} attempts repeated, ${books.events} events; ` +
        `${killed} functions killed; batches lost: ${dead.join(", ") || "none"}`,
    );
    await Promise.all(agents.map((agent) => agent.stop({ graceSeconds: 0 })));
    client.close();
    expect(books.faults).toEqual([]);
    expect(killed).toBeGreaterThan(plan.kills / 2);
  },
);
