import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { launch } from "../test/support/process.ts";
import { root } from "../test/support/root.ts";
import { measureBundles } from "./bundle.ts";
import { reportCost } from "./cost.ts";
import type { DriverMessage } from "./driver.ts";
import { type Floor, measureFloor } from "./floor.ts";
import { figureKinds } from "./goals.ts";
import { measureLimits } from "./limits.ts";
import { render } from "./render.ts";
import {
  type Absent,
  absentLines,
  type Line,
  machineFacts,
  type Results,
  resultsFile,
  show,
  slot,
  summarise,
  type Values,
  writeJson,
} from "./results.ts";
import { scale } from "./scale.ts";
import { allSizes, fixed, methodOf, type SizeName } from "./sizes.ts";
import { soak } from "./soak.ts";
import { systems } from "./systems/index.ts";
import { nodeOf } from "./systems/peers.ts";
import type { System } from "./systems/system.ts";
import { watchSteal } from "./usage.ts";
import type { Figures } from "./workloads.ts";

const help = `npm run bench -- [workloads] [options]

Measures Waggle beside its peers, all durable, on this machine: a fresh server, fresh agents and a fresh client for every
measure, each warmed up by the calls it measures, the order of the systems turned round each time. Missing peers are installed.
How, and what each peer does less: docs/benchmarks.md

  W1      submit one after another                    W3  5,000 tasks, one agent of 100 slots
  W2      submit one and wait for its result          W4  5,000 tasks, 100 agents of one slot
  W5      200 tasks of 200 ms; the agents, then the server, killed in the middle
  W6      submit to result with 100 agents and 1,000 tasks, then 100,000 and 1,000,000; on request only
  W7      who waits how long when one submitter floods; of peers on request only
  memory  of the server with 1,000 agents connected
  start   from the command to the first accepted task
  open    the same, and submits, with ten million stored tasks; on request only
  waiting submits and results beside a million tasks that wait in a thousand lanes; on request only

  workloads        some of the above, separated by commas (default: all but those on request)
  --reps N         measures of each (default 5; quick 1), of W5 at most 3
  --quick          less of everything, in about five minutes: to see that it works, not to publish
  --peers NAMES    of those that --list shows, or all or none; bullmq stands for both of its kind (default all)
  --client NAME    what submits to Waggle: sdk, http (bare node:http) or both (default sdk)
  --json           one JSON line a figure on stdout; the table goes to stderr
  --out FILE       where the raw values go (default bench/results/latest.json of all
                   with 5 repetitions or more, last.json for any other run)
  --list           the workloads and systems
  --help

By themselves, each with --help:
  render  the README's table, docs/benchmarks.md's and the plot, from the files in bench/results
  soak    constant load for some minutes: memory, file size, event loop, latency; then the books are checked
  scale   1,000 agents on WebSockets beside 10,000 that poll or are called
  cost    of a task and of an idle fleet on AWS, counted, with a gate on each count
  limits  deletion, floods, and much that is stored
  bundle  size and load time of each Lambda function, with a gate on size

WAGGLE_SERVER replaces the program that is started, WAGGLE_BENCH_DIR the folder for data (default ${tmpdir()}).`;

/** Only a server of ours can be asked. */
const single = ["W6", "memory", "start", "open", "waiting"];
const all = ["W1", "W2", "W3", "W4", "W5", "W6", "W7", "memory", "start", "open", "waiting"];
/** Takes minutes. */
const onRequest = ["W6", "open", "waiting"];

function options(args: readonly string[]) {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      reps: { type: "string" },
      quick: { type: "boolean", default: false },
      peers: { type: "string", default: "all" },
      client: { type: "string", default: "sdk" },
      out: { type: "string" },
      json: { type: "boolean", default: false },
      list: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  const names = positionals.flatMap((text) => text.split(",")).filter(Boolean);
  const wanted = names.length === 0 ? all.filter((name) => !onRequest.includes(name)) : names;
  const wrong = wanted.find((name) => !all.includes(name));
  if (wrong !== undefined) throw new Error(`no workload ${wrong}; there are ${all.join(", ")}`);
  const reps = Number(values.reps ?? (values.quick ? 1 : 5));
  if (!Number.isInteger(reps) || reps < 1) throw new Error("--reps takes a whole number from 1");
  const sizes: SizeName = values.quick ? "quick" : "full";
  const whole = names.length === 0 && values.peers === "all" && !values.quick && reps >= 5;
  const out = values.out ?? resultsFile(whole ? "latest" : "last");
  const workloads = all.filter((name) => wanted.includes(name));
  return { ...values, reps, sizes, out, workloads, fairnessOfAll: names.includes("W7") };
}
type Options = ReturnType<typeof options>;

