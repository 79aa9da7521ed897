import { spawn } from "node:child_process";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import type { Item, Store } from "@waggle/core";
import { build } from "esbuild";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { openEmbedded } from "./index.ts";

let program: string;
let folder: string;
let dataDir: string;
beforeAll(async () => {
  // Beside the packages, so that the child finds lmdb.
  mkdirSync(join(import.meta.dirname, "../node_modules"), { recursive: true });
  program = mkdtempSync(join(import.meta.dirname, "../node_modules/.crash-"));
  await build({
    entryPoints: [join(import.meta.dirname, "crash.child.ts")],
    outfile: join(program, "child.mjs"),
    bundle: true,
    platform: "node",
    format: "esm",
    conditions: ["source"],
    external: ["lmdb", "msgpackr"],
  });
});
afterAll(() => rmSync(program, { recursive: true, force: true }));
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "waggle-crash-"));
  dataDir = join(folder, "data");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Runs the writer until it has acknowledged enough, kills it, and tells what it acknowledged. */
async function runAndKill(seed: number, acknowledge: number): Promise<number[]> {
  const child = spawn(process.execPath, [join(program, "child.mjs"), dataDir, String(seed)], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  let errors = "";
  child.stderr.on("data", (text) => {
    errors += text;
  });
  child.stdout.on("data", (text) => {
    output += text;
    if (output.split("\n").length > acknowledge) child.kill("SIGKILL");
  });
  await new Promise((resolve) => child.on("close", resolve));
  if (child.signalCode !== "SIGKILL") throw new Error(`the writer ended by itself: ${errors}`);
  return output.split("\n").slice(0, -1).map(Number);
}

async function all(store: Store, pk: string): Promise<Item[]> {
  const rows: Item[] = [];
  for (let after: string | undefined; ; ) {
    const page = await store.query({ pk, limit: 1000, ...(after !== undefined && { after }) });
    rows.push(...page.items);
    if (page.last === undefined) return rows;
    after = page.last;
  }
}

test("keeps every acknowledged write, and transactions whole, through kill -9 at any moment", async () => {
  const acknowledged = new Set<string>();
  const kills = Number(process.env.WAGGLE_KILLS ?? 20);
  for (let kill = 1; kill <= kills; kill++) {
    for (const n of await runAndKill(kill, 1 + ((kill * 37) % 300))) acknowledged.add(String(n).padStart(8, "0"));
    // Every fourth time the next writer recovers what the last one left, and is killed as well.
    if (kill % 4 === 0) continue;
    const engine = await openEmbedded({ dataDir });
    const { store } = engine.ports;
    let derived = 0;
    engine.changes.consume("derive", ["pair"], async (changes) => {
      for (const { new: row } of changes) {
        derived++;
        await store.write({ put: { pk: "t#seen", sk: (row as Item).sk, kind: "seen", of: (row as Item).n as number } });
      }
    });
    const left = await all(store, "t#left");
    const right = await all(store, "t#right");
    expect(right.map((row) => row.sk)).toEqual(left.map((row) => row.sk));
    const present = new Set(left.map((row) => row.sk));
    expect([...acknowledged].filter((sk) => !present.has(sk))).toEqual([]);
    expect(await store.get({ pk: "t", sk: "total" })).toMatchObject({ pairs: left.length });
    await store.write({ put: { pk: "t", sk: "nudge", kind: "nudge" } });
    await store.settled();
    const seen = await all(store, "t#seen");
    expect(seen.map((row) => row.sk)).toEqual(left.map((row) => row.sk));
    expect(derived).toBeLessThan(2000);
    await engine.close();
  }
}, 60_000);

/** Writes `count` rows, each acknowledged, and leaves the folder as a kill would: a copy while open. */
async function crashedFolder(count: number, segmentBytes = 1024 * 1024): Promise<string> {
  const engine = await openEmbedded({ dataDir, flush: { segmentBytes } });
  for (let i = 0; i < count; i++) {
    await engine.ports.store.write({ put: { pk: "t", sk: String(i), kind: "row", text: "x".repeat(100) } });
    await engine.ports.store.settled();
  }
  const copy = join(folder, `copy-${count}`);
  cpSync(dataDir, copy, { recursive: true });
  await engine.close();
  return copy;
}

const segments = (path: string): string[] =>
  readdirSync(join(path, "log"))
    .filter((name) => name.endsWith(".log"))
    .sort()
    .map((name) => join(path, "log", name));

/** Where the frames of a segment lie. */
function frames(path: string): { at: number; end: number }[] {
  const bytes = readFileSync(path);
  const found: { at: number; end: number }[] = [];
  for (let at = 64; bytes.readUInt32LE(at) > 0; ) {
    const end = (at + 24 + bytes.readUInt32LE(at) + 7) & ~7;
    found.push({ at, end });
    at = end;
  }
  return found;
}

function damage(path: string, at: number, bytes: Uint8Array): void {
  const fd = openSync(path, "r+");
  writeSync(fd, bytes, 0, bytes.length, at);
}

test("drops a torn last write and keeps all before it, however much of it reached the disk", async () => {
  const copy = await crashedFolder(10);
  const [segment] = segments(copy) as [string];
  const last = frames(segment).at(-1) as { at: number; end: number };
  for (const kept of [0, 1, 7, 12, 24, 60, last.end - last.at - 8]) {
    const torn = join(folder, `torn-${kept}`);
    cpSync(copy, torn, { recursive: true });
    damage(segments(torn)[0] as string, last.at + kept, new Uint8Array(last.end - last.at - kept));
    for (let open = 0; open < 2; open++) {
      const engine = await openEmbedded({ dataDir: torn });
      expect((await all(engine.ports.store, "t")).map((row) => row.sk)).toEqual([..."012345678"]);
      if (open === 1) await engine.ports.store.write({ put: { pk: "t", sk: "9", kind: "row" } });
      await engine.close();
    }
  }
});

test("reads a log that was cut off, up to the cut", async () => {
  const copy = await crashedFolder(10);
  const [segment] = segments(copy) as [string];
  truncateSync(segment, (frames(segment)[4] as { at: number }).at + 11);
  const engine = await openEmbedded({ dataDir: copy });
  expect((await all(engine.ports.store, "t")).map((row) => row.sk)).toEqual([..."0123"]);
  await engine.close();
});

test("refuses a log with a damaged write that was acknowledged, saying where", async () => {
  const copy = await crashedFolder(10);
  const [segment] = segments(copy) as [string];
  const { at } = frames(segment)[4] as { at: number };
  damage(segment, at + 40, Uint8Array.of(1, 2, 3, 4));
  await expect(openEmbedded({ dataDir: copy })).rejects.toMatchObject({
    code: "store.unavailable",
    message: expect.stringContaining(`${segment} is damaged at byte ${at}`),
  });
});

test("refuses a log of which an older segment is damaged or gone", async () => {
  const copy = await crashedFolder(60, 4096);
  const [first, second] = segments(copy) as [string, string];
  const without = join(folder, "without");
  cpSync(copy, without, { recursive: true });
  rmSync(segments(without)[1] as string);
  await expect(openEmbedded({ dataDir: without })).rejects.toMatchObject({ code: "store.unavailable" });
  damage(first, (frames(first).at(-1) as { at: number }).at + 30, Uint8Array.of(9, 9, 9, 9));
  await expect(openEmbedded({ dataDir: copy })).rejects.toMatchObject({
    code: "store.unavailable",
    message: expect.stringContaining("is damaged at byte"),
  });
  expect(second).toContain("log");
});

test("starts though a crash brought back a segment that a checkpoint had made needless", async () => {
  const options = { dataDir, flush: { segmentBytes: 4096 } };
  const engine = await openEmbedded(options);
  const write = async (n: number) => {
    await engine.ports.store.write({ put: { pk: "t", sk: String(n), kind: "row", text: "x".repeat(100) } });
    await engine.ports.store.settled();
  };
  for (let n = 10; n < 70; n++) await write(n);
  const [oldest] = segments(dataDir) as [string];
  const kept = readFileSync(oldest);
  await engine.checkpoint();
  expect(segments(dataDir)).not.toContain(oldest);
  for (let n = 70; n < 75; n++) await write(n);
  const copy = join(folder, "copy");
  cpSync(dataDir, copy, { recursive: true });
  await engine.close();
  writeFileSync(join(copy, "log", basename(oldest)), kept);
  const again = await openEmbedded({ ...options, dataDir: copy });
  expect(await all(again.ports.store, "t")).toHaveLength(65);
  await again.close();
});

test("a server that is killed soon after each start does not fill the disk with its log", async () => {
  let left = dataDir;
  for (let start = 1; start <= 6; start++) {
    const engine = await openEmbedded({ dataDir: left, flush: { segmentBytes: 64 * 1024 } });
    await engine.ports.store.write({ put: { pk: "t", sk: String(start), kind: "row" } });
    await engine.ports.store.settled();
    if (start === 6) {
      await expect.poll(() => segments(left).length).toBeLessThanOrEqual(2);
      expect((await all(engine.ports.store, "t")).map(({ sk }) => sk)).toEqual([..."123456"]);
    }
    const copy = join(folder, `killed-${start}`);
    cpSync(left, copy, { recursive: true });
    await engine.close();
    left = copy;
  }
});

test("refuses a folder that another process uses, naming it", async () => {
  const child = spawn(process.execPath, [join(program, "child.mjs"), dataDir, "1"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await new Promise((resolve) => child.stdout.once("data", resolve));
  await expect(openEmbedded({ dataDir })).rejects.toMatchObject({
    code: "store.locked",
    message: expect.stringContaining(`in use by process ${child.pid}`),
  });
  child.kill("SIGKILL");
  await new Promise((resolve) => child.on("close", resolve));
  await (await openEmbedded({ dataDir })).close();
});

test("refuses data of a newer format", async () => {
  await (await openEmbedded({ dataDir })).close();
  writeFileSync(join(dataDir, "format.json"), '{"format":2}');
  await expect(openEmbedded({ dataDir })).rejects.toMatchObject({ code: "store.newer_format" });
});

test("refuses a data folder that is a file", async () => {
  writeFileSync(dataDir, "");
  await expect(openEmbedded({ dataDir })).rejects.toMatchObject({
    code: "store.unavailable",
    message: expect.stringContaining("it is not a folder"),
  });
});
