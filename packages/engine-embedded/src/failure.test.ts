import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Clock, outboxKinds, relay } from "@waggle/core";
import { afterEach, beforeEach, expect, test } from "vitest";
import { manualClock } from "../../../test/support/system.ts";
import { openOn } from "./engine.ts";
import { openEmbedded } from "./index.ts";
import { diskFiles, type LogFiles } from "./log.ts";
import { openRows, type Rows } from "./rows.ts";

let folder: string;
let dataDir: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "waggle-failure-"));
  dataDir = join(folder, "data");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Waited for until somebody opens it. */
function gate() {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open: () => open() };
}

/** A disk whose writes fail while `broken` says so; `reached`: although the bytes arrived. */
function fragileDisk() {
  const disk = { broken: false, reached: false };
  const files: LogFiles = {
    async write(fd, bytes, length, at) {
      if (!disk.broken || disk.reached) await diskFiles.write(fd, bytes, length, at);
      if (disk.broken) throw Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });
    },
    fill: diskFiles.fill,
  };
  return { disk, files };
}

for (const reached of [false, true]) {
  test(`takes back what a failed write decided, and goes on when the disk does (bytes on disk: ${reached})`, async () => {
    const { disk, files } = fragileDisk();
    const engine = await openEmbedded({ dataDir, flush: { files } });
    const { store, queues } = engine.ports;
    let resets = 0;
    engine.onReset(() => resets++);
    const changed: string[] = [];
    engine.changes.consume("watch", ["row"], async (changes) => {
      for (const change of changes) changed.push(`${change.key.sk}=${change.new?.n}`);
    });
    await store.write({ put: { pk: "t", sk: "kept", kind: "row", n: 1 } });
    await queues.timers.send([{ body: "kept" }]);
    await store.settled();

    disk.broken = true;
    disk.reached = reached;
    const generation = store.generation();
    await store.write({ update: { pk: "t", sk: "kept" }, kind: "row", set: { n: 2 } });
    await store.write({ put: { pk: "t", sk: "lost", kind: "row", n: 1 } });
    const [message] = await queues.timers.receive({ max: 1 });
    await queues.timers.ack([message!.receipt]);
    await queues.timers.send([{ body: "lost" }]);
    let delivered = 0;
    engine.ports.live.subscribe("news", () => delivered++);
    engine.ports.live.publish("news", "lost");
    await expect(store.settled()).rejects.toMatchObject({ code: "store.unavailable" });
    expect(resets).toBe(1);
    expect(await store.get({ pk: "t", sk: "kept" })).toMatchObject({ n: 1 });
    expect(await store.get({ pk: "t", sk: "lost" })).toBeUndefined();
    expect(await queues.timers.depth()).toEqual({ waiting: 1, inFlight: 0, delayed: 0, dead: 0 });

    disk.broken = false;
    // Whoever wrote before the failure and asks only now must not be told that it is safe.
    await expect(store.settled(generation)).rejects.toMatchObject({ code: "store.unavailable" });
    await store.write({ put: { pk: "t", sk: "later", kind: "row", n: 3 } });
    await store.settled();
    expect(delivered).toBe(0);
    const copy = join(folder, "copy");
    cpSync(dataDir, copy, { recursive: true });
    await engine.close();
    for (const left of [copy, dataDir]) {
      const again = await openEmbedded({ dataDir: left });
      const { items } = await again.ports.store.query({ pk: "t", limit: 10 });
      expect(items.map((row) => [row.sk, row.n])).toEqual([
        ["kept", 1],
        ["later", 3],
      ]);
      expect((await again.ports.queues.timers.receive({ max: 10 })).map((each) => each.body)).toEqual(["kept"]);
      await again.close();
    }
    expect(changed).toContain("later=3");
  });
}

/** Rows that cannot be written until its disk has room. */
function fullTable(): { rows: Rows; disk: { full: boolean } } {
  mkdirSync(dataDir);
  const table = openRows(join(dataDir, "table"));
  const disk = { full: true };
  return {
    disk,
    rows: {
      ...table,
      async commit(batch) {
        if (disk.full) throw new Error("ENOSPC: no space left on device");
        await table.commit(batch);
      },
    },
  };
}

