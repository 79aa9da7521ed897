import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { eventually } from "../test/support/eventually.ts";
import { cpuMs, memoryMiB } from "../test/support/process.ts";
import { type Fleet, startFleet } from "./fleet.ts";
import { percentile } from "./stats.ts";
import { type AgentShape, type Client, payload, type RunningServer, type System } from "./systems/system.ts";

export const sizes = {
  /** Code is compiled as it runs: what is measured is the machine at work, not its start. The same for everybody. */
  warmup: 2000,
  W1: 1000,
  W2: 500,
  W3: 5000,
  W4: 5000,
  inFlight: 32,
  checked: 100,
  idleAgents: 1000,
  W5: 200,
  crashTaskMs: 200,
  leaseSeconds: 5,
} as const;

/** The figures of one measure, by name; every workload names its own. */
export type Figures = Readonly<Record<string, number>>;

/** Submits tasks 0 to `count` - 1 with so many calls in flight and answers their ids. */
async function submitMany(client: Client, count: number, inFlight: number): Promise<string[]> {
  const ids: string[] = [];
  let next = 0;
  const lane = async () => {
    for (let n = next++; n < count; n = next++) ids[n] = await client.submit(payload(n));
  };
  await Promise.all(Array.from({ length: inFlight }, lane));
  return ids;
}

async function allCompleted(client: Client, fleet: Fleet, total: number): Promise<void> {
  const look = async () => fleet.handled() >= total && (await client.completed()) >= total;
  await eventually(`${total} tasks are completed`, look, { seconds: 120, everyMs: 4 });
}

function check(n: number, result: { ok: boolean; n: number } | undefined): void {
  if (result?.ok !== true || result.n !== n) throw new Error(`task ${n} has the result ${JSON.stringify(result)}`);
}

interface Setting {
  readonly system: System;
  readonly server: RunningServer;
  readonly client: Client;
  /** For files of the measure's own. */
  readonly dir: string;
}

const pool: readonly AgentShape[] = [{ agents: 1, concurrency: 100, prefix: "pool" }];
const crashPool = { agents: 1, concurrency: 100, leaseSeconds: sizes.leaseSeconds } as const;
/** 100 agents of one slot, in four processes. */
const fleetOf100: readonly AgentShape[] = [0, 1, 2, 3].map((index) => ({
  agents: 25,
  concurrency: 1,
  prefix: `fleet-${index}`,
}));

async function warm({ client }: Setting, fleet: Fleet): Promise<number> {
  await submitMany(client, sizes.warmup, sizes.inFlight);
  await allCompleted(client, fleet, sizes.warmup);
  return sizes.warmup;
}

/** Latencies of one call after another. */
async function sequential(setting: Setting, count: number, call: (n: number) => Promise<void>): Promise<Figures> {
  const fleet = await startFleet(setting.system, setting.server, pool);
  await warm(setting, fleet);
  const samples: number[] = [];
  for (let n = 0; n < count; n++) {
    const began = performance.now();
    await call(n);
    samples.push(performance.now() - began);
  }
  await allCompleted(setting.client, fleet, sizes.warmup + count);
  await fleet.end();
  return { p50: percentile(samples, 0.5), p99: percentile(samples, 0.99), max: Math.max(...samples) };
}

async function throughput(setting: Setting, shapes: readonly AgentShape[], count: number): Promise<Figures> {
  const { server, client } = setting;
  const fleet = await startFleet(setting.system, server, shapes);
  const before = await warm(setting, fleet);
  const agentsCpu = () => fleet.processes.reduce((sum, agents) => sum + cpuMs(agents.pid), 0);
  const cpu = () => ({ server: cpuMs(server.process.pid), client: cpuMs(process.pid), agents: agentsCpu() });

  const cpuBefore = cpu();
  const began = performance.now();
  const ids = await submitMany(client, count, sizes.inFlight);
  const submitted = performance.now();
  await allCompleted(client, fleet, before + count);
  const ended = performance.now();
  const cpuAfter = cpu();

  const step = Math.floor(count / sizes.checked);
  for (let n = 0; n < count; n += step) check(n, await client.read(ids[n] as string));
  const memory = memoryMiB(server.process.pid);
  const agentsMiB = fleet.processes.reduce((sum, agents) => sum + memoryMiB(agents.pid).peak, 0);
  await fleet.end();
  const share = (part: keyof typeof cpuBefore) => (cpuAfter[part] - cpuBefore[part]) / count;
  return {
    perSecond: (count / (ended - began)) * 1000,
    submitsPerSecond: (count / (submitted - began)) * 1000,
    cpuMs: share("server") + share("client") + share("agents"),
    cpuServerMs: share("server"),
    cpuClientMs: share("client"),
    cpuAgentsMs: share("agents"),
    serverMiB: memory.peak,
    agentsMiB,
  };
}

