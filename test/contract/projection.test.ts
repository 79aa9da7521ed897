import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Change, Derived, Store, Update } from "@waggle/core";
import { projectRecords, type StreamRecord } from "@waggle/engine-aws";
import { type EmbeddedEngine, openEmbedded } from "@waggle/engine-embedded";
import fc from "fast-check";
import { afterEach, beforeEach, expect, test } from "vitest";

let dataDir: string;
let engine: EmbeddedEngine;
let store: Store;
beforeEach(async () => {
  dataDir = mkdtempSync(join(tmpdir(), "waggle-project-"));
  engine = await openEmbedded({ dataDir });
  store = engine.ports.store;
});
afterEach(async () => {
  await engine.close();
  rmSync(dataDir, { recursive: true, force: true });
});

const record = (pk: string, sk: string, position: number): StreamRecord => {
  const Keys = { pk: { S: pk }, sk: { S: sk } };
  return { dynamodb: { Keys, SequenceNumber: String(position), NewImage: { ...Keys, kind: { S: "row" } } } };
};
const nameOf = ({ dynamodb: { Keys, SequenceNumber } = {} }: StreamRecord) =>
  `${Keys?.pk?.S}/${Keys?.sk?.S}/${SequenceNumber}`;
const tenantOf = ({ key }: Change) => key.pk.slice(0, key.pk.indexOf("#"));
const sums = (group: string): Update["update"] => ({ pk: `${group}#sum`, sk: "sum" });
/** Counts changes, and gives each a number as the event log does. */
const derive = async (changes: readonly Change[]): Promise<Derived> => {
  const group = tenantOf(changes[0] as Change);
  const last = (await store.get({ pk: `${group}#log`, sk: "head" }))?.last as number | undefined;
  const first = (last ?? 0) + 1;
  return {
    once: [
      { update: sums(group), kind: "sum", add: { n: changes.length } },
      { update: { pk: `${group}#log`, sk: "head" }, kind: "head", set: { last: first + changes.length - 1 } },
      {
        put: {
          pk: `${group}#log`,
          sk: `row${String(first).padStart(6, "0")}`,
          kind: "log",
          seen: changes.map(({ key, position }) => `${key.pk}/${key.sk}/${Number(position)}`),
        },
      },
    ],
    again: changes.map(({ key }) => ({ put: { pk: `${group}#list`, sk: key.sk, kind: "index" } })),
  };
};
const seen = async (group: string) => {
  const { items } = await store.query({ pk: `${group}#log`, prefix: "row", limit: 1000 });
  return items.flatMap((row) => row.seen as string[]);
};
const projection = (on: Store, by = derive) => projectRecords({ ports: { store: on } }, "views", tenantOf, by);
const apply = (changes: readonly StreamRecord[]) => projection(store)(changes);

test("each change counts once, however shards cut, repeat and cross their batches", async () => {
  let run = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.record({
          shard: fc.integer({ min: 0, max: 2 }),
          from: fc.integer({ min: 0, max: 14 }),
          length: fc.integer({ min: 1, max: 6 }),
          beside: fc.boolean(),
        }),
        { minLength: 3, maxLength: 25 },
      ),
      async (batches) => {
        const group = `t${++run}`;
        // Three shards bring rows of the same two partitions; numbers rise in each, and cross between them.
        const shards = [0, 1, 2].map((shard) =>
          Array.from({ length: 15 }, (_, n) =>
            record(`${group}#T#${n % 2}`, `s${shard}n${n % 4}`, 95 + n * 3 + shard * 2),
          ),
        );
        // A shard goes on where it was, or again from somewhere before; never with a gap.
        const read = [0, 0, 0];
        const given = new Set<string>();
        let running: Promise<void>[] = [];
        for (const { shard, from, length, beside } of batches) {
          const start = Math.min(from, read[shard] as number);
          const batch = (shards[shard] as StreamRecord[]).slice(start, start + length);
          if (batch.length === 0) continue;
          running.push(apply(batch));
          for (const each of batch) given.add(nameOf(each));
          read[shard] = Math.max(read[shard] as number, start + batch.length);
          if (beside) continue;
          await Promise.all(running);
          running = [];
        }
        await Promise.all(running);
        expect((await store.get(sums(group)))?.n).toBe(given.size);
        expect((await seen(group)).sort()).toEqual([...given].sort());
      },
    ),
    { numRuns: 25, interruptAfterTimeLimit: 8_000, markInterruptAsFailure: false },
  );
});

