import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, release, tmpdir, totalmem } from "node:os";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { launchScript } from "../test/support/process.ts";
import { root } from "../test/support/root.ts";
import { measureBundles } from "./bundle.ts";
import { reportCost } from "./cost.ts";
import type { DriverMessage } from "./driver.ts";
import { type Floor, measureFloor } from "./floor.ts";
import { figureKinds, verdict } from "./goals.ts";
import { median } from "./stats.ts";
import { systems } from "./systems/index.ts";
import type { System } from "./systems/system.ts";
import type { Figures } from "./workloads.ts";

const help = `npm run bench -- [workloads] [options]

Measures Waggle beside BullMQ, both durable, on this machine: a fresh server, fresh agents and a fresh client for every
measure, warmed up by 2,000 tasks, the order of the systems turned round each time.

  W1      submit one after another                    W3  5,000 tasks, one agent of 100 slots
  W2      submit one and wait for its result          W4  5,000 tasks, 100 agents of one slot
  W5      200 tasks of 200 ms; the agents, then the server, killed in the middle
  W6      submit to result with few and with many agents and tasks stored; on request only
  W7      who waits how long when one submitter floods
  open    from the command to the first accepted task with a million stored ones; on request only
  bundle  size and load time of each Lambda function, with a gate on size; by itself
  cost    of a task and of an idle fleet on AWS, counted, with a gate on each count; by itself, has its own --help
  memory  of the server with 1,000 agents connected   start  from the command to the first accepted task

  workloads        some of the above, separated by commas (default: all but those on request)
  --reps N         measures of each (default 5)
  --peers NAMES    bullmq-always, bullmq-everysec, bullmq (both) or none (default bullmq)
  --client NAME    what submits to Waggle: sdk, http (bare node:http) or both (default sdk)
  --json           one JSON line a figure on stdout; the table goes to stderr
  --out FILE       where the raw values go (default bench/results/latest.json)
  --help

WAGGLE_SERVER replaces the program that is started, WAGGLE_BENCH_DIR the folder for data (default ${tmpdir()}),
WAGGLE_BENCH_SCALE=full gives W6 100,000 agents and 1,000,000 tasks instead of a tenth and a twentieth.`;

const single = ["W6", "W7", "memory", "start", "open"];
const all = ["W1", "W2", "W3", "W4", "W5", ...single];
/** Takes minutes. */
const onRequest = ["W6", "open"];

function options() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      reps: { type: "string", default: "5" },
      peers: { type: "string", default: "bullmq" },
      client: { type: "string", default: "sdk" },
      out: { type: "string", default: join(root, "bench/results/latest.json") },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  const names = positionals.flatMap((text) => text.split(",")).filter(Boolean);
  const wanted = names.length === 0 ? all.filter((name) => !onRequest.includes(name)) : names;
  const wrong = wanted.find((name) => !all.includes(name));
  if (wrong !== undefined) throw new Error(`no workload ${wrong}; there are ${all.join(", ")}`);
  const reps = Number(values.reps);
  if (!Number.isInteger(reps) || reps < 1) throw new Error("--reps takes a whole number from 1");
  return { ...values, reps, workloads: all.filter((name) => wanted.includes(name)) };
}

function chosen(peers: string, client: string): System[] {
  const ours = { sdk: ["waggle"], http: ["waggle-http"], both: ["waggle", "waggle-http"] }[client];
  if (ours === undefined) throw new Error("--client takes sdk, http or both");
  const theirs = peers === "none" ? [] : peers.split(",");
  const ids = systems.map(({ id }) => id).filter((id) => id.startsWith("bullmq"));
  const wrong = theirs.find((name) => name !== "bullmq" && !ids.includes(name));
  if (wrong !== undefined) throw new Error(`no peer ${wrong}; there are bullmq, ${ids.join(", ")}`);
  return systems.filter(
    ({ id }) => ours.includes(id) || theirs.some((name) => id === name || id.startsWith(`${name}-`)),
  );
}

async function measure(system: string, workload: string): Promise<Figures> {
  const driver = launchScript("bench/driver.ts", [system, workload], { ipc: true });
  const message = await new Promise<DriverMessage>((resolve) => {
    driver.child.on("message", resolve);
    driver.child.once("exit", () => resolve({ error: `the driver ended:\n${driver.output()}` }));
  });
  await driver.end();
  if ("error" in message) throw new Error(`${system} ${workload}: ${message.error}`);
  return message.figures;
}

type Values = Map<string, Figures[]>;
const slot = (workload: string, system: string) => `${workload}/${system}`;

