import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { lines, makeRepository, type Repository } from "./repository.ts";

const home = fileURLToPath(new URL("..", import.meta.url));
const dist = join(home, ".cache", `test-${process.pid}`);
let sample: Repository;
const started: ChildProcess[] = [];
const folders: string[] = [];

beforeAll(async () => {
  await build({
    absWorkingDir: home,
    entryPoints: ["src/start.ts", "src/agent.ts"],
    outdir: dist,
    bundle: true,
    splitting: true,
    platform: "node",
    format: "esm",
    target: "node20",
    conditions: ["source"],
    outExtension: { ".js": ".mjs" },
    external: ["lmdb", "bufferutil", "utf-8-validate"],
    logLevel: "error",
    banner: {
      js: 'import { createRequire as __createRequire } from "node:module"; const require = __createRequire(import.meta.url);',
    },
  });
  sample = makeRepository();
  for (let round = 0; round < 6; round += 1)
    sample.commit(
      Object.fromEntries(
        Array.from({ length: 90 }, (_, n) => [
          `src/part${n % 6}/file${n}.ts`,
          lines(60 + round * 5, (i) => `export const value${n}x${i} = ${i * (n % 7)};`),
        ]),
      ),
    );
});
afterAll(() => {
  sample.remove();
  rmSync(dist, { recursive: true, force: true });
});
afterEach(async () => {
  for (const child of started.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await gone;
  }
  for (const path of folders.splice(0)) rmSync(path, { recursive: true, force: true });
});

const folder = () => {
  const path = mkdtempSync(join(sample.root, "run-"));
  folders.push(path);
  return path;
};
const start = (args: string[], cwd = sample.path) => {
  const { INIT_CWD: _, npm_lifecycle_event: __, ...env } = process.env;
  const child = spawn(process.execPath, [join(dist, "start.mjs"), ...args], {
    cwd,
    env,
    stdio: ["ignore", "pipe", "pipe"],
  });
  started.push(child);
  const run = { child, out: "", err: "", seen: new Set<() => void>() };
  const told = () => {
    for (const look of run.seen) look();
  };
  child.stdout.on("data", (chunk: Buffer) => {
    run.out += chunk.toString();
    told();
  });
  child.stderr.on("data", (chunk: Buffer) => {
    run.err += chunk.toString();
  });
  const exit = new Promise<number | null>((resolve) => child.once("close", (code) => resolve(code)));
  /** Resolves with the match once the output has it. */
  const until = (pattern: RegExp) =>
    new Promise<RegExpExecArray>((resolve, reject) => {
      const look = () => {
        const match = pattern.exec(run.out);
        if (!match) return;
        run.seen.delete(look);
        resolve(match);
      };
      run.seen.add(look);
      look();
      exit.then((code) => reject(new Error(`ended with ${code} before ${pattern}\n${run.out}\n${run.err}`)));
    });
  return Object.assign(run, { exit, until });
};
const alive = (pid: number) => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};
const pidsIn = (out: string) =>
  [.../each a process: (.*)/.exec(out)![1]!.matchAll(/([\w-]+) (\d+)/g)].map(
    (match) => [match[1]!, Number(match[2])] as const,
  );

