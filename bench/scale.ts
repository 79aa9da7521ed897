import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { type Client, createClient } from "@waggle/sdk";
import { eventually } from "../test/support/eventually.ts";
import { memoryMiB } from "../test/support/process.ts";
import { type Server, startServer } from "../test/support/server.ts";
import type { AgentsConfig } from "./agents.ts";
import type { CrowdConfig } from "./crowd.ts";
import { type Fleet, launchAgents } from "./fleet.ts";
import { completedTasks } from "./growth.ts";
import { inLanes } from "./lanes.ts";
import { machineFacts, resultsFile, show, writeJson } from "./results.ts";
import { loopLagMs } from "./soak.ts";
import { percentile } from "./stats.ts";
import { payload } from "./systems/system.ts";
import { cpuMs } from "./usage.ts";

const help = `npm run bench -- scale [options]

One server with many agents of each kind at a time: they come, wait idle, and then work, kind after kind. Tells what each
step takes: memory of the server, lag of its event loop, submit to result one after another, and tasks a second.

  --sockets N   agents on a WebSocket each (default 1000)
  --polling N   agents that ask by long poll, a connection each (default 10000)
  --webhooks N  agents that are called (default 10000)
  --tasks N     tasks of each kind (default 5000)
  --out FILE    raw values (default bench/results/scale.json)
  --json        one JSON line a step on stdout
  --help`;

const kinds = ["socket", "poll", "webhook"] as const;
type Kind = (typeof kinds)[number];

interface Step {
  readonly kind: Kind;
  readonly agents: number;
  /** Until all are registered and connected. */
  readonly arrivalSeconds: number;
  /** Calls of theirs that failed, and how many of all agents were taken for lost, by the end of the step. */
  readonly failedCalls: number;
  readonly lost: number;
  /** While all that have come so far wait for work. */
  readonly idleMiB: number;
  /** Share of one core. */
  readonly idleCpu: number;
  readonly p50: number;
  readonly p99: number;
  readonly perSecond: number;
  readonly submitP99: number;
  /** Lag of the event loop while these tasks were done, p99. */
  readonly loopMs: number;
  readonly serverMiB: number;
}

/** Each connection is a file of the server. @throws when the limit is too low */
function checkFiles(connections: number): void {
  const limit = Number(/^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1] ?? 0);
  if (limit < connections + 500)
    throw new Error(`${connections} connections need more open files than ${limit}: ulimit -n ${connections + 1000}`);
}

function arrive(kind: Kind, agents: number, { url, key }: Server): Promise<Fleet> {
  if (kind !== "socket") return launchAgents("bench/crowd.ts", [{ url, key, kind, agents } satisfies CrowdConfig], 900);
  const shape = { agents, concurrency: 1, prefix: kind, capability: kind };
  const config: AgentsConfig = { system: "waggle", connection: { url, key }, shape };
  return launchAgents("bench/agents.ts", [config], 900);
}

async function work(kind: Kind, tasks: number, client: Client) {
  const before = await completedTasks(client);
  const task = (n: number) => ({ type: "bench", input: payload(n), requires: [{ capability: kind }] });
  const one = async (n: number) => {
    await client.tasks.run(task(n));
  };
  const sequential = Math.min(500, tasks);
  for (let n = 0; n < sequential; n++) await one(n);
  const times: number[] = [];
  for (let n = 0; n < sequential; n++) {
    const began = performance.now();
    await one(n);
    times.push(performance.now() - began);
  }
  const submits: number[] = [];
  const began = performance.now();
  await inLanes(tasks, 32, async (n) => {
    const sent = performance.now();
    await client.tasks.create(task(n));
    submits.push(performance.now() - sent);
  });
  const all = async () => (await completedTasks(client)) >= before + 2 * sequential + tasks;
  await eventually(`all ${kind} tasks are completed`, all, { seconds: 300, everyMs: 10 });
  const perSecond = (tasks / (performance.now() - began)) * 1000;
  return { p50: percentile(times, 0.5), p99: percentile(times, 0.99), perSecond, submitP99: percentile(submits, 0.99) };
}

