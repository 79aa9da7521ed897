import { setTimeout as sleep } from "node:timers/promises";
import { eventually } from "../test/support/eventually.ts";
import { memoryMiB } from "../test/support/process.ts";
import { crashes, crashPool } from "./crash.ts";
import { fairness, fairPool } from "./fairness.ts";
import { type Fleet, startFleet } from "./fleet.ts";
import { submitMany } from "./lanes.ts";
import { fixed, type Phase, type Sizes } from "./sizes.ts";
import { percentile } from "./stats.ts";
import { type AgentShape, type Client, payload, type RunningServer, type System } from "./systems/system.ts";
import { cpuMs, ownCpuMs, watchPeak } from "./usage.ts";

/** The figures of one measure, by name; every workload names its own. */
export type Figures = Readonly<Record<string, number>>;

export interface Setting {
  readonly system: System;
  readonly server: RunningServer;
  readonly client: Client;
  /** For files of the measure's own. */
  readonly dir: string;
  readonly sizes: Sizes;
}

interface Workload {
  /** The agents it will have, one entry a process. */
  readonly shapes: readonly AgentShape[];
  run(setting: Setting): Promise<Figures>;
}

async function allCompleted(client: Client, fleet: Fleet, total: number): Promise<void> {
  const look = async () => fleet.handled() >= total && (await client.completed()) >= total;
  await eventually(`${total} tasks are completed`, look, { seconds: 120, everyMs: 4 });
}

function check(n: number, result: { ok: boolean; n: number } | undefined): void {
  if (result?.ok !== true || result.n !== n) throw new Error(`task ${n} has the result ${JSON.stringify(result)}`);
}

const pool: readonly AgentShape[] = [{ agents: 1, concurrency: 100, prefix: "pool" }];
/** 100 agents of one slot, in four processes. */
const fleetOf100: readonly AgentShape[] = [0, 1, 2, 3].map((index) => ({
  agents: 25,
  concurrency: 1,
  prefix: `fleet-${index}`,
}));
const idlePool: readonly AgentShape[] = [{ agents: fixed.idleAgents, concurrency: 1, prefix: "idle" }];

/** Latencies of one call after another. The first ones, of processes that have just begun, are the cold figures. */
async function sequential(
  { system, server, client, sizes }: Setting,
  phase: Phase,
  call: (n: number) => Promise<void>,
): Promise<Figures> {
  const fleet = await startFleet(system, server, pool);
  let done = 0;
  const samples = async (count: number, seconds = Number.POSITIVE_INFINITY) => {
    const times: number[] = [];
    const end = performance.now() + seconds * 1000;
    while (times.length < count && performance.now() < end) {
      const began = performance.now();
      await call(done++);
      times.push(performance.now() - began);
    }
    await allCompleted(client, fleet, done);
    return times;
  };
  const cold = (await samples(phase.warmup, sizes.warmupSeconds)).slice(0, phase.count);
  const warm = await samples(phase.count);
  await fleet.end();
  return {
    p50: percentile(warm, 0.5),
    p99: percentile(warm, 0.99),
    max: Math.max(...warm),
    coldP50: percentile(cold, 0.5),
    coldP99: percentile(cold, 0.99),
  };
}

async function throughput(setting: Setting, shapes: readonly AgentShape[], phase: Phase): Promise<Figures> {
  const { server, client, sizes } = setting;
  const fleet = await startFleet(setting.system, server, shapes);
  const serverPeak = watchPeak(server.process.pid);
  let before = 0;
  const round = async (count: number, seconds: number) => {
    const began = performance.now();
    const ids = await submitMany(client, count, fixed.inFlight, { seconds });
    const submitted = performance.now();
    before += ids.length;
    await allCompleted(client, fleet, before);
    const perSecond = (since: number) => (ids.length / (since - began)) * 1000;
    return { ids, submitsPerSecond: perSecond(submitted), perSecond: perSecond(performance.now()) };
  };
  const agentsCpu = () => fleet.processes.reduce((sum, agents) => sum + cpuMs(agents.pid), 0);
  const cpu = () => ({ server: cpuMs(server.process.pid), client: ownCpuMs(), agents: agentsCpu() });

  const cold = await round(phase.warmup, sizes.warmupSeconds);
  const cpuBefore = cpu();
  const warm = await round(phase.count, sizes.submitSeconds);
  const cpuAfter = cpu();

  const count = warm.ids.length;
  const step = Math.max(1, Math.floor(count / fixed.checked));
  for (let n = 0; n < count; n += step) check(n, await client.read(warm.ids[n] as string));
  const serverMiB = serverPeak();
  const agentsMiB = fleet.processes.reduce((sum, agents) => sum + memoryMiB(agents.pid).peak, 0);
  await fleet.end();
  const share = (part: keyof typeof cpuBefore) => (cpuAfter[part] - cpuBefore[part]) / count;
  return {
    perSecond: warm.perSecond,
    submitsPerSecond: warm.submitsPerSecond,
    coldPerSecond: cold.perSecond,
    cpuMs: share("server") + share("client") + share("agents"),
    cpuServerMs: share("server"),
    cpuClientMs: share("client"),
    cpuAgentsMs: share("agents"),
    serverMiB,
    agentsMiB,
  };
}

/** The server with many agents that wait for work, each on a connection of its own. */
async function idleAgents({ system, server }: Setting): Promise<Figures> {
  const fleet = await startFleet(system, server, idlePool);
  // One heartbeat and a collection of garbage pass.
  await sleep(3000);
  const { now, peak } = memoryMiB(server.process.pid);
  await fleet.end();
  return { serverMiB: now, serverPeakMiB: peak };
}

export const workloads: Readonly<Record<string, Workload>> = {
  W1: {
    shapes: pool,
    run: async (setting) =>
      sequential(setting, setting.sizes.W1, async (n) => {
        await setting.client.submit(payload(n));
      }),
  },
  W2: {
    shapes: pool,
    run: async (setting) =>
      sequential(setting, setting.sizes.W2, async (n) => {
        check(n, await setting.client.run(payload(n)));
      }),
  },
  W3: { shapes: pool, run: (setting) => throughput(setting, pool, setting.sizes.W3) },
  W4: { shapes: fleetOf100, run: (setting) => throughput(setting, fleetOf100, setting.sizes.W4) },
  W5: { shapes: [crashPool], run: crashes },
  W7: { shapes: [fairPool], run: fairness },
  memory: { shapes: idlePool, run: idleAgents },
};
