import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { parseArgs } from "node:util";
import { root } from "../test/support/root.ts";
import { figureKinds } from "./goals.ts";
import { plotResults, plotSoak, shortName } from "./plot.ts";
import { absentLines, type Line, type Results, readResults, resultsFile, show } from "./results.ts";
import type { SoakResults } from "./soak.ts";

const help = `npm run bench -- render [--check]

Writes what is made of the files in bench/results: the table of README.md, those of docs/benchmarks.md, docs/bench.svg and
docs/soak.svg. From latest.json; from large.json what is measured on request (npm run bench -- W6,open,waiting --out
bench/results/large.json); from soak.json. With --check it writes nothing and fails when something would change.`;

type Find = (workload: string, figure: string) => Line | undefined;
interface Column {
  readonly head: string;
  cell(find: Find): string;
}
const medianOf = (line: Line | undefined) => (line === undefined ? "" : show(line.median));
const wholeOf = (line: Line | undefined) => (line === undefined ? "" : Math.round(line.median).toLocaleString("en-US"));
const pair = (...cells: readonly string[]) => (cells.includes("") ? "" : cells.join(" / "));

const columns: readonly Column[] = [
  {
    head: "submit<br>p50 / p99 ms",
    cell: (find) => pair(medianOf(find("W1", "p50")), medianOf(find("W1", "p99"))),
  },
  {
    head: "to result<br>p50 / p99 ms",
    cell: (find) => pair(medianOf(find("W2", "p50")), medianOf(find("W2", "p99"))),
  },
  { head: "tasks/s<br>1 agent × 100", cell: (find) => wholeOf(find("W3", "perSecond")) },
  { head: "tasks/s<br>100 agents × 1", cell: (find) => wholeOf(find("W4", "perSecond")) },
  {
    head: "cold: submit ms<br>/ tasks/s",
    cell: (find) => pair(medianOf(find("W1", "coldP50")), wholeOf(find("W3", "coldPerSecond"))),
  },
  { head: "CPU<br>ms a task", cell: (find) => medianOf(find("W3", "cpuMs")) },
  { head: "server<br>MiB", cell: (find) => wholeOf(find("W3", "serverMiB")) },
  {
    head: "agents killed:<br>lost / twice, s",
    cell: (find) => {
      const counts = pair(medianOf(find("W5", "lost")), medianOf(find("W5", "twice")));
      return counts && `${counts}, ${medianOf(find("W5", "recoverySeconds"))}`;
    },
  },
];

const markdownRow = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;

function about({ at, machine, floor, lines }: Results): string {
  const reps = Math.max(...lines.map(({ values }) => values.length));
  const steal = machine.steal === undefined ? "" : `, ${(machine.steal * 100).toFixed(1)} % stolen by the host`;
  const newer = machine.newerNode ? ` (${machine.newerNode} for those that need it)` : "";
  return (
    `${at.slice(0, 10)}, ${machine.cpus} cores (${machine.cpu}), ${machine.gib} GiB, Node ${machine.node.slice(1)}${newer}, ` +
    `fdatasync p50 ${show(floor.flushP50)} ms${steal}; medians of ${reps}.`
  );
}

/** One row a system. */
export function shortTable(results: Results): string {
  const find =
    (system: string): Find =>
    (workload, figure) =>
      results.lines.find((line) => line.workload === workload && line.figure === figure && line.system === system);
  const shown = columns.filter(({ cell }) => results.systems.some(({ id }) => cell(find(id)) !== ""));
  const rows = results.systems.map(({ id, label, durability }) => {
    const cells = shown.map(({ cell }) => cell(find(id)));
    const name = shortName(label) + (durability === "on disk" ? "" : " *");
    return markdownRow([id.startsWith("waggle") ? `**${name}**` : name, ...cells]);
  });
  const weaker = results.systems.find(({ durability }) => durability !== "on disk");
  const byGrpc = results.systems.some(({ id }) => id === "temporal");
  return [
    markdownRow(["", ...shown.map(({ head }) => head)]),
    markdownRow(["---", ...shown.map(() => "--:")]),
    ...rows,
    "",
    ...(weaker
      ? [`\\* acknowledges before the task is on disk: ${weaker.durability}. All others acknowledge what is on disk.`]
      : []),
    `Waggle and Restate are called over HTTP${byGrpc ? ", Temporal by gRPC" : ""}; the others' clients speak to their store.`,
    ...absentLines(results.absent),
    about(results),
  ].join("\n");
}

const range = ({ median, min, max, values }: Line): string =>
  values.length === 1 || min === max ? show(median) : `${show(median)} <sub>${show(min)}–${show(max)}</sub>`;

