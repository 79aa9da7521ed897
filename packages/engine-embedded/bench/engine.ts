/**
 * What the engine costs:
 * `npx esbuild packages/engine-embedded/bench/engine.ts --bundle --platform=node --format=esm --conditions=source
 *  --external:lmdb --external:msgpackr --outfile=node_modules/.bench.mjs && node node_modules/.bench.mjs [folder]`.
 * One JSON line a figure.
 */
import { constants, cpSync, mkdtempSync, openSync, rmSync, writeFileSync, write as writeRaw } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openEmbedded } from "../src/index.ts";

const dataDir = mkdtempSync(join(process.argv[2] ?? tmpdir(), "waggle-bench-"));
const say = (name: string, value: number, unit: string) =>
  console.log(JSON.stringify({ name, value: Number(value.toFixed(4)), unit }));
const quantile = (sorted: readonly number[], q: number): number =>
  sorted[Math.floor(q * (sorted.length - 1))] as number;

const flush =
  process.env.CHECKPOINT_BYTES === undefined ? {} : { checkpointBytes: Number(process.env.CHECKPOINT_BYTES) };
let engine = await openEmbedded({ dataDir, flush });
const { store, queues } = engine.ports;
const input = JSON.stringify({ text: "x".repeat(180) });
const taskRow = (n: number) => {
  const id = `tsk_01jd${String(n).padStart(18, "0")}`;
  return {
    pk: `default#task#${id}`,
    sk: "task",
    kind: "task",
    id,
    state: "queued",
    input,
    priority: 5,
    fence: 0,
    attempt: 0,
    createdAt: 1_760_000_000_000 + n,
    updatedAt: 1_760_000_000_000 + n,
    requires: [{ name: "summarise" }],
    history: [{ at: 1_760_000_000_000 + n, to: "queued" }],
  };
};

for (let n = 0; n < 300; n++) {
  await store.write({ put: taskRow(n) });
  await store.settled();
}
// The floor: the bare synced write of 500 bytes into a file of full length, taken in turn with the engine's.
const rawPath = `${dataDir}-raw`;
writeFileSync(rawPath, Buffer.alloc(8 * 2 ** 20), { flush: true } as never);
const raw = openSync(rawPath, constants.O_RDWR | constants.O_DSYNC);
const block = Buffer.alloc(500, 1);
const bare: number[] = [];
const isolated: number[] = [];
for (let n = 0; n < 1000; n++) {
  await new Promise((resolve) => setTimeout(resolve, 2));
  const started = performance.now();
  await store.write({ put: taskRow(1000 + n), if: { exists: false } });
  await store.settled();
  isolated.push(performance.now() - started);
  await new Promise((resolve) => setTimeout(resolve, 2));
  const bareStarted = performance.now();
  await new Promise((resolve) => writeRaw(raw, block, 0, block.length, n * block.length, resolve));
  bare.push(performance.now() - bareStarted);
}
isolated.sort((a, b) => a - b);
bare.sort((a, b) => a - b);
rmSync(rawPath);
say("bare synced write p50", quantile(bare, 0.5), "ms");
say("bare synced write p99", quantile(bare, 0.99), "ms");
say("isolated write to settled p50", quantile(isolated, 0.5), "ms");
say("isolated write to settled p99", quantile(isolated, 0.99), "ms");

/** A task's life in the store: 9 row writes, 2 queue steps, as batches of 32 that settle together. */
async function life(n: number): Promise<void> {
  const row = taskRow(n);
  const key = { pk: row.pk, sk: row.sk };
  const lane = { pk: "default#lane#1", sk: `5#${row.id}` };
  await store.transact([{ put: row, if: { exists: false } }, { put: { ...lane, kind: "lane", task: row.id } }]);
  await queues.dispatch.send([{ body: { task: row.id } }]);
  await store.settled();
  const [message] = await queues.dispatch.receive({ max: 1 });
  await store.query({ pk: lane.pk, limit: 1 });
  await store.transact([
    {
      update: key,
      kind: "task",
      set: { state: "assigned", agent: "agt_1", updatedAt: n },
      add: { fence: 1 },
      if: { equals: { state: "queued" } },
    },
    { update: { pk: "default#agent#agt_1", sk: "agent" }, kind: "agent", add: { busy: 1 }, set: { seenAt: n } },
    { delete: lane },
  ]);
  await queues.dispatch.ack([message!.receipt]);
  await store.settled();
  await store.transact([
    {
      update: key,
      kind: "task",
      set: { state: "completed", result: input, updatedAt: n + 1 },
      remove: ["agent"],
      if: { equals: { fence: 1 } },
    },
    { update: { pk: "default#agent#agt_1", sk: "agent" }, kind: "agent", add: { busy: -1 }, set: { seenAt: n } },
  ]);
  await store.batchWrite([
    {
      put: {
        pk: `default#event#${n % 4}`,
        sk: `${row.id}#1`,
        kind: "event",
        type: "task.completed",
        at: n,
        data: { task: row.id },
      },
    },
    { put: { pk: `default#index#done`, sk: row.id, kind: "index", task: row.id } },
  ]);
  await store.settled();
}
const total = Number(process.env.LIVES ?? 40_000);
let next = 10_000;
const end = next + total;
const cpu = process.cpuUsage();
const loop = performance.eventLoopUtilization();
const started = performance.now();
let peak = 0;
const watch = setInterval(() => (peak = Math.max(peak, process.memoryUsage().rss)), 20);
await Promise.all(
  Array.from({ length: 64 }, async () => {
    while (next < end) await life(next++);
  }),
);
clearInterval(watch);
const seconds = (performance.now() - started) / 1000;
const used = process.cpuUsage(cpu);
const active = performance.eventLoopUtilization(loop);
say("task lives (9 row writes, 2 queue steps, 3 settles) a second", total / seconds, "1/s");
say("row writes a second", (9 * total) / seconds, "1/s");
say("main thread per row write", (active.active * 1000) / (9 * total), "µs");
say("process CPU per row write", (used.user + used.system) / (9 * total), "µs");
say("peak resident memory", peak / 2 ** 20, "MiB");
// What a kill now would leave.
await engine.ports.store.settled();
const killed = `${dataDir}-killed`;
cpSync(dataDir, killed, { recursive: true });
let t = performance.now();
const recovered = await openEmbedded({ dataDir: killed, flush });
say("open after a kill", performance.now() - t, "ms");
await recovered.close();
rmSync(killed, { recursive: true, force: true });
t = performance.now();
await engine.close();
say("close", performance.now() - t, "ms");
t = performance.now();
engine = await openEmbedded({ dataDir, flush });
say("open after a clean stop", performance.now() - t, "ms");
await engine.close();
rmSync(dataDir, { recursive: true, force: true });
