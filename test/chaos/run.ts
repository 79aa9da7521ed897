import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { auditFolder } from "@waggle/local";
import { createClient } from "@waggle/sdk";
import { eventually } from "../support/eventually.ts";
import { pick, randomOf } from "../support/random.ts";
import { auditFaults, checkBooks, type Entry, isEnded, outcomeOf } from "./books.ts";
import { openWorld, outputFile } from "./faults.ts";
import { type Fault, families, type Input, isKill, kindOf } from "./plan.ts";

const help = `npm run chaos -- [--kills N] [--minutes N] [--seed N] [--faults kill,stop,net,clock,disk]

Loads a server with tasks of every kind, does harm to it and its agents again and again, and then opens the books: nothing
acknowledged is lost, every task has exactly one outcome, told once; limits, dependencies and priorities were kept at every
moment of the event log; and waggle doctor --deep finds every row in its place.

  --kills N     ends after so many processes were killed
  --minutes N   ends after this time, whichever comes first (default 1; without end where --kills is given)
  --seed N      decides the tasks, the faults and their order; printed, to plan the same again
  --faults      kill: -9 of server and agents · stop: SIGSTOP past the lease · net: a proxy delays, cuts, repeats, leaves
                half-open · clock: steps forward and back · disk: full, failing, torn writes (default all)`;

const { values } = parseArgs({
  options: {
    kills: { type: "string" },
    minutes: { type: "string" },
    seed: { type: "string" },
    faults: { type: "string", default: Object.keys(families).join() },
    help: { type: "boolean", default: false },
  },
});
if (values.help) {
  console.log(help);
  process.exit(0);
}
const kills = Number(values.kills ?? Number.POSITIVE_INFINITY);
const minutes = Number(values.minutes ?? (values.kills === undefined ? 1 : Number.POSITIVE_INFINITY));
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
if ([kills, minutes, seed].some(Number.isNaN)) throw new Error("--kills, --minutes and --seed take numbers");
const chosen = values.faults.split(",");
const allowed: readonly Fault[] = chosen.flatMap((family) => {
  const found = families[family];
  if (found === undefined) throw new Error(`--faults takes ${Object.keys(families).join()}`);
  return found;
});
if (!allowed.some(isKill) && minutes === Number.POSITIVE_INFINITY)
  throw new Error("--kills needs the faults kill or disk");
/** Callers that submit one task after the other. */
const lanes = 6;

const dataDir = mkdtempSync(join(tmpdir(), "waggle-chaos-"));
const world = await openWorld(dataDir, randomOf(seed));
// The SDK sends a submit again under one idempotency key until it is answered.
const caller = createClient({ url: world.proxy.url, key: world.key, retrySeconds: 600, timeoutSeconds: 5 });
const client = createClient({ url: world.url, key: world.key, retrySeconds: 600 });
let over = false;

const entries: Entry[] = [];
async function load(lane: number): Promise<void> {
  const random = randomOf(seed * 31 + lane);
  for (let n = lane; !over; ) {
    const batch = Array.from({ length: random() < 0.1 ? 5 : 1 }, () => {
      const made = draw(random, n);
      n += lanes;
      return made;
    });
    const tasks =
      batch.length === 1
        ? [await caller.tasks.create((batch[0] as (typeof batch)[number]).asked)]
        : (await caller.tasks.createBatch(batch.map(({ asked }) => asked))).map((result) => {
            if (!("task" in result)) throw new Error(`a batch was refused: ${JSON.stringify(result)}`);
            return result.task;
          });
    for (const [i, { kind, input }] of batch.entries()) {
      const entry: Entry = { id: (tasks[i] as (typeof tasks)[number]).id, kind, input };
      entries.push(entry);
      if (kind.cancelled) void sleep(random() * 600).then(() => caller.tasks.cancel(entry.id));
    }
    await look(pick(random, entries));
    await sleep(random() * 50);
  }
}

