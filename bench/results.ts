import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, loadavg, release, totalmem } from "node:os";
import { dirname, join } from "node:path";
import { root } from "../test/support/root.ts";
import type { Floor } from "./floor.ts";
import { figureKinds, verdict } from "./goals.ts";
import { median } from "./stats.ts";
import type { System } from "./systems/system.ts";
import type { Figures } from "./workloads.ts";

/** Everything measured so far, by workload and system. */
export type Values = Map<string, Figures[]>;
export const slot = (workload: string, system: string) => `${workload}/${system}`;

/** One figure of one system, with what each repetition gave. */
export interface Line {
  readonly workload: string;
  readonly figure: string;
  readonly what: string;
  readonly unit: string;
  readonly system: string;
  readonly median: number;
  readonly min: number;
  readonly max: number;
  readonly values: readonly number[];
  readonly goal?: string;
  readonly ratio?: number;
  readonly met?: boolean;
}

export interface Machine {
  readonly cpu: string | undefined;
  readonly cpus: number;
  readonly gib: number;
  readonly kernel: string;
  readonly node: string;
  /** Of the clients and agents of those that need a newer one. */
  readonly newerNode?: string;
  readonly load: number;
  /** Share of the processors' time that the host gave to others meanwhile, 0–1. */
  readonly steal?: number;
}

export interface Absent {
  readonly label: string;
  readonly why: string;
}
export const absentLines = (absent: readonly Absent[] = []): string[] =>
  absent.map(({ label, why }) => `${label} is not measured: ${why}.`);

export interface Results {
  readonly at: string;
  readonly minutes?: number;
  readonly machine: Machine;
  /** How it was measured, in words. */
  readonly method: string;
  readonly systems: readonly Pick<System, "id" | "label" | "durability" | "notes">[];
  /** Those that should have been measured and could not be. */
  readonly absent?: readonly Absent[];
  readonly floor: Floor;
  readonly lines: readonly Line[];
}

export const resultsFile = (name: string) => join(root, "bench/results", `${name}.json`);

export const readResults = (file: string): Results => JSON.parse(readFileSync(file, "utf8"));

export function writeJson(file: string, content: unknown): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify(content, null, 1)}\n`);
}

/** What it is measured on; `load` is that before the run begins. */
export const machineFacts = (): Machine => ({
  cpu: cpus()[0]?.model,
  cpus: cpus().length,
  gib: Math.round(totalmem() / 2 ** 30),
  kernel: release(),
  node: process.version,
  load: loadavg()[0] ?? 0,
});

/** One line a figure and system, in the order of the goals. */
export function summarise(values: Values, ids: readonly string[]): Line[] {
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

const digits = (value: number) => (value >= 100 || Number.isInteger(value) ? 0 : value >= 10 ? 1 : 2);
/** Three digits, or whole. */
export const show = (value: number) => value.toFixed(digits(value));