const digits = (value: number) => (value >= 100 ? 0 : value >= 10 ? 1 : 2);
const show = (value: number) => value.toFixed(digits(value));

/** One entry a figure and system, in the order of the goals. */
function summarise(values: Values, ids: readonly string[]) {
  const samples = (workload: string, figure: string, system: string) =>
    (values.get(slot(workload, system)) ?? []).flatMap((figures) => figures[figure] ?? []);
  return figureKinds.flatMap((kind) =>
    ids.flatMap((system) => {
      const own = samples(kind.workload, kind.figure, system);
      if (own.length === 0) return [];
      const peerValue = (id: string) => {
        const theirs = samples(kind.workload, kind.figure, id);
        return theirs.length === 0 ? undefined : median(theirs);
      };
      const judged = system.startsWith("waggle") ? verdict(kind, median(own), peerValue) : undefined;
      const { workload, figure, what, unit } = kind;
      const range = { median: median(own), min: Math.min(...own), max: Math.max(...own), values: own };
      return [{ workload, figure, what, unit, system, ...range, ...judged }];
    }),
  );
}
type Line = ReturnType<typeof summarise>[number];

function table(lines: readonly Line[], measured: readonly System[]): string {
  const ids = measured.map(({ id }) => id);
  const rows = figureKinds.flatMap((kind) => {
    const own = lines.filter((line) => line.workload === kind.workload && line.figure === kind.figure);
    if (own.length === 0) return [];
    const cells = ids.map((id) => {
      const line = own.find(({ system }) => system === id);
      return line ? `${show(line.median)} (${show(line.min)}–${show(line.max)})` : "";
    });
    const judged = own.find(({ goal }) => goal !== undefined);
    const ratio = judged?.ratio === undefined ? "" : `${judged.ratio.toFixed(2)}×`;
    return [
      [
        kind.workload,
        `${kind.what}, ${kind.unit}`,
        ...cells,
        ratio,
        judged?.goal ?? "",
        judged ? (judged.met ? "met" : "MISSED") : "",
      ],
    ];
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

async function main(): Promise<void> {
  if (process.argv[2] === "bundle") return measureBundles();
  if (process.argv[2] === "cost") return reportCost(process.argv.slice(3));
  const settings = options();
  if (settings.help) return console.log(help);
  const people = (text: string) => (settings.json ? console.error(text) : console.log(text));

  const measured: System[] = [];
  for (const system of chosen(settings.peers, settings.client)) {
    const missing = await system.prepare();
    if (missing === undefined) measured.push(system);
    else console.error(`bench: ${system.id} is left out: ${missing}`);
  }
  const dir = mkdtempSync(join(process.env.WAGGLE_BENCH_DIR ?? tmpdir(), "waggle-floor-"));
  const floor = await measureFloor(dir).finally(() => rmSync(dir, { recursive: true, force: true }));
  people(floorLines(floor));

  const values: Values = new Map();
  for (const workload of settings.workloads) {
    // What only a server of ours can be asked is measured once a repetition, whatever submits.
    const taking = single.includes(workload)
      ? measured.filter(({ id }) => id.startsWith("waggle")).slice(0, 1)
      : measured;
    for (let rep = 0; rep < settings.reps; rep++) {
      for (const system of rep % 2 === 0 ? taking : [...taking].reverse()) {
        const figures = await measure(system.id, workload);
        const key = slot(workload, system.id);
        values.set(key, [...(values.get(key) ?? []), figures]);
        const short = Object.entries(figures)
          .slice(0, 3)
          .map(([name, value]) => `${name} ${show(value)}`);
        console.error(`${workload} ${rep + 1}/${settings.reps} ${system.id}: ${short.join(", ")}`);
      }
    }
  }

  const lines = summarise(
    values,
    measured.map(({ id }) => id),
  );
  people(`\n${table(lines, measured)}`);
  if (settings.json) {
    for (const [figure, value] of Object.entries(floor))
      console.log(JSON.stringify({ workload: "floor", figure, value }));
    for (const line of lines) console.log(JSON.stringify(line));
  }
  const machine = {
    node: process.version,
    cpus: cpus().length,
    cpu: cpus()[0]?.model,
    gib: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
  };
  const about = measured.map(({ id, label, durability }) => ({ id, label, durability }));
  mkdirSync(dirname(settings.out), { recursive: true });
  writeFileSync(
    settings.out,
    `${JSON.stringify({ at: new Date().toISOString(), machine, systems: about, floor, lines }, null, 1)}\n`,
  );
}

// A missed goal is not a failed run: times belong to the machine.
await main().catch((error: unknown) => {
  console.error(`bench: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
});
