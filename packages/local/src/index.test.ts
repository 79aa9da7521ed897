import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
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

test("a server that cannot say where it runs stops as a whole, and the folder is free", async () => {
  mkdirSync(join(dataDir, "server.json"));
  await expect(start()).rejects.toMatchObject({ code: "EISDIR" });
  rmSync(join(dataDir, "server.json"), { recursive: true, force: true });
  const server = await start();
  expect(existsSync(join(dataDir, "server.json"))).toBe(true);
  await server.stop();
});
