import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Change, Condition, Delete, Item, Put, Scalar, Value, Write } from "@waggle/core";
import fc from "fast-check";
import { expect, test } from "vitest";
import { type EmbeddedEngine, openEmbedded } from "./index.ts";

const partitions = ["t#a", "t#b", "t#a\x01"];
/** Few, so that writes meet; some sort otherwise in UTF-16 than in UTF-8. */
const sortKeys = ["a", "b", "ba", "b\x01", "c", "é", "\ue000", "\uffee", "😀", "x".repeat(1024)];
const kinds = ["seen", "unseen"];

type Rows = Map<string, Item>;
const idOf = (key: { pk: string; sk: string }) => `${key.pk}\0${key.sk}`;

const scalar: fc.Arbitrary<Scalar> = fc.oneof(fc.integer({ min: -3, max: 3 }), fc.constantFrom("x", "y", null, true));
const value: fc.Arbitrary<Value> = fc.oneof(
  scalar,
  fc.array(scalar, { maxLength: 3 }),
  fc.dictionary(fc.constantFrom("p", "q", "r"), scalar).map((each) => ({ ...each })),
);
const key = fc.record({ pk: fc.constantFrom(...partitions), sk: fc.constantFrom(...sortKeys) });
const kind = fc.constantFrom(...kinds);
const condition: fc.Arbitrary<Condition> = fc.record(
  {
    exists: fc.boolean(),
    equals: fc.record({ v: scalar }),
    oneOf: fc.record({ v: fc.array(scalar, { minLength: 1, maxLength: 3 }) }),
    missing: fc.constant(["v"]),
    lessThan: fc.record({ n: fc.integer({ min: -5, max: 20 }) }),
    sizeBelow: fc.record({ v: fc.integer({ min: 1, max: 3 }) }),
  },
  { requiredKeys: [] },
);
const guard = fc.oneof(
  { weight: 2, arbitrary: fc.constant({}) },
  { weight: 1, arbitrary: fc.record({ if: condition }) },
);
const write: fc.Arbitrary<Write> = fc.oneof(
  fc
    .tuple(key, kind, fc.dictionary(fc.constantFrom("v", "w"), value), guard)
    .map(([at, kind, more, guard]) => ({ put: { ...at, kind, ...more }, ...guard })),
  fc
    .tuple(
      key,
      kind,
      fc.record(
        {
          set: fc.dictionary(fc.constantFrom("v", "w"), value),
          add: fc.record({ n: fc.integer({ min: -3, max: 3 }) }),
          remove: fc.subarray(["w", "n"]),
        },
        { requiredKeys: [] },
      ),
      guard,
    )
    .map(([update, kind, changes, guard]) => ({ update, kind, ...changes, ...guard })),
  fc.tuple(key, guard).map(([at, guard]) => ({ delete: at, ...guard })),
);
const command = fc.oneof(
  { weight: 10, arbitrary: write.map((write) => ({ write })) },
  {
    weight: 3,
    arbitrary: fc
      .uniqueArray(write, {
        minLength: 1,
        maxLength: 4,
        selector: (each) => idOf(place(each)),
      })
      .map((transact) => ({ transact })),
  },
  {
    weight: 4,
    arbitrary: fc
      .record(
        {
          pk: fc.constantFrom(...partitions),
          from: fc.constantFrom(...sortKeys),
          to: fc.constantFrom(...sortKeys),
          prefix: fc.constantFrom("", "b", "x", "\ue000"),
          reverse: fc.boolean(),
          after: fc.constantFrom(...sortKeys),
          limit: fc.integer({ min: 1, max: 4 }),
        },
        { requiredKeys: ["pk", "limit"] },
      )
      .map(({ from, to, prefix, ...rest }) => ({
        query: { ...rest, ...(prefix !== undefined ? { prefix } : { ...(from && { from }), ...(to && { to }) }) },
      })),
  },
  { weight: 1, arbitrary: fc.constant({ settle: true }) },
  { weight: 1, arbitrary: fc.constantFrom({ checkpoint: "await" }, { checkpoint: "start" }) },
  { weight: 1, arbitrary: fc.constantFrom({ reopen: "clean" }, { reopen: "crash" }) },
);
type Command = typeof command extends fc.Arbitrary<infer T> ? T : never;