test("a message that is done while memory goes back to what is on disk is there again, even after a crash", async () => {
  mkdirSync(dataDir);
  const table = openRows(join(dataDir, "table"));
  const [checkpoints, begins, ends, again] = [gate(), gate(), gate(), gate()];
  const rows: Rows = {
    ...table,
    async commit(batch) {
      await checkpoints.opened;
      await table.commit(batch);
    },
  };
  const { disk, files } = fragileDisk();
  const engine = openOn({ dataDir, flush: { files } }, dataDir, rows, () => {});
  const { store, queues } = engine.ports;
  const put = (sk: string) => store.write({ put: { pk: "t", sk, kind: "row" } });
  let calls = 0;
  let refused = Promise.resolve();
  engine.queueFeed.consume("timers", { batch: 1, concurrency: 1 }, async () => {
    if (++calls > 1) await again.opened;
    await begins.opened;
    await put("what the message is for");
    refused = store.settled();
    refused.catch(() => {});
    await ends.opened;
    return { failed: [] };
  });
  await queues.timers.send([{ body: "due" }]);
  await store.settled();
  await expect.poll(() => calls).toBe(1);

  // Memory goes back only once the checkpoint under way has ended.
  const checkpoint = engine.checkpoint();
  disk.broken = true;
  begins.open();
  const isShut = () => store.get({ pk: "t", sk: "any" }).then(Boolean, () => "shut");
  await expect.poll(isShut).toBe("shut");
  ends.open();
  await new Promise((resolve) => setImmediate(resolve));
  disk.broken = false;
  checkpoints.open();
  await expect(refused).rejects.toMatchObject({ code: "store.unavailable" });
  // The next frame takes along what was decided before it.
  await put("later");
  await store.settled();
  await checkpoint;
  await expect.poll(() => calls).toBe(2);
  const copy = join(folder, "copy");
  cpSync(dataDir, copy, { recursive: true });
  const crashed = await openEmbedded({ dataDir: copy });
  const { items } = await crashed.ports.store.query({ pk: "t", limit: 10 });
  expect(items.map(({ sk }) => sk)).toEqual(["later"]);
  expect(await crashed.ports.queues.timers.depth()).toMatchObject({ waiting: 1 });
  await crashed.close();
  again.open();
  await engine.close();
});

test("whoever reads once memory is what is on disk again finds all that is derived from it, though deriving failed meanwhile", async () => {
  mkdirSync(dataDir);
  const table = openRows(join(dataDir, "table"));
  const checkpoints = gate();
  const rows: Rows = {
    ...table,
    async commit(batch) {
      await checkpoints.opened;
      await table.commit(batch);
    },
  };
  const { disk, files } = fragileDisk();
  // Its time stands still: what waits for its next try waits for ever.
  const engine = openOn({ dataDir, clock: manualClock() as Clock, flush: { files } }, dataDir, rows, () => {});
  const { store } = engine.ports;
  const put = (sk: string) => store.write({ put: { pk: "t", sk, kind: "row" } });
  engine.changes.project(
    "mirror",
    ["row"],
    () => "",
    async (changes) => {
      await store.get({ pk: "t", sk: "any" });
      return { once: [], again: changes.map(({ key }) => ({ put: { ...key, pk: "mirror", kind: "mirrored" } })) };
    },
  );
  const mirrored = async () => {
    await store.projected();
    return (await store.query({ pk: "mirror", limit: 10 })).items.map(({ sk }) => sk);
  };
  await put("kept");
  await store.settled();
  const checkpoint = engine.checkpoint();
  expect(await mirrored()).toEqual(["kept"]);

  disk.broken = true;
  await put("lost");
  const refused = expect(store.settled()).rejects.toMatchObject({ code: "store.unavailable" });
  const isShut = () => store.get({ pk: "t", sk: "any" }).then(Boolean, () => "shut");
  await expect.poll(isShut).toBe("shut");
  await expect(mirrored()).rejects.toMatchObject({ code: "store.unavailable" });
  disk.broken = false;
  checkpoints.open();
  await refused;
  expect(await mirrored()).toEqual(["kept"]);
  await checkpoint;
  await engine.close();
});

