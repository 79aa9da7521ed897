import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { defaultUrl, findConnection, type Surroundings } from "./discover.ts";
import { normalUrl } from "./url.ts";

let root: string;
let around: Surroundings;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "waggle-find-"));
  for (const dir of ["home", "project/deep/er"]) mkdirSync(join(root, dir), { recursive: true });
  around = { env: {}, cwd: join(root, "project/deep/er"), home: join(root, "home") };
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const dataFolder = (dir: string, url: string, key: string) => {
  mkdirSync(join(root, dir), { recursive: true });
  writeFileSync(join(root, dir, "server.json"), JSON.stringify({ url, pid: 1 }));
  writeFileSync(join(root, dir, "admin.key"), `${key}\n`);
};
const config = (settings: object) => {
  mkdirSync(join(root, "home/.waggle"), { recursive: true });
  writeFileSync(join(root, "home/.waggle/config.json"), JSON.stringify(settings));
};

test("finds the server of the nearest data folder upwards, and its key", () => {
  dataFolder("project/.waggle", "http://127.0.0.1:1111", "wgk_project");
  dataFolder("home/.waggle", "http://127.0.0.1:2222", "wgk_home");
  expect(findConnection({}, around)).toMatchObject({ url: "http://127.0.0.1:1111", key: "wgk_project" });
});

test("finds the server of the home folder from anywhere", () => {
  dataFolder("home/.waggle", "http://127.0.0.1:2222", "wgk_home");
  expect(findConnection({}, around)).toMatchObject({ url: "http://127.0.0.1:2222", key: "wgk_home" });
});

test("prefers what is given, then the environment, then the configuration, then the data folder", () => {
  dataFolder("project/.waggle", "http://folder", "wgk_folder");
  expect(findConnection({}, around).url).toBe("http://folder");
  config({ url: "http://config", key: "wgk_config" });
  expect(findConnection({}, around)).toMatchObject({ url: "http://config", key: "wgk_config" });
  const env = { WAGGLE_URL: "http://env", WAGGLE_API_KEY: "wgk_env" };
  expect(findConnection({}, { ...around, env })).toMatchObject({ url: "http://env", key: "wgk_env" });
  expect(findConnection({ url: "http://given", key: "wgk_given" }, { ...around, env })).toMatchObject({
    url: "http://given",
    key: "wgk_given",
  });
});

test("never sends the key of one place to the server of another", () => {
  dataFolder("project/.waggle", "http://folder", "wgk_folder");
  config({ url: "http://config", key: "wgk_config" });
  expect(findConnection({ url: "http://elsewhere" }, around).key).toBeUndefined();
  expect(findConnection({}, { ...around, env: { WAGGLE_URL: "http://elsewhere" } }).key).toBeUndefined();
});

test("uses the key of a place for its own server, however that was named", () => {
  dataFolder("project/.waggle", "http://127.0.0.1:1111", "wgk_folder");
  expect(findConnection({ url: "http://127.0.0.1:1111/" }, around).key).toBe("wgk_folder");
});

test("finds a running server from any folder, the newest first, and its key by its address", () => {
  const note = (pid: number, port: number, startedAt: string) => {
    const dataDir = join(root, `data-${port}`);
    mkdirSync(dataDir);
    writeFileSync(join(dataDir, "admin.key"), `wgk_${port}\n`);
    mkdirSync(join(root, "home/.waggle/running"), { recursive: true });
    const text = JSON.stringify({ url: `http://127.0.0.1:${port}`, dataDir, startedAt });
    writeFileSync(join(root, `home/.waggle/running/${pid}.json`), text);
  };
  note(process.ppid, 1111, "2026-01-01T00:00:00.000Z");
  note(process.pid, 2222, "2026-01-02T00:00:00.000Z");
  // Above every id there can be: https://www.man7.org/linux/man-pages/man5/proc_sys_kernel.5.html
  note(2 ** 22 + 1, 3333, "2026-01-03T00:00:00.000Z");
  expect(findConnection({}, around)).toMatchObject({ url: "http://127.0.0.1:2222", key: "wgk_2222" });
  expect(findConnection({ url: "http://127.0.0.1:1111" }, around).key).toBe("wgk_1111");
  expect(findConnection({ url: "http://127.0.0.1:3333" }, around).key).toBeUndefined();
  dataFolder("project/.waggle", "http://127.0.0.1:4444", "wgk_project");
  expect(findConnection({}, around)).toMatchObject({ url: "http://127.0.0.1:4444", key: "wgk_project" });
});

test("takes localhost for the server whose key it has, and for no other", () => {
  dataFolder("project/.waggle", "http://127.0.0.1:1111", "wgk_folder");
  const found = (url: string) => findConnection({ url }, around);
  expect(found("http://localhost:1111")).toMatchObject({ url: "http://127.0.0.1:1111", key: "wgk_folder" });
  expect(found("http://localhost:2222")).toMatchObject({ url: "http://localhost:2222", key: undefined });
  expect(found("http://localhost.example:1111").key).toBeUndefined();
  config({ url: "http://localhost:1111", key: "wgk_config" });
  expect(findConnection({}, around)).toMatchObject({ url: "http://127.0.0.1:1111", key: "wgk_config" });
});

test("falls back to where a server listens by default, and says that no key was found", () => {
  expect(findConnection({}, around)).toMatchObject({ url: defaultUrl, key: undefined, source: { key: "none found" } });
});

test("keeps working beside a broken configuration or server file", () => {
  dataFolder("project/.waggle", "http://folder", "wgk_folder");
  writeFileSync(join(root, "project/.waggle/server.json"), "{");
  mkdirSync(join(root, "home/.waggle"), { recursive: true });
  writeFileSync(join(root, "home/.waggle/config.json"), "null");
  expect(findConnection({}, around)).toMatchObject({ url: defaultUrl, key: "wgk_folder" });
});

test("takes addresses with a trailing slash or /v1, and refuses what is none", () => {
  expect(normalUrl("http://host:1/")).toBe("http://host:1");
  expect(normalUrl("https://host/waggle/v1/")).toBe("https://host/waggle");
  expect(() => normalUrl("host:9244")).toThrow(/not a server address/);
  expect(() => normalUrl("nonsense")).toThrow(/not a server address/);
});
