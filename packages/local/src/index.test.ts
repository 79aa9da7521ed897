import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { startLocal } from "./index.ts";

let dataDir: string;
beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), "waggle-local-"));
});
afterEach(() => rmSync(dataDir, { recursive: true, force: true }));

const start = () => startLocal({ dataDir, version: "1.2.3" });
const status = async (url: string, key: string) =>
  (await fetch(`${url}/v1/tasks`, { headers: { authorization: `Bearer ${key}` } })).status;

test("an admin key that a full disk or a crash left empty is made again, and locks nobody out", async () => {
  await (await start()).stop();
  const file = join(dataDir, "admin.key");
  writeFileSync(file, "");
  writeFileSync(`${file}.draft`, "half");
  chmodSync(`${file}.draft`, 0o644);
  const server = await start();
  expect(server.adminKey).not.toBe("");
  expect(readFileSync(file, "utf8")).toBe(`${server.adminKey}\n`);
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(await status(server.url, server.adminKey)).toBe(200);
  await server.stop();
  const again = await start();
  expect(again.adminKey).toBe(server.adminKey);
  await again.stop();
});

test("secrets of webhooks are never encrypted with an empty key", async () => {
  writeFileSync(join(dataDir, "secret.key"), "");
  const server = await start();
  const key = server.engine.ports.outbound.secretKey();
  expect(key).toMatch(/^[\w-]{43}$/);
  expect(server.engine.ports.outbound.secretKey()).toBe(key);
  await server.stop();
});

test("a server that cannot note where it runs says so, and serves", async () => {
  symlinkSync(join(dataDir, "nowhere", "server.json"), join(dataDir, "server.json"));
  const lines: string[] = [];
  const server = await startLocal({ dataDir, version: "1.2.3", log: (line) => lines.push(line) });
  expect(lines).toEqual([expect.stringContaining("server.json: ENOENT")]);
  expect(await status(server.url, server.adminKey)).toBe(200);
  await server.stop();
});

test("a server starts on a disk that is full to the last block, and reads", async (context) => {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return context.skip("a small disk needs root on Linux");
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=40m", "tmpfs", dataDir], { stdio: "ignore" });
  } catch {
    return context.skip("this system lets nobody mount");
  }
  try {
    await (await start()).stop();
    const { bavail, bsize } = statfsSync(dataDir);
    writeFileSync(join(dataDir, "ballast"), Buffer.alloc(bavail * bsize));
    expect(statfsSync(dataDir).bavail).toBe(0);
    const server = await start();
    expect(await status(server.url, server.adminKey)).toBe(200);
    rmSync(join(dataDir, "ballast"));
    await server.stop();
    expect(existsSync(join(dataDir, "server.json"))).toBe(false);
  } finally {
    execFileSync("umount", ["--lazy", dataDir]);
  }
});