test("moves rows into the table by itself once the disk takes them, though the log failed meanwhile as well", async () => {
  const { rows, disk: table } = fullTable();
  const clock = manualClock();
  const { disk, files } = fragileDisk();
  const flush = { files, checkpointBytes: 64 * 1024 };
  const engine = openOn({ dataDir, clock: clock as Clock, flush }, dataDir, rows, () => {});
  const { store, backlog } = engine.ports;
  const put = (n: number) => store.write({ put: { pk: "t", sk: String(n), kind: "row", text: "x".repeat(2000) } });
  for (let n = 0; n < 30; n++) {
    await put(n);
    await store.settled();
  }
  // The next try comes while a write is under way, and goes down with it.
  disk.broken = true;
  await put(30);
  const refused = expect(store.settled()).rejects.toMatchObject({ code: "store.unavailable" });
  clock.advance(1000);
  await refused;
  disk.broken = false;
  table.full = false;
  expect(backlog?.().bytes).toBeGreaterThan(0);
  await expect
    .poll(() => {
      clock.advance(1000);
      return backlog?.().bytes;
    })
    .toBe(0);
  await engine.close();
});

test("tells of a disk that takes nothing, once until it does again, and of every follower of changes that fails", async () => {
  const { disk, files } = fragileDisk();
  const told: string[] = [];
  const onError = (component: string, error: unknown) => told.push(`${component}: ${(error as Error).message}`);
  const engine = await openEmbedded({ dataDir, flush: { files }, onError });
  const { store } = engine.ports;
  const write = async (kind: string) => {
    await store.write({ put: { pk: "t", sk: kind, kind } });
    await store.settled();
  };
  for (const sickness of [1, 2]) {
    disk.broken = true;
    for (let n = 0; n < 3; n++) await expect(write("row")).rejects.toMatchObject({ code: "store.unavailable" });
    disk.broken = false;
    await write("row");
    expect(told).toEqual(Array(sickness).fill("log: ENOSPC: no space left on device, write"));
  }
  let failed = false;
  engine.changes.consume("follower", ["followed"], async () => {
    if (failed) return;
    failed = true;
    throw new Error("not yet");
  });
  await write("followed");
  await expect.poll(() => told.at(-1)).toBe("follower: not yet");
  await engine.close();
});

test("where there is no room for the next segment of the log, it is not looked for at every write", async () => {
  let fills = 0;
  const files: LogFiles = {
    write: diskFiles.write,
    async fill(path, bytes) {
      if (++fills > 1) throw Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC" });
      await diskFiles.fill(path, bytes);
    },
  };
  const engine = await openEmbedded({ dataDir, flush: { files, segmentBytes: 16 * 1024 } });
  const write = async (sk: number) => {
    await engine.ports.store.write({ put: { pk: "t", sk: String(sk), kind: "row", text: "x".repeat(100) } });
    await engine.ports.store.settled();
  };
  for (let n = 0; n < 75; n++) await write(n);
  expect(fills).toBe(2);
  const full = async () => {
    for (let n = 75; n < 200; n++) await write(n);
  };
  await expect(full()).rejects.toMatchObject({ code: "store.unavailable" });
  expect(fills).toBe(3);
  await engine.close();
});

test("a payload is there for as long as a row on disk names it", async () => {
  const { disk, files } = fragileDisk();
  const engine = await openEmbedded({ dataDir, flush: { files } });
  const { store, blobs } = engine.ports;
  const key = { pk: "t", sk: "task" };
  await blobs.put("input", Buffer.from("{}"));
  await store.write({ put: { ...key, kind: "task", tenant: "acme", id: "tsk_1", inputBlob: "input" } });
  await store.settled();
  engine.changes.consume("outbox", outboxKinds, (changes) => relay(engine.ports, changes));

  disk.broken = true;
  await store.write({ delete: key });
  await expect(store.settled()).rejects.toMatchObject({ code: "store.unavailable" });
  disk.broken = false;
  // Whatever was begun ends.
  await engine.close();

  const { ports, changes, close } = await openEmbedded({ dataDir });
  expect(await ports.store.get(key)).toMatchObject({ inputBlob: "input" });
  expect(await ports.blobs.get("input")).toEqual(Buffer.from("{}"));
  changes.consume("outbox", outboxKinds, (each) => relay(ports, each));
  await ports.store.write({ delete: key });
  await expect.poll(() => ports.blobs.get("input")).toBeUndefined();
  await close();
});

