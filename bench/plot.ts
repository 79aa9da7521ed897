import type { Line, Results } from "./results.ts";
import { show } from "./results.ts";
import type { SoakResults } from "./soak.ts";

/* The plots, as SVG that is read in the light and in the dark. */

const font = "ui-sans-serif, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif";
const style = `
    .ink { fill: #1f2328 } .soft { fill: #59636e } .rule { stroke: #d1d9e0; stroke-width: 1 } .range { stroke: #1f2328; stroke-width: 1.5 }
    .ours { fill: #e0a800 } .ours.pale { fill: #f7e3a1 } .theirs { fill: #8c959f } .theirs.pale { fill: #dfe3e8 }
    .path { fill: none; stroke: #c98a00; stroke-width: 1.75; stroke-linejoin: round } .path.second { stroke: #8c959f }
    .h { font-size: 15px; font-weight: 600 } .t { font-size: 13px } .s { font-size: 12px } .n { font-size: 12px; font-variant-numeric: tabular-nums }
    @media (prefers-color-scheme: dark) {
      .ink { fill: #f0f6fc } .soft { fill: #9198a1 } .rule { stroke: #3d444d } .range { stroke: #f0f6fc }
      .ours { fill: #e3b341 } .ours.pale { fill: #5c4813 } .theirs { fill: #7d8590 } .theirs.pale { fill: #30363d }
      .path { stroke: #e3b341 } .path.second { stroke: #7d8590 }
    }`;

const escaped = (text: string) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