/** A third of the lease, and a long poll: each has shown a sign of life once. */
const restMs = 20_000;

async function rest({ process: { pid } }: Server): Promise<Pick<Step, "idleMiB" | "idleCpu">> {
  const before = cpuMs(pid);
  await sleep(restMs);
  return { idleMiB: memoryMiB(pid).now, idleCpu: (cpuMs(pid) - before) / restMs };
}

const toldIdle = ({ idleMiB, idleCpu }: Pick<Step, "idleMiB" | "idleCpu">) =>
  `${show(idleMiB)} MiB, ${(idleCpu * 100).toFixed(0)} % of a core`;

const told = ({ kind, agents, ...step }: Step): string =>
  `${agents.toLocaleString("en-US")} ${kind}: came in ${show(step.arrivalSeconds)} s, idle ${toldIdle(step)}; ` +
  `${step.failedCalls} of their calls failed, ${step.lost} of all agents lost; submit to result ` +
  `p50 ${show(step.p50)} p99 ${show(step.p99)} ms; ${Math.round(step.perSecond)} tasks/s, submit p99 ${show(step.submitP99)} ms, ` +
  `event loop p99 ${show(step.loopMs)} ms, server ${show(step.serverMiB)} MiB`;

/** `npm run bench -- scale`: see `help`. */
export async function scale(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      sockets: { type: "string", default: "1000" },
      polling: { type: "string", default: "10000" },
      webhooks: { type: "string", default: "10000" },
      tasks: { type: "string", default: "5000" },
      out: { type: "string", default: resultsFile("scale") },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(help);
    return;
  }
  const counts = { socket: Number(values.sockets), poll: Number(values.polling), webhook: Number(values.webhooks) };
  const tasks = Number(values.tasks);
  if ([...Object.values(counts), tasks].some((count) => !Number.isInteger(count) || count < 0))
    throw new Error("the options take whole numbers");
  checkFiles(counts.socket + counts.poll);
  const at = new Date().toISOString();
  const machine = machineFacts();
  const dataDir = mkdtempSync(join(process.env.WAGGLE_BENCH_DIR ?? tmpdir(), "waggle-scale-"));
  const server = await startServer({ dataDir });
  const client = createClient({ url: server.url, key: server.key, retrySeconds: 300 });
  const fleets: Fleet[] = [];
  const steps: Step[] = [];
  try {
    for (const kind of kinds.filter((each) => counts[each] > 0)) {
      const began = performance.now();
      console.error(`${counts[kind].toLocaleString("en-US")} agents (${kind}) come`);
      const fleet = await arrive(kind, counts[kind], server);
      fleets.push(fleet);
      const arrivalSeconds = (performance.now() - began) / 1000;
      const idle = await rest(server);
      console.error(`${fleets.length === 1 ? "all" : "together with those before"} idle: ${toldIdle(idle)}`);
      await loopLagMs(server.url, server.key);
      const done = await work(kind, tasks, client);
      const loopMs = await loopLagMs(server.url, server.key);
      const serverMiB = memoryMiB(server.process.pid).now;
      const stayed = { failedCalls: fleet.failed(), lost: (await client.status.get()).agents.byStatus.lost ?? 0 };
      const step = { kind, agents: counts[kind], arrivalSeconds, ...stayed, ...idle, ...done, loopMs, serverMiB };
      steps.push(step);
      console.error(told(step));
      if (values.json) console.log(JSON.stringify(step));
    }
    writeJson(values.out, { at, machine, tasks, steps });
  } finally {
    await Promise.all(fleets.map((fleet) => fleet.end()));
    client.close();
    await server.stop();
    rmSync(dataDir, { recursive: true, force: true, maxRetries: 5 });
  }
}
