import { createClient } from "@waggle/sdk";
import { eventually } from "../test/support/eventually.ts";
import { cpuMs, memoryMiB } from "../test/support/process.ts";
import { startServer } from "../test/support/server.ts";
import { startFleet } from "./fleet.ts";
import { median, percentile } from "./stats.ts";
import { payload } from "./systems/system.ts";
import { waggle } from "./systems/waggle.ts";
import type { Figures } from "./workloads.ts";

/* What only Waggle is asked: how it is with many, and who waits when one floods. */

const task = (n: number, more: object = {}) => ({
  type: "bench",
  input: payload(n),
  requires: [{ capability: "bench" }],
  ...more,
});

async function inLanes(count: number, lanes: number, call: (n: number) => Promise<unknown>): Promise<void> {
  let next = 0;
  const lane = async () => {
    for (let n = next++; n < count; n = next++) await call(n);
  };
  await Promise.all(Array.from({ length: lanes }, lane));
}

async function open(dir: string, concurrency: number, taskMs = 0) {
  const server = await startServer({ dataDir: dir });
  const client = createClient({ url: server.url, key: server.key });
  const system = waggle("sdk");
  const running = { connection: { url: server.url, key: server.key } };
  const fleet = await startFleet(system, running, [{ agents: 1, concurrency, prefix: "pool" }], { taskMs });
  const completed = async () =>
    ((await client.status.get()) as { tasks: { byStatus: Record<string, number> } }).tasks.byStatus.completed ?? 0;
  const close = async () => {
    await fleet.end();
    client.close();
    await server.stop();
  };
  return { server, client, completed, close };
}

/** From these sizes to those: `WAGGLE_BENCH_SCALE=full` takes the large ones of the goals. */
const full = process.env.WAGGLE_BENCH_SCALE === "full";
const small = { agents: 100, tasks: 1000 };
const large = full ? { agents: 100_000, tasks: 1_000_000 } : { agents: 10_000, tasks: 50_000 };

/** Submit to result, with few agents and tasks and then with many, in one server. */
export async function measureScale(dir: string): Promise<Figures> {
  const { server, client, completed, close } = await open(dir, 100);
  const have = { agents: 0, tasks: 0 };
  const grow = async (to: typeof small) => {
    await inLanes(to.agents - have.agents, 32, (n) =>
      client.agents.register({
        name: `idle-${have.agents + n}`,
        capabilities: [{ name: "bench" }, { name: `own-${n % 50}` }],
      }),
    );
    const batches = Math.ceil((to.tasks - have.tasks) / 100);
    await inLanes(batches, 4, () => client.tasks.createBatch(Array.from({ length: 100 }, (_, n) => task(n))));
    have.agents = to.agents;
    have.tasks += batches * 100;
    const all = async () => (await completed()) >= have.tasks;
    await eventually("all are completed", all, { seconds: 1800, everyMs: 100 });
  };
  const measure = async (count: number) => {
    const samples: number[] = [];
    const cpu = cpuMs(server.process.pid);
    for (let n = 0; n < count; n++) {
      const began = performance.now();
      await (await client.tasks.delegate(task(n))).result();
      samples.push(performance.now() - began);
    }
    have.tasks += count;
    return { p50: percentile(samples, 0.5), cpu: (cpuMs(server.process.pid) - cpu) / count };
  };
  await grow(small);
  await measure(500);
  const few = await measure(1000);
  await grow(large);
  const many = await measure(1000);
  const figures = {
    smallMs: few.p50,
    largeMs: many.p50,
    ratio: many.p50 / few.p50,
    cpuRatio: many.cpu / few.cpu,
    serverMiB: memoryMiB(server.process.pid).now,
  };
  await close();
  return figures;
}

/** The waits of ten small submitters at ten slots, alone and beside one that floods. */
export async function measureFairness(dir: string): Promise<Figures> {
  const waits = async (folder: string, flood: number) => {
    const { client, close } = await open(folder, 10, 20);
    for (let n = 0; n < flood; n += 100) {
      await client.tasks.createBatch(Array.from({ length: 100 }, () => task(n, { fairKey: "flood" })));
    }
    const handles = await Promise.all(
      Array.from({ length: 100 }, (_, n) => client.tasks.delegate(task(n, { fairKey: `small-${n % 10}` }))),
    );
    await Promise.all(handles.map((handle) => handle.result()));
    const tasks = await Promise.all(handles.map(({ id }) => client.tasks.get(id)));
    await close();
    return tasks.map(({ assignedAt = "", createdAt }) => Date.parse(assignedAt) - Date.parse(createdAt));
  };
  const [alone, beside] = [await waits(`${dir}/alone`, 0), await waits(`${dir}/beside`, 10_000)];
  const [aloneMs, besideMs] = [percentile(alone, 0.99), percentile(beside, 0.99)];
  return { aloneMs, besideMs, ratio: besideMs / aloneMs, medianRatio: median(beside) / median(alone) };
}