function holds(condition: Condition | undefined, row: Item | undefined): boolean {
  const { exists, equals, oneOf, missing, lessThan, sizeBelow } = condition ?? {};
  const of = (name: string) => row?.[name];
  const size = (each: unknown) =>
    each === undefined
      ? 0
      : Array.isArray(each) || typeof each === "string"
        ? each.length
        : typeof each === "object" && each !== null
          ? Object.keys(each).length
          : 1e9;
  return (
    (exists === undefined || exists === (row !== undefined)) &&
    Object.entries(equals ?? {}).every(([name, each]) => of(name) === each) &&
    Object.entries(oneOf ?? {}).every(([name, each]) => each.some((one) => of(name) === one)) &&
    (missing ?? []).every((name) => of(name) === undefined) &&
    Object.entries(lessThan ?? {}).every(
      ([name, each]) => typeof of(name) === "number" && (of(name) as number) < each,
    ) &&
    Object.entries(sizeBelow ?? {}).every(([name, each]) => size(of(name)) < each)
  );
}

function place(write: Write) {
  return "put" in write ? write.put : "update" in write ? write.update : "delete" in write ? write.delete : write.check;
}

function applied(rows: Rows, write: Write): void {
  const id = idOf(place(write));
  if ("put" in write) rows.set(id, write.put);
  else if ("delete" in write) rows.delete(id);
  else if ("update" in write) {
    const row: Record<string, Value> = { ...(rows.get(id) ?? { ...write.update, kind: write.kind }) } as never;
    for (const name of write.remove ?? []) delete row[name];
    Object.assign(row, write.set);
    for (const [name, by] of Object.entries(write.add ?? {})) row[name] = ((row[name] as number) ?? 0) + by;
    rows.set(id, row as never);
  }
}

const byBytes = (a: string, b: string) => Buffer.compare(Buffer.from(a), Buffer.from(b));