interface Page {
  readonly width: number;
  readonly height: number;
  readonly title: string;
  readonly says: string;
  readonly body: readonly string[];
}
const page = ({ width, height, title, says, body }: Page): string =>
  [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-labelledby="title desc" font-family="${font}">`,
    `  <title id="title">${escaped(title)}</title>`,
    `  <desc id="desc">${escaped(says)}</desc>`,
    `  <style>${style}\n  </style>`,
    ...body.map((line) => `  ${line}`),
    "</svg>\n",
  ].join("\n");

const at = (value: number) => Number(value.toFixed(1));
interface Text {
  readonly x: number;
  readonly y: number;
  readonly text: string;
  readonly as?: string;
  readonly end?: boolean;
}
const write = ({ x, y, text, as = "ink t", end }: Text): string =>
  `<text class="${as}" x="${at(x)}" y="${at(y)}"${end ? ' text-anchor="end"' : ""}>${escaped(text)}</text>`;

/** The least of 1, 2, 5, 10, 20 … that is not below it. */
function roundUp(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  return ([1, 2, 5, 10].find((step) => step * power >= value) ?? 10) * power;
}

const row = 24;
const names = 152;
const chart = { width: 440, bars: 190 };

interface Bars {
  readonly workload: string;
  /** The bar, and for times what it goes on to. */
  readonly figure: string;
  readonly beyond?: string;
  readonly title: string;
  readonly better: string;
}
const panels: readonly Bars[] = [
  { workload: "W1", figure: "p50", beyond: "p99", title: "Submit, ms", better: "p50 and p99, less is better" },
  {
    workload: "W2",
    figure: "p50",
    beyond: "p99",
    title: "Submit to result, ms",
    better: "p50 and p99, less is better",
  },
  { workload: "W3", figure: "perSecond", title: "Tasks a second, one agent of 100 slots", better: "more is better" },
  { workload: "W4", figure: "perSecond", title: "Tasks a second, 100 agents of one slot", better: "more is better" },
];

/** Names short enough to stand beside a bar. */
export function shortName(label: string): string {
  return label
    .replace(/, over HTTP.*/, "")
    .replace(/, PostgreSQL$/, "")
    .replace(/, Redis fsync /, ", fsync ")
    .replace(/(?<=\S) \d+(\.\d+)?/, "");
}

/** What the longest bar stands for. One that is much longer than all others is broken off, else nothing is seen of them. */
function longest(values: readonly number[]): number {
  const [first = 0, second = first] = [...values].sort((a, b) => b - a);
  return first > 3 * second ? 1.5 * second : first;
}

function barPanel(bars: Bars, results: Results, left: number, top: number): string[] {
  const of = (system: string, figure: string | undefined): Line | undefined =>
    results.lines.find((line) => line.workload === bars.workload && line.figure === figure && line.system === system);
  const shown = results.systems.flatMap(({ id, label }) => {
    const main = of(id, bars.figure);
    return main ? [{ id, label, main, beyond: of(id, bars.beyond) }] : [];
  });
  const ends = shown.map(({ main, beyond }) => beyond?.median ?? main.max);
  const most = longest(ends);
  const length = (value: number) => Math.max(1, Math.min(1, value / most) * chart.bars);
  const better = ends.some((end) => end > most) ? `${bars.better}; with a gap: longer than drawn` : bars.better;
  const start = left + names;
  return [
    write({ x: left, y: top, text: bars.title, as: "ink h" }),
    write({ x: left, y: top + 18, text: better, as: "soft s" }),
    ...shown.flatMap(({ id, label, main, beyond }, index) => {
      const y = top + 32 + index * row;
      const kind = id.startsWith("waggle") ? "ours" : "theirs";
      const value = beyond
        ? `${show(main.median)} / ${show(beyond.median)}`
        : Math.round(main.median).toLocaleString("en-US");
      const middle = at(y + 8);
      const parts = [write({ x: start - 10, y: y + 12.5, text: shortName(label), end: true })];
      const piece = (from: number, to: number, as: string) =>
        parts.push(
          `<rect class="${as}" x="${at(start + from)}" y="${at(y)}" width="${at(to - from)}" height="16" rx="2"/>`,
        );
      const bar = (of: number, as: string) => {
        const whole = length(of);
        if (of <= most) return piece(0, whole, as);
        piece(0, whole - 24, as);
        piece(whole - 20, whole, as);
      };
      if (beyond) bar(beyond.median, `${kind} pale`);
      bar(main.median, kind);
      const end = beyond ? length(beyond.median) : length(main.max);
      if (!beyond && main.max > main.min) {
        const from = at(start + length(main.min));
        parts.push(`<path class="range" d="M${from} ${middle}H${at(start + end)}"/>`);
      }
      parts.push(write({ x: start + end + 8, y: y + 12.5, text: value, as: "soft n" }));
      return parts;
    }),
  ];
}

/** Bars of the four workloads that are times and rates. */
export function plotResults(results: Results): string {
  const height = 32 + results.systems.length * row + 26;
  const body = panels.flatMap((bars, index) =>
    barPanel(bars, results, 20 + (index % 2) * (chart.width + 10), 30 + Math.floor(index / 2) * height),
  );
  const labels = results.systems.map(({ label }) => shortName(label)).join(", ");
  return page({
    width: 2 * chart.width + 40,
    height: 20 + 2 * height,
    title: "Waggle beside its peers",
    says: `Bars of medians for ${labels}; the same figures stand in the table of docs/benchmarks.md.`,
    body,
  });
}

interface Curve {
  readonly title: string;
  readonly unit: string;
  readonly of: readonly ((sample: SoakResults["samples"][number]) => number)[];
  readonly names: readonly string[];
}
const curves: readonly Curve[] = [
  {
    title: "Server memory",
    unit: "MiB",
    of: [({ rssMiB }) => rssMiB, ({ ownMiB }) => ownMiB],
    names: ["resident", "its own"],
  },
  {
    title: "Data folder",
    unit: "MiB",
    of: [({ fileMiB }) => fileMiB],
    names: ["on disk"],
  },
  { title: "Event loop, lag p99", unit: "ms", of: [({ loopMs }) => loopMs], names: ["lag"] },
  {
    title: "Submit, answered when on disk",
    unit: "ms",
    of: [({ submitP99 }) => submitP99, ({ submitP50 }) => submitP50],
    names: ["p99", "p50"],
  },
];

function curvePanel(curve: Curve, { samples }: SoakResults, left: number, top: number): string[] {
  const [width, height] = [chart.width - 60, 110];
  const last = samples.at(-1)?.seconds ?? 1;
  const most = roundUp(Math.max(0.001, ...samples.flatMap((sample) => curve.of.map((value) => value(sample)))));
  const start = left + 44;
  const bottom = top + 34 + height;
  const path = (value: Curve["of"][number]) =>
    samples
      .map((sample, index) => {
        const x = start + (sample.seconds / last) * width;
        const y = bottom - (value(sample) / most) * height;
        return `${index === 0 ? "M" : "L"}${at(x)} ${at(y)}`;
      })
      .join("");
  const lines = [0, 0.5, 1].flatMap((share) => {
    const y = at(bottom - share * height);
    return [
      `<path class="rule" d="M${start} ${y}H${start + width}"/>`,
      write({ x: start - 8, y: y + 4, text: show(share * most), as: "soft n", end: true }),
    ];
  });
  return [
    write({ x: left, y: top, text: curve.title, as: "ink h" }),
    write({ x: left, y: top + 18, text: `${curve.unit}; ${curve.names.join(", ")}`, as: "soft s" }),
    ...lines,
    ...curve.of.map((value, index) => `<path class="path${index > 0 ? " second" : ""}" d="${path(value)}"/>`),
    write({ x: start + width, y: bottom + 18, text: `${show(last / 60)} min`, as: "soft n", end: true }),
  ];
}

/** Four curves over the time of the run. */
export function plotSoak(results: SoakResults): string {
  const height = 196;
  return page({
    width: 2 * chart.width + 40,
    height: 20 + 2 * height,
    title: `${results.perSecond} tasks a second for ${show(results.minutes)} minutes`,
    says: "Resident memory, size of the data folder, lag of the event loop and time of a submit, over the time of the run.",
    body: curves.flatMap((curve, index) =>
      curvePanel(curve, results, 20 + (index % 2) * (chart.width + 10), 30 + Math.floor(index / 2) * height),
    ),
  });
}