const ours = (system: System) => system.id.startsWith("waggle");

function chosen(peers: string, client: string): System[] {
  const clients = { sdk: ["waggle"], http: ["waggle-http"], both: ["waggle", "waggle-http"] }[client];
  if (clients === undefined) throw new Error("--client takes sdk, http or both");
  const theirs = peers === "none" ? [] : peers.split(",");
  const known = systems.filter((system) => !ours(system));
  const means = (name: string, { id }: System) => name === "all" || id === name || id.startsWith(`${name}-`);
  const wrong = theirs.find((name) => !known.some((system) => means(name, system)));
  if (wrong !== undefined) throw new Error(`no peer ${wrong}; there are ${known.map(({ id }) => id).join(", ")}`);
  return systems.filter((system) =>
    ours(system) ? clients.includes(system.id) : theirs.some((name) => means(name, system)),
  );
}

const list = (): string =>
  [
    `workloads: ${all.join(" ")} (on request only: ${onRequest.join(" ")})`,
    "systems, and where a task is once it is acknowledged:",
    ...systems.map(({ id, label, durability }) => `  ${id.padEnd(16)} ${label}: ${durability}`),
  ].join("\n");

async function measure(system: System, workload: string, sizes: SizeName): Promise<Figures> {
  const node = nodeOf(system.nodeAtLeast) ?? process.execPath;
  const args = [join(root, "ts.mjs"), "bench/driver.ts", system.id, workload, sizes];
  const driver = launch(node, args, { ipc: true });
  if (onRequest.includes(workload)) driver.child.stderr?.pipe(process.stderr);
  const message = await new Promise<DriverMessage>((resolve) => {
    driver.child.on("message", resolve);
    driver.child.once("exit", () => resolve({ error: `the driver ended:\n${driver.output()}` }));
  });
  await driver.end();
  if ("error" in message) throw new Error(message.error);
  return message.figures;
}

function table(lines: readonly Line[], measured: readonly System[]): string {
  const ids = measured.map(({ id }) => id);
  const rows = figureKinds.flatMap((kind) => {
    const own = lines.filter((line) => line.workload === kind.workload && line.figure === kind.figure);
    if (own.length === 0) return [];
    const cells = ids.map((id) => {
      const line = own.find(({ system }) => system === id);
      if (line === undefined) return "";
      return line.values.length === 1
        ? show(line.median)
        : `${show(line.median)} (${show(line.min)}–${show(line.max)})`;
    });
    const judged = own.find(({ goal }) => goal !== undefined);
    const ratio = judged?.ratio === undefined ? "" : `${judged.ratio.toFixed(2)}×`;
    const met = judged ? (judged.met ? "met" : "MISSED") : "";
    return [[kind.workload, `${kind.what}, ${kind.unit}`, ...cells, ratio, judged?.goal ?? "", met]];
  });
  const head = ["", "median (min–max)", ...ids, "ratio", "goal", ""];
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => (row[column] ?? "").length)));
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd();
  return [line(head), ...rows.map(line)].join("\n");
}

function floorLines(floor: Floor): string {
  const ms = (value: number) => `${show(value)} ms`;
  return [
    `floor: append + fdatasync p50 ${ms(floor.flushP50)}, p99 ${ms(floor.flushP99)}; Node HTTP POST that appends and fdatasyncs`,
    `       p50 ${ms(floor.postP50)}, p99 ${ms(floor.postP99)}, ${show(floor.postsPerSecond)} /s with 32 in flight`,
  ].join("\n");
}

async function sorted(wanted: readonly System[]): Promise<{ measured: System[]; absent: Absent[] }> {
  const measured: System[] = [];
  const absent: Absent[] = [];
  for (const system of wanted) {
    const why = await system.prepare();
    if (why === undefined) measured.push(system);
    else absent.push({ label: system.label, why });
  }
  for (const line of absentLines(absent)) console.error(`bench: ${line}`);
  return { measured, absent };
}

