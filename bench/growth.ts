import { type Client, createClient } from "@waggle/sdk";
import { eventually } from "../test/support/eventually.ts";
import { memoryMiB } from "../test/support/process.ts";
import { startServer } from "../test/support/server.ts";
import { startFleet } from "./fleet.ts";
import { inLanes } from "./lanes.ts";
import type { Sizes } from "./sizes.ts";
import { percentile } from "./stats.ts";
import { payload } from "./systems/system.ts";
import { waggle } from "./systems/waggle.ts";
import { cpuMs } from "./usage.ts";
import type { Figures } from "./workloads.ts";

/* What a task takes with few agents registered, tasks stored or tasks waiting, and with many. */

export async function completedTasks(client: Client): Promise<number> {
  const status = (await client.status.get()) as { tasks: { byStatus: Record<string, number> } };
  return status.tasks.byStatus.completed ?? 0;
}

const task = (n: number, capability = "bench") => ({
  type: "bench",
  input: payload(n),
  requires: [{ capability }],
});

/** A server with one process of agents, a client, and what both workloads do with them. */
export async function openServer(dir: string) {
  const server = await startServer({ dataDir: dir });
  const client = createClient({ url: server.url, key: server.key });
  const running = { connection: { url: server.url, key: server.key } };
  const fleet = await startFleet(waggle("sdk"), running, [{ agents: 1, concurrency: 100, prefix: "pool" }]);
  const times = async (count: number, call: (n: number) => Promise<unknown>) => {
    const samples: number[] = [];
    for (let n = 0; n < count; n++) {
      const began = performance.now();
      await call(n);
      samples.push(performance.now() - began);
    }
    return { p50: percentile(samples, 0.5), p99: percentile(samples, 0.99) };
  };
  return {
    server,
    client,
    /** Submit to result, one after another. */
    async results(count: number) {
      const cpu = cpuMs(server.process.pid);
      const found = await times(count, (n) => client.tasks.run(task(n)));
      return { ...found, cpu: (cpuMs(server.process.pid) - cpu) / count };
    },
    submits: (count: number) => times(count, (n) => client.tasks.create(task(n))),
    async submitBatches(batches: number, capability?: (batch: number) => string) {
      await inLanes(batches, 4, async (batch) => {
        await client.tasks.createBatch(Array.from({ length: 100 }, (_, n) => task(n, capability?.(batch))));
        if (batch > 0 && batch % 1000 === 0) console.error(`${batch * 100} tasks submitted`);
      });
    },
    async close() {
      await fleet.end();
      client.close();
      await server.stop();
    },
  };
}

/** Submit to result, with few agents and tasks and then with many, in one server. Says how far it is: it takes minutes. */
export async function measureGrowth(dir: string, { W6 }: Sizes): Promise<Figures> {
  const { server, client, results, submitBatches, close } = await openServer(dir);
  const have = { agents: 0, tasks: 0 };
  const grow = async (to: { agents: number; tasks: number }) => {
    await inLanes(to.agents - have.agents, 32, async (n) => {
      const name = `idle-${have.agents + n}`;
      await client.agents.register({ name, capabilities: [{ name: "bench" }, { name: `own-${n % 50}` }] });
      if (n > 0 && n % 20_000 === 0) console.error(`${n} agents registered`);
    });
    const batches = Math.ceil((to.tasks - have.tasks) / 100);
    await submitBatches(batches);
    have.agents = to.agents;
    have.tasks += batches * 100;
    const all = async () => (await completedTasks(client)) >= have.tasks;
    await eventually("all are completed", all, { seconds: 1800, everyMs: 100 });
  };
  const measure = async () => {
    await results(W6.warmup);
    have.tasks += W6.warmup + W6.count;
    return results(W6.count);
  };
  await grow(W6.few);
  const few = await measure();
  await grow(W6.many);
  const many = await measure();
  const figures = {
    agents: have.agents,
    tasks: have.tasks,
    smallMs: few.p50,
    largeMs: many.p50,
    ratio: many.p50 / few.p50,
    cpuRatio: many.cpu / few.cpu,
    serverMiB: memoryMiB(server.process.pid).now,
  };
  await close();
  return figures;
}

/** Submits and results with nothing waiting, then beside many tasks that wait in lanes which nobody serves. */
export async function measureWaiting(dir: string, { waiting }: Sizes): Promise<Figures> {
  const { server, results, submits, submitBatches, close } = await openServer(dir);
  const measure = async () => ({ submit: await submits(waiting.count), result: await results(waiting.count) });
  await submits(waiting.warmup);
  await results(waiting.warmup);
  const none = await measure();
  await submitBatches(waiting.tasks / 100, (batch) => `nobody-${batch % waiting.lanes}`);
  const many = await measure();
  const serverMiB = memoryMiB(server.process.pid).now;
  const killed = performance.now();
  await server.restart("SIGKILL");
  const openMs = performance.now() - killed;
  await close();
  return {
    tasks: waiting.tasks,
    lanes: waiting.lanes,
    submitP99: many.submit.p99,
    submitRatio: many.submit.p99 / none.submit.p99,
    resultP50: many.result.p50,
    resultRatio: many.result.p50 / none.result.p50,
    serverMiB,
    openMs,
  };
}