/** Runs commands on the engine and on a plain Map, and compares all the way. */
async function compare(commands: readonly Command[]): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), "waggle-model-"));
  let dataDir = join(base, "0");
  let opened = 0;
  const model: Rows = new Map();
  /** What the change feed says the watched rows are: last image by key, and its position. */
  const images = new Map<string, { position: string; item: Item | undefined }>();
  const open = async () => {
    const engine = await openEmbedded({ dataDir, flush: { segmentBytes: 4096 } });
    engine.changes.consume("images", ["seen"], async (changes) => {
      for (const change of changes) watch(change);
    });
    engine.changes.project(
      "mirror",
      ["seen"],
      ({ key }) => key.pk,
      async (changes) => ({
        once: [],
        again: changes.map(({ key, new: row }): Put | Delete => {
          const place = { pk: "mirror", sk: mirrorOf(key) };
          return row?.kind === "seen" ? { put: { ...place, kind: "copy", row: row as never } } : { delete: place };
        }),
      }),
    );
    return engine;
  };
  const mirrorOf = (key: { pk: string; sk: string }) => `${partitions.indexOf(key.pk)}.${sortKeys.indexOf(key.sk)}`;
  function watch(change: Change): void {
    const id = idOf(change.key);
    const before = images.get(id);
    // Given again: known already.
    if (before !== undefined && change.position <= before.position) return;
    const old = before?.item;
    // A row of another kind changes unseen.
    if (old?.kind === "seen") expect(change.old).toEqual(old);
    images.set(id, { position: change.position, item: change.new });
  }
  let engine: EmbeddedEngine = await open();
  const background: Promise<void>[] = [];
  try {
    for (const command of commands) {
      const { store } = engine.ports;
      if ("write" in command) {
        const { write } = command;
        const row = model.get(idOf(place(write)));
        const result = await store.write(write);
        if (holds(write.if, row)) {
          applied(model, write);
          expect(result.ok).toBe(true);
          if (result.ok && !("delete" in write)) expect(result.item).toEqual(model.get(idOf(place(write))));
        } else expect(result).toEqual({ ok: false, code: "condition", ...(row && { winner: row }) });
      } else if ("transact" in command) {
        const { transact } = command;
        const result = await store.transact(transact);
        const reasons = transact.map((write) => {
          const row = model.get(idOf(place(write)));
          return holds(write.if, row) ? undefined : { code: "condition", ...(row && { winner: row }) };
        });
        if (reasons.every((reason) => reason === undefined)) {
          expect(result).toEqual({ ok: true });
          for (const write of transact) applied(model, write);
        } else expect(result).toEqual({ ok: false, reasons });
      } else if ("query" in command) {
        const { query } = command;
        const { pk, from, to, prefix, reverse, after, limit } = query as typeof query & Record<string, never>;
        const found = [...model.values()]
          .filter((row) => row.pk === pk)
          .filter((row) => from === undefined || byBytes(row.sk, from) >= 0)
          .filter((row) => to === undefined || byBytes(row.sk, to) <= 0)
          .filter((row) => prefix === undefined || row.sk.startsWith(prefix))
          .sort((a, b) => byBytes(a.sk, b.sk) * (reverse ? -1 : 1))
          .filter((row) => after === undefined || byBytes(row.sk, after) * (reverse ? -1 : 1) > 0)
          .slice(0, limit);
        expect((await store.query(query)).items).toEqual(found);
      } else if ("settle" in command) await store.settled();
      else if ("checkpoint" in command) {
        const running = engine.checkpoint();
        if (command.checkpoint === "await") await running;
        else background.push(running);
      } else {
        await store.settled();
        await Promise.all(background);
        if (command.reopen === "clean") {
          await engine.close();
        } else {
          // What a kill leaves: the files as they are now.
          const copy = join(base, String(++opened));
          cpSync(dataDir, copy, { recursive: true });
          await engine.close();
          dataDir = copy;
        }
        engine = await open();
      }
    }
    const { store } = engine.ports;
    await store.settled();
    for (const pk of partitions) {
      for (const sk of sortKeys) expect(await store.get({ pk, sk })).toEqual(model.get(idOf({ pk, sk })));
    }
    for (const [id, { item }] of images) {
      const row = model.get(id);
      if (item === undefined || item.kind === "seen") {
        expect(row?.kind === "seen" ? row : undefined).toEqual(item);
      }
    }
    await store.projected();
    const copies = (await store.query({ pk: "mirror", limit: 1000 })).items.map((copy) => copy.row as unknown as Item);
    const seen = [...model.values()].filter((row) => row.kind === "seen");
    const sorted = (rows: Item[]) => rows.sort((a, b) => byBytes(mirrorOf(a), mirrorOf(b)));
    expect(sorted(copies)).toEqual(sorted(seen));
    for (const row of model.values()) {
      if (row.kind === "seen") expect(images.get(idOf(row))?.item).toEqual(row);
    }
  } finally {
    await Promise.all(background);
    await engine.close();
    rmSync(base, { recursive: true, force: true });
  }
}

test("answers as a plain map does, through checkpoints, stops and crashes at any point", async () => {
  const runs = Number(process.env.WAGGLE_MODEL_RUNS ?? 40);
  await fc.assert(fc.asyncProperty(fc.array(command, { minLength: 20, maxLength: 120, size: "max" }), compare), {
    numRuns: runs,
    interruptAfterTimeLimit: 15_000,
    markInterruptAsFailure: false,
  });
});