test("goes on by itself once rows can be written to disk again, and gives up no message meanwhile", async () => {
  const { rows, disk: table } = fullTable();
  const clock = manualClock();
  const flush = { checkpointBytes: 64 * 1024, segmentBytes: 128 * 1024 };
  const engine = openOn({ dataDir, clock: clock as Clock, flush }, dataDir, rows, () => {});
  const { store, queues } = engine.ports;
  const write = async (sk: string) => {
    await store.write({ put: { pk: "t", sk, kind: "row", text: "x".repeat(2000) } });
    await store.settled();
  };
  const handled: unknown[] = [];
  engine.queueFeed.consume("timers", { batch: 1, concurrency: 1 }, async ([message]) => {
    await write("by a message");
    handled.push(message?.body);
    return { failed: [] };
  });
  const refused = async () => {
    for (let n = 0; n < 20_000; n++) await write(String(n));
  };
  await expect(refused()).rejects.toMatchObject({ code: "store.unavailable" });
  await queues.timers.send([{ body: "due", delaySeconds: 5 }]);
  const pass = async (seconds: number) => {
    for (let left = seconds; left > 0; left--) {
      clock.advance(1000);
      for (let turns = 0; turns < 20; turns++) await new Promise((resolve) => setImmediate(resolve));
    }
  };
  await pass(120);
  expect(handled).toEqual([]);
  expect(await queues.timers.depth()).toMatchObject({ dead: 0 });
  table.full = false;
  await pass(3);
  await write("after");
  await expect.poll(() => handled).toEqual(["due"]);
  await engine.close();
});

test("refuses writes on a full disk, loses nothing acknowledged, and goes on once there is room", async (context) => {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return context.skip("a small disk needs root on Linux");
  const disk = join(folder, "disk");
  mkdirSync(disk);
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=6m", "tmpfs", disk], { stdio: "ignore" });
  } catch {
    return context.skip("this system lets nobody mount");
  }
  try {
    const options = { dataDir: join(disk, "data"), flush: { segmentBytes: 128 * 1024, checkpointBytes: 128 * 1024 } };
    const engine = await openEmbedded(options);
    const { store } = engine.ports;
    const ballast = join(disk, "ballast");
    const { bavail, bsize } = statfsSync(disk);
    writeFileSync(ballast, Buffer.alloc(bavail * bsize - 600 * 1024));
    const acknowledged: number[] = [];
    let refused = 0;
    for (let n = 0; refused < 3 && n < 20_000; n++) {
      try {
        await store.write({ put: { pk: "t", sk: String(n), kind: "row", text: "x".repeat(2000) } });
        await store.settled();
        acknowledged.push(n);
      } catch (error) {
        expect(error).toMatchObject({ code: "store.unavailable" });
        refused++;
      }
    }
    expect(refused).toBe(3);
    for (const n of acknowledged) expect(await store.get({ pk: "t", sk: String(n) })).toBeDefined();
    rmSync(ballast);
    await expect
      .poll(async () => {
        await store.write({ put: { pk: "t", sk: "after", kind: "row" } });
        await store.settled();
        return true;
      })
      .toBe(true);
    await engine.close();
    const again = await openEmbedded(options);
    for (const n of acknowledged) expect(await again.ports.store.get({ pk: "t", sk: String(n) })).toBeDefined();
    expect(await again.ports.store.get({ pk: "t", sk: "after" })).toBeDefined();
    await again.close();

    const { bavail: left } = statfsSync(disk);
    writeFileSync(ballast, Buffer.alloc(left * bsize));
    await expect(openEmbedded({ dataDir: join(disk, "other") })).rejects.toMatchObject({ code: "store.unavailable" });
  } finally {
    execFileSync("umount", ["--lazy", disk]);
  }
});