/** Who takes part. What only a server of ours can be asked is measured once a repetition, whatever submits. */
function taking(workload: string, measured: readonly System[], { fairnessOfAll }: Options): System[] {
  const alone = single.includes(workload) || (workload === "W7" && !fairnessOfAll);
  return alone ? measured.filter(ours).slice(0, 1) : [...measured];
}

const repsOf = (workload: string, { reps }: Options) => (workload === "W5" ? Math.min(reps, fixed.crashReps) : reps);

/** Every measure in turn; one that fails is told and the others go on. */
async function measureAll(settings: Options, measured: readonly System[], after: (values: Values) => void) {
  const values: Values = new Map();
  const total = settings.workloads.reduce(
    (sum, name) => sum + taking(name, measured, settings).length * repsOf(name, settings),
    0,
  );
  const began = performance.now();
  let done = 0;
  for (const workload of settings.workloads) {
    const present = taking(workload, measured, settings);
    for (let rep = 0; rep < repsOf(workload, settings); rep++) {
      for (const system of rep % 2 === 0 ? present : [...present].reverse()) {
        const at = `${++done}/${total} ${workload} ${system.id}`;
        try {
          const figures = await measure(system, workload, settings.sizes);
          const key = slot(workload, system.id);
          values.set(key, [...(values.get(key) ?? []), figures]);
          const short = Object.entries(figures)
            .slice(0, 3)
            .map(([name, value]) => `${name} ${show(value)}`);
          const minutes = ((performance.now() - began) / 60_000).toFixed(1);
          console.error(`${at}: ${short.join(", ")} (${minutes} min)`);
        } catch (error) {
          console.error(`${at} failed: ${error instanceof Error ? error.message : error}`);
          process.exitCode = 1;
        }
      }
    }
    after(values);
  }
  return values;
}

async function compare(args: readonly string[]): Promise<void> {
  const settings = options(args);
  if (settings.help) return console.log(help);
  if (settings.list) return console.log(list());
  const people = (text: string) => (settings.json ? console.error(text) : console.log(text));
  const wanted = chosen(settings.peers, settings.client);
  const before = {
    machine: machineFacts(),
    steal: watchSteal(),
    at: new Date().toISOString(),
    began: performance.now(),
  };

  const { measured, absent } = await sorted(wanted);
  const ids = measured.map(({ id }) => id);
  const dir = mkdtempSync(join(process.env.WAGGLE_BENCH_DIR ?? tmpdir(), "waggle-floor-"));
  const floor = await measureFloor(dir).finally(() => rmSync(dir, { recursive: true, force: true }));
  people(floorLines(floor));

  const newest = measured.map(({ nodeAtLeast }) => nodeOf(nodeAtLeast)).find((node) => node !== process.execPath);
  const keep = (values: Values) => {
    const results: Results = {
      at: before.at,
      minutes: (performance.now() - before.began) / 60_000,
      machine: {
        ...before.machine,
        ...(newest ? { newerNode: execFileSync(newest, ["--version"], { encoding: "utf8" }).trim() } : {}),
        steal: before.steal(),
      },
      method: methodOf(allSizes[settings.sizes]),
      systems: measured.map(({ id, label, durability, notes }) => ({ id, label, durability, notes })),
      ...(absent.length > 0 ? { absent } : {}),
      floor,
      lines: summarise(values, ids),
    };
    // After each workload, so that a run which is broken off leaves what it has.
    writeJson(settings.out, results);
  };
  const lines = summarise(await measureAll(settings, measured, keep), ids);
  people(["", table(lines, measured), ...absentLines(absent)].join("\n"));
  if (settings.json) {
    for (const [figure, value] of Object.entries(floor))
      console.log(JSON.stringify({ workload: "floor", figure, value }));
    for (const line of lines) console.log(JSON.stringify(line));
  }
}

const commands: Readonly<Record<string, (args: readonly string[]) => unknown>> = {
  bundle: measureBundles,
  cost: reportCost,
  limits: measureLimits,
  render,
  scale,
  soak,
};

// A missed goal is not a failed run: times belong to the machine.
const [name = "", ...rest] = process.argv.slice(2);
await (async () => (commands[name] ? commands[name](rest) : compare(process.argv.slice(2))))().catch(
  (error: unknown) => {
    console.error(`bench: ${error instanceof Error ? error.message : error}`);
    process.exitCode = 1;
  },
);