/** One row a figure, with the range of the repetitions, and what is asked of ours. */
export function longTable({ systems, lines }: Results): string {
  const ids = systems.filter(({ id }) => lines.some((line) => line.system === id));
  const rows = figureKinds.flatMap(({ workload, figure, what, unit }) => {
    const own = lines.filter((line) => line.workload === workload && line.figure === figure);
    if (own.length === 0) return [];
    const cells = ids.map(({ id }) => {
      const line = own.find(({ system }) => system === id);
      return line ? range(line) : "";
    });
    const judged = own.find(({ goal }) => goal !== undefined);
    const ratio = judged?.ratio === undefined ? "" : `${judged.ratio.toFixed(2)}×, `;
    const goal = judged ? `${ratio}${judged.goal}: ${judged.met ? "met" : "**missed**"}` : "";
    return [markdownRow([workload, `${what}, ${unit}`, ...cells, goal])];
  });
  return [
    markdownRow(["", "", ...ids.map(({ label }) => label), "goal"]),
    markdownRow(["---", "---", ...ids.map(() => "--:"), "---"]),
    ...rows,
  ].join("\n");
}

function notes({ systems }: Results): string {
  return systems
    .filter((system) => system.notes.length > 0)
    .map(({ label, durability, notes: said }) => `- **${label}** (acknowledged: ${durability}): ${said.join("; ")}`)
    .join("\n");
}

const soakLines = ({ at, perSecond, minutes, keepSeconds, machine, books, samples }: SoakResults): string => {
  const most = (of: (sample: SoakResults["samples"][number]) => number) => show(Math.max(...samples.map(of)));
  return [
    `${at.slice(0, 10)}, ${machine.cpus} cores: ${perSecond} tasks a second for ${show(minutes)} minutes, kept ${keepSeconds === 0 ? "for ever" : `for ${keepSeconds} s`}. Server memory at most`,
    `${most(({ rssMiB }) => rssMiB)} MiB, ${most(({ ownMiB }) => ownMiB)} without pages of files; data folder ${most(({ fileMiB }) => fileMiB)} MiB. The books: ${books.acknowledged.toLocaleString("en-US")} tasks acknowledged,`,
    `${books.lost} without outcome, ${books.twice} with more than one, ${books.wrong} of ${books.read.toLocaleString("en-US")} read with a wrong result, ${books.gaps} gaps in the event log.`,
  ].join("\n");
};

/** Puts the text between the two markers of that name. @throws when they are not there */
function between(file: string, name: string, text: string, content: string): string {
  const [begin, end] = [`<!-- bench: ${name} -->`, `<!-- /bench: ${name} -->`];
  const [from, to] = [content.indexOf(begin), content.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`${file} has no markers ${begin} … ${end}`);
  return `${content.slice(0, from + begin.length)}\n${text}\n${content.slice(to)}`;
}

/** Every file as the results make it. */
export function rendered(): { file: string; content: string }[] {
  const latest = readResults(resultsFile("latest"));
  const read = (file: string) => readFileSync(join(root, file), "utf8");
  const optional = <Content>(name: string) =>
    existsSync(resultsFile(name)) ? (JSON.parse(readFileSync(resultsFile(name), "utf8")) as Content) : undefined;
  const large = optional<Results>("large");
  const soaked = optional<SoakResults>("soak");
  const parts: readonly (readonly [string, string])[] = [
    ["about", [about(latest), latest.method, ...absentLines(latest.absent)].join("\n")],
    ["table", longTable(latest)],
    ["notes", notes(latest)],
    [
      "large",
      large
        ? `${longTable(large)}\n\n${about(large)}`
        : "Not measured yet: `npm run bench -- W6,open,waiting --reps 1 --peers none --out bench/results/large.json`.",
    ],
    [
      "soak",
      soaked
        ? `${soakLines(soaked)}\n\n![Memory, data folder, event loop and submit over time](soak.svg)`
        : "Not run yet.",
    ],
  ];
  const file = "docs/benchmarks.md";
  const benchmarks = parts.reduce((text, [name, part]) => between(file, name, part, text), read(file));
  return [
    { file: "README.md", content: between("README.md", "table", shortTable(latest), read("README.md")) },
    { file, content: benchmarks },
    { file: "docs/bench.svg", content: plotResults(latest) },
    ...(soaked ? [{ file: "docs/soak.svg", content: plotSoak(soaked) }] : []),
  ];
}

/** `npm run bench -- render`: see `help`. */
export function render(args: readonly string[]): void {
  const { values } = parseArgs({
    args: [...args],
    options: { check: { type: "boolean", default: false }, help: { type: "boolean", default: false } },
  });
  if (values.help) {
    console.log(help);
    return;
  }
  for (const { file, content } of rendered()) {
    const path = join(root, file);
    if (existsSync(path) && readFileSync(path, "utf8") === content) continue;
    if (!values.check) writeFileSync(path, content);
    else process.exitCode = 1;
    console.log(`${relative(root, path)} ${values.check ? "is not what the results render" : "written"}`);
  }
}
