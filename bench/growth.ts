import { type Client, createClient } from "@waggle/sdk";
import { eventually } from "../test/support/eventually.ts";
import { cpuMs, memoryMiB } from "../test/support/process.ts";
import { startServer } from "../test/support/server.ts";
import { startFleet } from "./fleet.ts";
import type { Sizes } from "./sizes.ts";
import { percentile } from "./stats.ts";
import { payload } from "./systems/system.ts";
import { waggle } from "./systems/waggle.ts";
import type { Figures } from "./workloads.ts";

/* W6: what a task takes with few agents registered and tasks stored, and with many. */

const task = (n: number) => ({ type: "bench", input: payload(n), requires: [{ capability: "bench" }] });

export async function inLanes(count: number, lanes: number, call: (n: number) => Promise<unknown>): Promise<void> {
  let next = 0;
  const lane = async () => {
    for (let n = next++; n < count; n = next++) await call(n);
  };
  await Promise.all(Array.from({ length: lanes }, lane));
}

export async function completedTasks(client: Client): Promise<number> {
  const status = (await client.status.get()) as { tasks: { byStatus: Record<string, number> } };
  return status.tasks.byStatus.completed ?? 0;
}

/** Submit to result, with few agents and tasks and then with many, in one server. Says how far it is: it takes minutes. */
export async function measureGrowth(dir: string, { W6 }: Sizes): Promise<Figures> {
  const server = await startServer({ dataDir: dir });
  const client = createClient({ url: server.url, key: server.key });
  const running = { connection: { url: server.url, key: server.key } };
  const fleet = await startFleet(waggle("sdk"), running, [{ agents: 1, concurrency: 100, prefix: "pool" }]);
  const have = { agents: 0, tasks: 0 };
  const say = (text: string) => console.error(`W6: ${text}`);
  const grow = async (to: { agents: number; tasks: number }) => {
    await inLanes(to.agents - have.agents, 32, async (n) => {
      const name = `idle-${have.agents + n}`;
      await client.agents.register({ name, capabilities: [{ name: "bench" }, { name: `own-${n % 50}` }] });
      if (n > 0 && n % 20_000 === 0) say(`${n} agents registered`);
    });
    const batches = Math.ceil((to.tasks - have.tasks) / 100);
    await inLanes(batches, 4, async (n) => {
      await client.tasks.createBatch(Array.from({ length: 100 }, (_, at) => task(at)));
      if (n > 0 && n % 1000 === 0) say(`${n * 100} tasks submitted`);
    });
    have.agents = to.agents;
    have.tasks += batches * 100;
    const all = async () => (await completedTasks(client)) >= have.tasks;
    await eventually("all are completed", all, { seconds: 1800, everyMs: 100 });
  };
  const measure = async (count: number) => {
    const samples: number[] = [];
    const cpu = cpuMs(server.process.pid);
    for (let n = 0; n < count; n++) {
      const began = performance.now();
      await client.tasks.run(task(n));
      samples.push(performance.now() - began);
    }
    have.tasks += count;
    return {
      p50: percentile(samples, 0.5),
      p99: percentile(samples, 0.99),
      cpu: (cpuMs(server.process.pid) - cpu) / count,
    };
  };
  await grow(W6.few);
  await measure(W6.warmup);
  const few = await measure(W6.count);
  await grow(W6.many);
  await measure(W6.warmup);
  const many = await measure(W6.count);
  const figures = {
    agents: have.agents,
    tasks: have.tasks,
    smallMs: few.p50,
    largeMs: many.p50,
    ratio: many.p50 / few.p50,
    p99Ratio: many.p99 / few.p99,
    cpuRatio: many.cpu / few.cpu,
    serverMiB: memoryMiB(server.process.pid).now,
  };
  await fleet.end();
  client.close();
  await server.stop();
  return figures;
}