function draw(random: () => number, n: number) {
  const kind = kindOf(random);
  const pad = "x".repeat(kind.inputBytes ?? 100);
  const input: Input = { n, kind: kind.name, busyMs: Math.round(random() * kind.busyMs), pad };
  const earlier = entries.filter((entry) => entry.kind.ends.join() === "completed" && !entry.kind.follows);
  const dependsOn = kind.follows && earlier.length > 0 ? [pick(random, earlier.slice(-50)).id] : [];
  const parentId =
    kind.child && earlier.length > 0
      ? pick(random, earlier.filter((entry) => !entry.kind.child).slice(-50))?.id
      : undefined;
  const more = kind.more?.(random);
  return {
    kind,
    input,
    asked: { ...kind.task, ...more, type: kind.name, input, dependsOn, ...(parentId && { parentId }) },
  };
}

/** Reads a task; an outcome that somebody has read must never change. */
async function look(entry: Entry): Promise<boolean> {
  const task = await client.tasks.get(entry.id);
  if (isEnded(task)) entry.seen ??= outcomeOf(task);
  return isEnded(task);
}

let killed = 0;
async function harm(): Promise<void> {
  const random = randomOf(seed + 1);
  const until = performance.now() + minutes * 60_000;
  while (killed < kills && performance.now() < until) {
    await sleep(random() * 600);
    const fault = world.draw(allowed);
    await world.inflict(fault);
    if (!isKill(fault)) continue;
    killed++;
    if (killed % 100 === 0)
      console.log(`${killed} killed, ${entries.length} tasks, ${((performance.now() - began) / 1000).toFixed(0)} s`);
  }
}

console.log(`chaos: seed ${seed}, faults ${chosen}`);
const began = performance.now();
const loading = Promise.all(Array.from({ length: lanes }, (_, lane) => load(lane)));
await Promise.race([harm(), loading]);
over = true;
await world.calm();
await loading;

const faults: string[] = [...world.autopsies.faults];
const waiting = new Set(entries);
await eventually(
  "every task has ended",
  async () => {
    for (const entry of waiting) if (await look(entry)) waiting.delete(entry);
    return waiting.size === 0;
  },
  { seconds: 120, everyMs: 250 },
).catch(() => {});
for (const { id } of waiting) {
  const { status, waiting: why } = await client.tasks.get(id);
  const explained = JSON.stringify(await client.tasks.explain(id));
  faults.push(`${id} is ${status} two minutes after the load, ${JSON.stringify(why)} ${explained}`);
}
// Times of the log can be compared while the clock was left alone.
const disturbed = chosen.includes("clock") ? undefined : world.disturbed;
const opened = async () => {
  const found = await checkBooks(client, entries, disturbed);
  return { ...found, faults: [...found.faults, ...(await auditFaults(client))] };
};
// Counters and events follow the tasks within moments.
const books = await eventually(
  "the books balance",
  async () => {
    const found = await opened();
    return found.faults.length === 0 && found;
  },
  { seconds: 10, everyMs: 1000 },
).catch(opened);
faults.push(...books.faults);
caller.close();
client.close();
await world.stop();
const { findings } = await auditFolder(dataDir);
faults.push(...findings.map(({ code, subject, problem }) => `doctor, on the folder: ${code} ${subject} ${problem}`));

const took = ((performance.now() - began) / 1000).toFixed(1);
const ends = Object.entries(books.byStatus)
  .map(([status, count]) => `${count} ${status}`)
  .join(", ");
const { delayed, cut, halfOpen, repeated } = world.proxy.counts;
console.log(
  `${entries.length} tasks acknowledged: ${ends}; ${books.repeated} attempts repeated, ${books.events} events, ${took} s`,
);
console.log(
  `faults: ${Object.entries(world.counts)
    .map(([name, count]) => `${count} ${name}`)
    .join(", ")}`,
);
console.log(
  `network: ${delayed} pieces delayed, ${cut} connections cut, ${halfOpen} left half-open, ${repeated} requests repeated`,
);
console.log(
  `${killed} killed: ${books.lost} lost, ${books.twice} done twice; ${world.autopsies.count} folders read between`,
);
if (faults.length === 0) {
  console.log("the books balance");
  rmSync(dataDir, { recursive: true, force: true });
} else {
  writeFileSync(outputFile(dataDir), world.output());
  const again = `npm run chaos -- ${values.kills === undefined ? `--minutes ${minutes}` : `--kills ${kills}`} --faults ${chosen} --seed ${seed}`;
  console.log(`${faults.length} faults:\n${faults.slice(0, 50).join("\n")}\nagain: ${again}\ndata kept in ${dataDir}`);
}
process.exit(faults.length === 0 ? 0 : 1);
