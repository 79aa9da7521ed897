import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { functions } from "../infra/manifest.ts";
import { root } from "../test/support/root.ts";
import { median } from "./stats.ts";

const run = promisify(execFile);
const reps = 9;

/** What a function may weigh when it starts, in bytes, and how long its modules may take to load, in ms on 2 cores. */
export const bundleGoals = { bytes: 500_000, loadMs: 60 } as const;

/** Loads the bundle as Lambda's runtime does, which brings `awslambda`. */
const loader = `
globalThis.awslambda = { streamifyResponse: (handler) => handler, HttpResponseStream: { from: (out) => out } };
const before = performance.now();
const { handler } = await import(process.argv[2]);
const ms = performance.now() - before;
if (typeof handler !== "function") throw new Error("there is no handler");
console.log(ms);
`;

async function loadMs(script: string, file: string): Promise<number[]> {
  const times: number[] = [];
  for (let rep = 0; rep < reps; rep++) {
    const { stdout } = await run(process.execPath, [script, file]);
    times.push(Number(stdout));
  }
  return times;
}

const kb = (bytes: number) => `${(bytes / 1000).toFixed(0)} KB`;

/** Prints size and load time of every function, each loaded in fresh processes. A bundle that is too large fails the run. */
export async function measureBundles(): Promise<void> {
  const dir = mkdtempSync(join(process.env.WAGGLE_BENCH_DIR ?? tmpdir(), "waggle-bundle-"));
  const large: string[] = [];
  try {
    await run(process.execPath, [join(root, "functions/build.mjs"), dir]);
    const sizes = JSON.parse(readFileSync(join(dir, "sizes.json"), "utf8"));
    const script = join(dir, "load.mjs");
    writeFileSync(script, loader);
    console.log("function     at start  in all   load, median (min–max)");
    for (const name of Object.keys(functions)) {
      const size = sizes[name] as { startBytes: number; allBytes: number };
      const times = await loadMs(script, join(dir, name, "bundle.mjs"));
      const [least, most] = [Math.min(...times), Math.max(...times)];
      const ms = `${median(times).toFixed(1)} ms (${least.toFixed(1)}–${most.toFixed(1)})`;
      const slow = median(times) > bundleGoals.loadMs ? `  goal ${bundleGoals.loadMs} ms MISSED` : "";
      console.log(
        `${name.padEnd(12)} ${kb(size.startBytes).padStart(7)} ${kb(size.allBytes).padStart(8)}   ${ms}${slow}`,
      );
      if (size.startBytes > bundleGoals.bytes) large.push(`${name} is ${kb(size.startBytes)}`);
    }
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
  if (large.length > 0) throw new Error(`at most ${kb(bundleGoals.bytes)} at start: ${large.join(", ")}`);
}