/** The server with many agents that wait for work, each on a connection of its own. */
async function idleAgents(setting: Setting): Promise<Figures> {
  const shape: AgentShape = { agents: sizes.idleAgents, concurrency: 1, prefix: "idle" };
  const fleet = await startFleet(setting.system, setting.server, [shape]);
  // One heartbeat and a collection of garbage pass.
  await sleep(3000);
  const { now, peak } = memoryMiB(setting.server.process.pid);
  await fleet.end();
  return { serverMiB: now, serverPeakMiB: peak };
}

/**
 * Kills either the agents or the server when three quarters of the tasks have begun, and counts what came of it.
 * New agents have other names, as those of another machine would: the lease of the dead ones has to run out.
 */
async function crash({ system, server, client, dir }: Setting, victim: "agents" | "server") {
  const work = { taskMs: sizes.crashTaskMs, log: join(dir, `${victim}.txt`) };
  const shape = (prefix: string): AgentShape => ({ ...crashPool, prefix: `${victim}-${prefix}` });
  const linesOf = (kind: string) => {
    const lines = existsSync(work.log) ? readFileSync(work.log, "utf8").split("\n") : [];
    return lines.filter((line) => line.startsWith(kind));
  };
  const before = await client.completed();
  const first = await startFleet(system, server, [shape("first")], work);
  const submitting = submitMany(client, sizes.W5, sizes.inFlight);
  await eventually("three quarters have begun", () => linesOf("begun").length >= sizes.W5 * 0.75, { everyMs: 2 });
  const killed = performance.now();
  let servingMs = 0;
  let second: Fleet | undefined;
  if (victim === "server") {
    await server.restart();
    await submitting;
    await client.submit(payload(sizes.W5));
    servingMs = performance.now() - killed;
  } else {
    await first.end();
    second = await startFleet(system, server, [shape("second")], work);
  }
  const ids = await submitting;
  const total = before + sizes.W5 + (victim === "server" ? 1 : 0);
  const all = async () => (await client.completed()) >= total;
  const recovered = await eventually("all are completed", all, { seconds: 45, everyMs: 10 }).catch(() => false);
  const recoverySeconds = recovered ? (performance.now() - killed) / 1000 : Number.POSITIVE_INFINITY;
  const results = await Promise.all(ids.map((id) => client.read(id)));
  await first.end();
  await second?.end();
  const done = linesOf("done");
  return {
    lost: results.filter((result, n) => result?.n !== n).length,
    twice: done.length - new Set(done).size,
    recoverySeconds,
    servingMs,
  };
}

async function crashes(setting: Setting): Promise<Figures> {
  const agents = await crash(setting, "agents");
  const server = await crash(setting, "server");
  return {
    lost: agents.lost,
    twice: agents.twice,
    recoverySeconds: agents.recoverySeconds,
    serverLost: server.lost,
    serverTwice: server.twice,
    serverRecoverySeconds: server.recoverySeconds,
    servingMs: server.servingMs,
  };
}

export const workloads: Readonly<Record<string, (setting: Setting) => Promise<Figures>>> = {
  W1: async (setting) =>
    sequential(setting, sizes.W1, async (n) => {
      await setting.client.submit(payload(n));
    }),
  W2: async (setting) =>
    sequential(setting, sizes.W2, async (n) => {
      check(n, await setting.client.wait(await setting.client.submit(payload(n))));
    }),
  W3: (setting) => throughput(setting, pool, sizes.W3),
  W4: (setting) => throughput(setting, fleetOf100, sizes.W4),
  W5: crashes,
  memory: idleAgents,
};