test("changes nothing comes of leave no row; those that cancel one another out are counted once, though they come again apart", async () => {
  // Rows called n change nothing, the others count for or against.
  const balance = async (changes: readonly Change[]): Promise<Derived> => {
    const by = changes.reduce((sum, { key }) => sum + (key.sk === "up" ? 1 : key.sk === "down" ? -1 : 0), 0);
    return { once: by === 0 ? [] : [{ update: sums("t"), kind: "sum", add: { n: by } }], again: [] };
  };
  const applied = projection(store, balance);
  const quiet = [record("t#T#1", "n", 1), record("t#T#1", "n", 2)];
  await applied(quiet);
  expect((await store.query({ pk: "t#P", limit: 10 })).items).toEqual([]);
  const [up, down] = [record("t#T#1", "up", 3), record("t#T#1", "down", 4)];
  await applied([...quiet, up, down]);
  await applied([down]);
  expect((await store.get(sums("t")))?.n ?? 0).toBe(0);
});

test("tenants of one batch are counted apart", async () => {
  const batch = [record("a#T#1", "x", 1), record("b#T#1", "x", 2), record("a#A#1", "y", 3)];
  await apply(batch);
  await apply(batch);
  expect([(await store.get(sums("a")))?.n, (await store.get(sums("b")))?.n]).toEqual([2, 1]);
});

test("a batch that makes more than a transaction takes goes in parts, each once", async () => {
  const many = async (changes: readonly Change[]): Promise<Derived> => ({
    once: [
      { update: sums("t"), kind: "sum", add: { n: changes.length } },
      ...changes.map(({ key }) => ({ update: { pk: "t#each", sk: key.sk }, kind: "sum", add: { n: 1 } })),
    ],
    again: [],
  });
  const changes = Array.from({ length: 300 }, (_, n) => record("t#T#1", `r${n}`, n + 1));
  await projection(store, many)(changes);
  await projection(store, many)(changes.slice(100));
  expect((await store.get(sums("t")))?.n).toBe(300);
  const { items } = await store.query({ pk: "t#each", limit: 1000 });
  expect(items.map((item) => item.n)).toEqual(changes.map(() => 1));
});

test("so does one whose rows are larger than a transaction may be", async () => {
  const large = async (changes: readonly Change[]): Promise<Derived> => ({
    once: [
      { update: sums("t"), kind: "sum", add: { n: changes.length } },
      ...changes.map(({ key }) => ({ put: { pk: "t#each", sk: key.sk, kind: "log", text: "x".repeat(300_000) } })),
    ],
    again: [],
  });
  const changes = Array.from({ length: 20 }, (_, n) => record("t#T#1", `r${n}`, n + 1));
  await projection(store, large)(changes);
  await projection(store, large)(changes);
  expect((await store.get(sums("t")))?.n).toBe(20);
});

test("a handler that dies after it wrote what may be repeated counts the batch once when it comes again", async () => {
  const batch = [record("t#T#1", "a", 7)];
  const dying: Store = {
    ...store,
    transact: async () => {
      throw new Error("killed");
    },
  };
  await expect(projection(dying)(batch)).rejects.toThrow("killed");
  expect((await store.query({ pk: "t#list", limit: 10 })).items.length).toBe(1);
  expect(await store.get(sums("t"))).toBeUndefined();
  await apply(batch);
  await apply(batch);
  expect((await store.get(sums("t")))?.n).toBe(1);
});

test("a batch that comes to more than a row or a call takes is applied in parts, each change once", async () => {
  const large = async (changes: readonly Change[]): Promise<Derived> => {
    const { once, again } = await derive(changes);
    const text = "x".repeat(30_000 * changes.length);
    const position = changes[0]?.position as string;
    return { once: [...once, { put: { pk: "a#large", sk: position, kind: "large", text } }], again };
  };
  const records = Array.from({ length: 20 }, (_, n) => record("a#T#0", `r${n}`, n + 1));
  await projection(store, large)(records);
  expect(await seen("a")).toEqual(records.map(nameOf));
  expect((await store.get(sums("a")))?.n).toBe(20);
});
