import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { build } from "esbuild";
import { functions } from "../infra/manifest.ts";
import { root } from "../test/support/root.ts";
import { median } from "./stats.ts";

const run = promisify(execFile);
const reps = 15;

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

/** What each function has to load, whatever of ours is in it: the client of DynamoDB, with the commands that a store needs. */
const clientAlone = `
export {
  BatchGetItemCommand, BatchWriteItemCommand, DeleteItemCommand, DynamoDBClient, GetItemCommand, PutItemCommand, QueryCommand,
  TransactWriteItemsCommand, UpdateItemCommand,
} from "@aws-sdk/client-dynamodb";
export const handler = () => {};
`;

/** Of each file, ms in fresh processes; in turns, so that what the machine does besides falls on all alike. */
async function loadMs(script: string, files: readonly string[]): Promise<number[][]> {
  const times: number[][] = files.map(() => []);
  for (let rep = 0; rep < reps; rep++)
    for (const [index, file] of files.entries()) {
      const { stdout } = await run(process.execPath, [script, file]);
      times[index]?.push(Number(stdout));
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
    const client = join(dir, "client.mjs");
    await build({
      stdin: { contents: clientAlone, resolveDir: root },
      outfile: client,
      bundle: true,
      minify: true,
      platform: "node",
      format: "esm",
      mainFields: ["module", "main"],
    });
    const { size } = statSync(client);
    const names = Object.keys(functions);
    const files = [client, ...names.map((name) => join(dir, name, "bundle.mjs"))];
    const [ofClient = [], ...ofFunctions] = await loadMs(script, files);
    console.log("function     at start  in all   load, median (min–max)");
    const line = (name: string, startBytes: number, allBytes: number, times: readonly number[], note: string) => {
      const ms = `${median(times).toFixed(1)} ms (${Math.min(...times).toFixed(1)}–${Math.max(...times).toFixed(1)})`;
      console.log(`${name.padEnd(12)} ${kb(startBytes).padStart(7)} ${kb(allBytes).padStart(8)}   ${ms}${note}`);
    };
    line("DynamoDB's", size, size, ofClient, "  the AWS SDK's client by itself");
    for (const [index, name] of names.entries()) {
      const { startBytes, allBytes } = sizes[name] as { startBytes: number; allBytes: number };
      const times = ofFunctions[index] ?? [];
      const slow = median(times) > bundleGoals.loadMs ? `  goal ${bundleGoals.loadMs} ms MISSED` : "";
      line(name, startBytes, allBytes, times, slow);
      if (startBytes > bundleGoals.bytes) large.push(`${name} is ${kb(startBytes)}`);
    }
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
  if (large.length > 0) throw new Error(`at most ${kb(bundleGoals.bytes)} at start: ${large.join(", ")}`);
}
