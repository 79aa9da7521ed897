import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Change } from "@waggle/core";
import { afterEach, beforeEach, expect, test } from "vitest";
import { eventually } from "../../../test/support/eventually.ts";
import { manualClock } from "../../../test/support/system.ts";
import { openEmbedded } from "./index.ts";

let dataDir: string;
beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), "waggle-"));
});
afterEach(() => rmSync(dataDir, { recursive: true, force: true }));

const clock = manualClock();
const open = () => openEmbedded({ dataDir, clock });
const key = (n: number) => ({ pk: "t", sk: `row-${n}` });
const row = (n: number, afterMs: number, kind = "idempotency") => ({
  ...key(n),
  kind,
  expiresAt: clock.now() + afterMs,
});
type Opened = Awaited<ReturnType<typeof open>>;
const here = async ({ ports }: Opened, count: number) =>
  (await ports.store.batchGet(Array.from({ length: count }, (_, n) => key(n)))).map((item) => item !== undefined);

async function gone(engine: Opened, n: number): Promise<void> {
  await eventually(`row ${n} is deleted`, async () => {
    clock.advance(10_000);
    return (await engine.ports.store.get(key(n))) === undefined;
  });
}

test("deletes rows after their time, tells of it as a change, and leaves all others", async () => {
  const engine = await open();
  const seen: Change[] = [];
  engine.changes.consume("watcher", ["idempotency"], async (changes) => void seen.push(...changes));
  const { store } = engine.ports;
  await store.batchWrite([{ put: row(0, 60_000) }, { put: row(1, 3_600_000) }, { put: row(2, 60_000, "agent") }]);
  await store.batchWrite([
    { put: { ...key(3), kind: "idempotency" } },
    { put: row(4, 60_000) },
    { put: row(5, 60_000) },
  ]);
  await engine.checkpoint();
  await store.write({ update: key(4), kind: "idempotency", set: { expiresAt: clock.now() + 3_600_000 } });
  await store.write({ update: key(5), kind: "idempotency", remove: ["expiresAt"] });
  await gone(engine, 0);
  expect(await here(engine, 6)).toEqual([false, true, true, true, true, true]);
  await store.settled();
  await eventually("the change is told", () => seen.some((change) => change.new === undefined));
  expect(seen.filter((change) => change.new === undefined).map(({ key, old }) => [key, old?.kind])).toEqual([
    [key(0), "idempotency"],
  ]);
  await engine.close();
});

test("deletes what expired while it was stopped, and what a crash left half done", async () => {
  const first = await open();
  const many = 200;
  await first.ports.store.batchWrite(Array.from({ length: many }, (_, n) => ({ put: row(n, 60_000) })));
  await first.checkpoint();
  await first.close();
  clock.advance(3_600_000);
  const second = await open();
  await gone(second, many - 1);
  await second.close();
  const third = await open();
  expect(await here(third, 100)).toEqual(Array(100).fill(false));
  expect(third.ports.disk?.().tableBytes).toBeGreaterThan(0);
  await third.close();
});

test("deletes what expired though the clock is set back in the midst of it", async () => {
  let backMs = 0;
  const engine = await openEmbedded({ dataDir, clock: { ...clock, now: () => clock.now() - backMs } });
  const many = 64;
  await engine.ports.store.batchWrite(Array.from({ length: many }, (_, n) => ({ put: row(n, 60_000) })));
  await engine.checkpoint();
  const pass = async (ms: number) => {
    clock.advance(ms);
    await new Promise((resolve) => setImmediate(resolve));
  };
  // It deletes half of them at most, and makes a pause.
  while ((await here(engine, 1))[0]) await pass(5_000);
  expect((await here(engine, many)).at(-1)).toBe(true);
  backMs = 3_600_000;
  for (let turns = 0; turns < 100; turns++) await pass(8);
  backMs = 0;
  for (let turns = 0; turns < 20; turns++) await pass(5_000);
  expect(await here(engine, many)).toEqual(Array(many).fill(false));
  await engine.close();
});