describe("npm start", { timeout: 60_000 }, () => {
  it("with --once writes both reports without a key in them, says who did what, and exits 0", async () => {
    const data = folder();
    const run = start(["--once", "--data", join(data, "d"), "--out", data, "--port", "0"]);
    expect(await run.exit, run.out + run.err).toBe(0);
    expect(readFileSync(join(data, "waggle-report.html"), "utf8")).toContain("How this was made");
    expect(readFileSync(join(data, "waggle-report.md"), "utf8")).toContain("# sample: repository health");
    expect(new Set(pidsIn(run.out).map(([, pid]) => pid)).size).toBeGreaterThanOrEqual(5);
    expect(run.out).toMatch(/WAITED p50 \/ max +RAN p50 \/ max +BY/);
    expect(run.out).toMatch(/\n {2}ownership +\d+ .*historian-/);
    for (const [name, pid] of pidsIn(run.out)) expect(alive(pid), name).toBe(false);
    const written = readdirSync(data, { recursive: true, withFileTypes: true }).filter(
      (entry) => entry.isFile() && entry.name !== "admin.key",
    );
    const texts = written.map((entry) => readFileSync(join(entry.parentPath, entry.name), "latin1"));
    for (const text of [run.out, run.err, ...texts]) expect(text).not.toMatch(/wg[ak]_[A-Za-z0-9_-]{27}/);
  });

  it("writes its report though nobody reads on what it says", async () => {
    const data = folder();
    const run = start(["--once", "--data", join(data, "d"), "--out", data, "--port", "0"]);
    await run.until(/registered/);
    run.child.stdout?.destroy();
    expect(await run.exit, run.err).toBe(0);
    expect(readFileSync(join(data, "waggle-report.html"), "utf8")).toContain("How this was made");
  });

  it("heals when an agent is killed in the middle of its work, and says so", async () => {
    const data = folder();
    const run = start(["--once", "--chaos", "--data", join(data, "d"), "--out", data, "--port", "0"]);
    expect(await run.exit, run.out + run.err).toBe(0);
    const [, pid] = /chaos: kill -9 (\d+) \(([\w-]+)\)/.exec(run.out)!;
    expect(run.out).toMatch(new RegExp(`\\(pid ${pid}\\) was killed \\(SIGKILL\\) with \\d+ tasks? in hand`));
    expect(run.out).toMatch(
      new RegExp(
        `healed: [\\w-]+ \\(pid ${pid}\\) was killed \\(SIGKILL\\); its (\\d+ )?tasks? went back to the queue and w(as|ere) done by`,
      ),
    );
    expect(readFileSync(join(data, "waggle-report.html"), "utf8")).toContain("Healed on the way");
  });

  it("stays up after the report, restarts what is killed then too, and stops cleanly on SIGINT", async () => {
    const data = folder();
    const run = start(["--data", join(data, "d"), "--out", data, "--port", "0"]);
    const [, url] = await run.until(/The server stays up at (http:\/\/127\.0\.0\.1:\d+)/);
    expect((await fetch(`${url}/health`)).status).toBe(200);
    const pids = pidsIn(run.out);
    const [, auditor] = pids.find(([name]) => name === "auditor")!;
    process.kill(auditor, "SIGKILL");
    const [, again] = await run.until(/healed: auditor .* while idle; it was back as pid (\d+)/);
    expect(alive(Number(again))).toBe(true);
    // A second run on the same folder uses the server that is there.
    const second = start(["--once", "--data", join(data, "d"), "--out", data]);
    expect(await second.exit, second.out + second.err).toBe(0);
    expect(second.out).toContain("a server was running on this data folder already; it is used");
    expect((await fetch(`${url}/health`)).status).toBe(200);
    run.child.kill("SIGINT");
    expect(await run.exit).toBe(0);
    for (const pid of [...pids.map(([, pid]) => pid), Number(again)]) expect(alive(pid)).toBe(false);
    await expect(fetch(`${url}/health`)).rejects.toThrow();
    expect(existsSync(join(data, "d", "server.json"))).toBe(false);
  });

  it.each([
    [[], 0, ""],
    [["--once"], 130, "waggle: stopped before the report was written\n"],
  ])("stops in the middle on SIGINT, with %j as exit code %i", async (args, code, message) => {
    const data = folder();
    const run = start([...args, "--data", join(data, "d"), "--out", data, "--port", "0"]);
    await run.until(/tasks delegated/);
    run.child.kill("SIGINT");
    expect(await run.exit, run.out + run.err).toBe(code);
    expect(run.err).toBe(message);
    for (const [name, pid] of pidsIn(run.out)) expect(alive(pid), name).toBe(false);
  });

  it("leaves no agent behind when it is killed itself, and the next run begins afresh", async () => {
    const data = folder();
    const args = ["--once", "--data", join(data, "d"), "--out", data, "--port", "0"];
    const first = start(args);
    await first.until(/tasks delegated/);
    first.child.kill("SIGKILL");
    await first.exit;
    const pids = pidsIn(first.out).map(([, pid]) => pid);
    const deadline = Date.now() + 10_000;
    while (pids.some(alive) && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 50));
    expect(pids.filter(alive)).toEqual([]);
    const second = start(args);
    expect(await second.exit, second.out + second.err).toBe(0);
  });

  it.each([
    [["--repo", "/nowhere/at/all"], /does not exist/],
    [["--bogus"], /Unknown option '--bogus'/],
    [["--port", "x"], /--port needs a number/],
    [["stray"], /Unexpected argument 'stray'/],
  ])("refuses %j in one line with exit code 2", async (args, reason) => {
    const run = start(args);
    expect(await run.exit).toBe(2);
    expect(run.err).toMatch(reason);
    expect(run.err.trim().split("\n")).toHaveLength(1);
  });

  it("says in one line that the folder is no repository, and how to give another", async () => {
    const run = start(["--once"], "/");
    expect(await run.exit).toBe(2);
    expect(run.err).toMatch(/not in a git repository; give one with --repo PATH/);
  });

  it("tells in words which of its places cannot be used", async () => {
    const data = folder();
    const other = createServer();
    await once(other.listen(0, "127.0.0.1"), "listening");
    const taken = String((other.address() as AddressInfo).port);
    const file = start(["--once", "--data", data, "--out", process.execPath]);
    const port = start(["--once", "--data", data, "--out", data, "--port", taken]);
    expect([await file.exit, await port.exit]).toEqual([2, 1]);
    expect(file.err).toContain("is not a folder");
    expect(port.err).toContain(`port ${taken} is taken`);
    other.close();
  });

  it("tells its options", async () => {
    const run = start(["--help"]);
    expect(await run.exit).toBe(0);
    for (const option of ["--repo", "--once", "--port", "--data", "--out", "--chaos"])
      expect(run.out).toContain(option);
  });
});
