import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { createClient } from "@waggle/sdk";
import { eventually } from "../support/eventually.ts";
import { launchScript, type Process } from "../support/process.ts";
import { startServer } from "../support/server.ts";
import { checkBooks, type Entry, isEnded, outcomeOf } from "./books.ts";
import { type Input, kindOf, pick, randomOf } from "./plan.ts";

const help = `npm run chaos -- [--seconds N] [--kills N] [--seed N]

Loads a server with tasks of every kind, kills -9 its agents and itself again and again, and then opens the books:
nothing acknowledged is lost, every task has exactly one outcome, told once, and no slot has leaked.

  --seconds N   of load (default 60)
  --kills N     kills in that time, one in four of the server (default one a second)
  --seed N      decides the tasks and the kills; printed, to run the same again`;

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "60" },
    kills: { type: "string" },
    seed: { type: "string" },
    help: { type: "boolean", default: false },
  },
});
if (values.help) {
  console.log(help);
  process.exit(0);
}
const seconds = Number(values.seconds);
const kills = Number(values.kills ?? seconds);
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
if (![seconds, kills, seed].every(Number.isFinite)) throw new Error("--seconds, --kills and --seed take numbers");
const agentCount = 4;
const lanes = 6;

const server = await startServer();
// The SDK sends a submit again under one idempotency key until it is answered.
const client = createClient({ url: server.url, key: server.key, retrySeconds: 100 });
let over = false;

const agents: { process: Process; name: string }[] = [];
async function startAgent(index: number, name: string): Promise<void> {
  const started = launchScript("test/chaos/agents.ts", [server.url, server.key, name], { ipc: true });
  agents[index] = { process: started, name };
}

const entries: Entry[] = [];
async function load(lane: number): Promise<void> {
  const random = randomOf(seed * 31 + lane);
  for (let n = lane; !over; n += lanes) {
    const kind = kindOf(random);
    const input: Input = {
      n,
      kind: kind.name,
      busyMs: Math.round(random() * kind.busyMs),
      pad: "x".repeat(kind.inputBytes ?? 100),
    };
    const earlier = entries.filter((entry) => entry.kind.ends.join() === "completed" && !entry.kind.follows);
    const dependsOn = kind.follows && earlier.length > 0 ? [pick(random, earlier).id] : [];
    const task = await client.tasks.create({ ...kind.task, type: kind.name, input, dependsOn });
    const entry: Entry = { id: task.id, kind, input };
    entries.push(entry);
    if (kind.cancelled) void sleep(random() * 600).then(() => client.tasks.cancel(entry.id));
    await look(pick(random, entries));
    await sleep(random() * 50);
  }
}

/** Reads a task; an outcome that somebody has read must never change. */
async function look(entry: Entry): Promise<boolean> {
  const task = await client.tasks.get(entry.id);
  if (isEnded(task)) entry.seen ??= outcomeOf(task);
  return isEnded(task);
}

const killed = { server: 0, agent: 0 };
async function kill(): Promise<void> {
  const random = randomOf(seed);
  const times = Array.from({ length: kills }, () => random() * seconds * 1000).sort((a, b) => a - b);
  const began = performance.now();
  for (const time of times) {
    await sleep(Math.max(0, began + time - performance.now()));
    if (random() < 0.25) {
      killed.server++;
      await server.restart("SIGKILL");
      continue;
    }
    killed.agent++;
    const index = Math.floor(random() * agentCount);
    const { process: victim, name } = agents[index] as (typeof agents)[number];
    await victim.end("SIGKILL");
    await sleep(random() * 300);
    // Under its name it takes its own place at once; under another, the lease of the first must run out.
    startAgent(index, random() < 0.5 ? name : `chaos-${index}-${killed.agent}`);
  }
}

console.log(`chaos: ${seconds} s, ${kills} kills, seed ${seed}`);
const began = performance.now();
for (let index = 0; index < agentCount; index++) startAgent(index, `chaos-${index}`);
const loading = Promise.all(Array.from({ length: lanes }, (_, lane) => load(lane)));
await Promise.all([kill(), sleep(seconds * 1000)]);
over = true;
await loading;

const faults: string[] = [];
const waiting = new Set(entries);
await eventually(
  "every task has ended",
  async () => {
    for (const entry of waiting) if (await look(entry)) waiting.delete(entry);
    return waiting.size === 0;
  },
  { seconds: 60, everyMs: 250 },
).catch(() => {});
for (const { id } of waiting) {
  const { status, waiting: why } = await client.tasks.get(id);
  const explained = JSON.stringify(await client.tasks.explain(id));
  faults.push(`${id} is ${status} a minute after the load, ${JSON.stringify(why)} ${explained}`);
}
// Counters and events follow the tasks within moments.
const books = await eventually(
  "the books balance",
  async () => {
    const found = await checkBooks(client, entries);
    return found.faults.length === 0 && found;
  },
  { seconds: 6, everyMs: 500 },
).catch(() => checkBooks(client, entries));
faults.push(...books.faults);

const took = ((performance.now() - began) / 1000).toFixed(1);
const ends = Object.entries(books.byStatus)
  .map(([status, count]) => `${count} ${status}`)
  .join(", ");
console.log(
  `${entries.length} tasks acknowledged: ${ends}; ${books.repeated} attempts repeated, ${books.events} events, ` +
    `${killed.agent} agents and ${killed.server} servers killed, ${took} s`,
);
const again = `npm run chaos -- --seconds ${seconds} --kills ${kills} --seed ${seed}`;
if (faults.length === 0) console.log("the books balance");
else {
  const file = join(server.dataDir, "server-output.txt");
  writeFileSync(file, server.process.output());
  console.log(
    `${faults.length} faults:\n${faults.slice(0, 50).join("\n")}\nagain: ${again}\ndata kept in ${server.dataDir}`,
  );
}
for (const { process: agent } of agents) await agent.end("SIGKILL");
client.close();
if (faults.length === 0) await server.stop();
else await server.process.end();
process.exit(faults.length === 0 ? 0 : 1);
