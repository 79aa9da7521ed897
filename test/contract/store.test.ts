import type { Change, Item, Store, Write } from "@waggle/core";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { enginesOf, type Opened } from "./engines.ts";

const row = (sk: string, more: Record<string, unknown> = {}): Item => ({ pk: "t", sk, kind: "row", ...more }) as Item;
const textOf = (bytes: number) => "x".repeat(bytes);

const until = <T>(look: () => T) => expect.poll(look, { timeout: 15_000, interval: 20 });

for (const { name, open, lacks, real, unmetered } of enginesOf("store"))
  describe.skipIf(lacks !== undefined)(`store on ${name}`, () => {
    let opened: Opened;
    let store: Store;
    beforeEach(async () => {
      opened = await open();
      store = opened.engine.ports.store;
    });
    afterEach(() => opened.remove());

    const put = (item: Item) => store.write({ put: item });
    const get = (sk: string) => store.get({ pk: "t", sk });

    /** What a consumer was given, by key, in order; the same position twice counts once. */
    function collect(name: string, kinds: readonly string[]) {
      const given: Change[] = [];
      const positions = new Map<string, string>();
      const stop = opened.engine.changes.consume(name, kinds, async (changes) => {
        expect(changes.length).toBeLessThanOrEqual(1000);
        for (const change of changes) {
          const id = `${change.key.pk} ${change.key.sk}`;
          if ((positions.get(id) ?? "") >= change.position) continue;
          positions.set(id, change.position);
          given.push(change);
        }
      });
      return { given, stop };
    }

    describe("rows", () => {
      test("come back as they were written, with every kind of value", async () => {
        const item = row("a", {
          text: "héllo 😀",
          empty: "",
          number: -12.5,
          zero: 0,
          big: 9_007_199_254_740_991,
          yes: true,
          no: false,
          nothing: null,
          list: [1, "two", null, [true], { deep: "er" }],
          map: { a: { b: [] }, c: {} },
          __proto: "plain",
        });
        expect(await put(item)).toEqual({ ok: true, item });
        expect(await get("a")).toEqual(item);
        await store.settled();
        opened = await opened.reopen();
        expect(await opened.engine.ports.store.get({ pk: "t", sk: "a" })).toEqual(item);
      });

      test("keep exact numbers, and refuse those DynamoDB cannot hold", async () => {
        const numbers = [
          0.1,
          -1e-130,
          Number("1.7976931348623157e125"),
          5e-7,
          1e21,
          2 ** 53 - 1,
          123456789.12345679,
          1 / 3,
        ];
        await put(row("a", { numbers }));
        expect(await get("a")).toEqual(row("a", { numbers }));
        for (const number of [1e126, 1e-131, Number.MAX_VALUE, Number.NaN, Number.POSITIVE_INFINITY]) {
          await expect(put(row("b", { list: [number] }))).rejects.toThrow("finite numbers");
        }
        expect(await get("b")).toBeUndefined();
      });

      test("keep any text and any name", async () => {
        const item = row("a", {
          half: "\ud800 and \udc00",
          control: "\0\x01\x7f\ufffe\uffff",
          list: ["\udfff", ["\ud83d"]],
          size: 1,
          "#name": "with: marks",
          map: { "a.b": 1, "é 😀": { "": 2, "\0": 3, "\ud800": 4 } },
        });
        const named = JSON.parse('{"__proto__":{"a":1},"constructor":2}') as object;
        await put({ ...item, named } as never);
        const found = ((await get("a")) as Item).named as object;
        expect(Object.entries(found).sort()).toEqual([
          ["__proto__", { a: 1 }],
          ["constructor", 2],
        ]);
        expect(await get("a")).toEqual({ ...item, named });
        const half = {
          update: { pk: "t", sk: "a" },
          kind: "row",
          set: { seen: true },
          if: { equals: { half: item.half } },
        };
        expect(await store.write(half as Write)).toMatchObject({ ok: true });
      });

      test("show nothing of what an engine keeps beside them", async () => {
        const kept = { pk: "t", sk: "once", kind: "idempotency", hash: "h", expiresAt: 4_102_444_800_123 };
        const { given } = collect("c", ["idempotency"]);
        expect(await store.write({ put: kept, if: { exists: false } })).toEqual({ ok: true, item: kept });
        expect(await store.get(kept)).toEqual(kept);
        expect((await store.query({ pk: "t", limit: 1 })).items).toEqual([kept]);
        expect(await store.write({ put: kept, if: { exists: false } })).toEqual({
          ok: false,
          code: "condition",
          winner: kept,
        });
        await until(() => given.map((change) => change.new)).toEqual([kept]);
      });

      test("written twice in one batch are as written last, and read twice in one come twice", async () => {
        await store.batchWrite([{ put: row("a", { n: 1 }) }, { put: row("b") }, { put: row("a", { n: 2 }) }]);
        await store.batchWrite([{ put: row("b", { n: 1 }) }, { delete: { pk: "t", sk: "b" } }]);
        expect(await store.batchGet(["a", "b", "a"].map((sk) => ({ pk: "t", sk })))).toEqual([
          row("a", { n: 2 }),
          undefined,
          row("a", { n: 2 }),
        ]);
      });

      test("written twice in one batch change once, from what they were to what was written last", async () => {
        const { given } = collect("c", ["row"]);
        await put(row("a", { n: 1 }));
        await store.batchWrite([{ delete: { pk: "t", sk: "a" } }, { put: row("a", { n: 2 }) }]);
        await put(row("a", { n: 3 }));
        const images = () => given.map(({ old, new: now }) => [old, now]);
        await until(images).toEqual([
          [undefined, row("a", { n: 1 })],
          [row("a", { n: 1 }), row("a", { n: 2 })],
          [row("a", { n: 2 }), row("a", { n: 3 })],
        ]);
      });

      test("are read many at a time, in the order asked, absent ones undefined", async () => {
        await put(row("a"));
        await put(row("c"));
        const found = await store.batchGet(["c", "b", "a"].map((sk) => ({ pk: "t", sk })));
        expect(found).toEqual([row("c"), undefined, row("a")]);
      });

      test("take an attribute that is undefined for one that is not there", async () => {
        await put(row("a", { gone: undefined, kept: 1 }));
        const unset = { missing: ["gone"] };
        expect(await store.write({ update: { pk: "t", sk: "a" }, kind: "row", add: { gone: 2 }, if: unset })).toEqual({
          ok: true,
          item: row("a", { gone: 2, kept: 1 }),
        });
        await put(row("a", { gone: undefined, kept: 1 }));
        await store.settled();
        opened = await opened.reopen();
        expect(await opened.engine.ports.store.get({ pk: "t", sk: "a" })).toEqual(row("a", { kept: 1 }));
      });

      test("are told apart when one partition's name begins another's", async () => {
        await store.write({ put: { pk: "t", sk: "x", kind: "row" } });
        await store.write({ put: { pk: "tt", sk: "x", kind: "row" } });
        await store.write({ put: { pk: "t\x01", sk: "x", kind: "row" } });
        for (const pk of ["t", "tt", "t\x01"]) {
          expect((await store.query({ pk, limit: 10 })).items.map((each) => each.pk)).toEqual([pk]);
        }
      });
    });

    describe("updates", () => {
      test("make the row when it is not there, with the kind they name", async () => {
        const result = await store.write({ update: { pk: "t", sk: "n" }, kind: "counter", add: { n: 2 } });
        expect(result).toEqual({ ok: true, item: { pk: "t", sk: "n", kind: "counter", n: 2 } });
      });

      test("set, add and remove in one go and answer the row after", async () => {
        await put(row("a", { n: 1, old: "x", kept: [1] }));
        const result = await store.write({
          update: { pk: "t", sk: "a" },
          kind: "row",
          set: { text: "new" },
          add: { n: -3, fresh: 1 },
          remove: ["old", "never"],
        });
        expect(result).toEqual({ ok: true, item: row("a", { n: -2, kept: [1], text: "new", fresh: 1 }) });
        expect(await get("a")).toEqual(row("a", { n: -2, kept: [1], text: "new", fresh: 1 }));
      });

      test("remove first, then set, then add, where one attribute is named more than once", async () => {
        await put(row("a", { n: 5, m: 5, text: "x" }));
        const result = await store.write({
          update: { pk: "t", sk: "a" },
          kind: "row",
          remove: ["n", "m", "text"],
          set: { m: 10, text: "y" },
          add: { n: 1, m: 2 },
        });
        expect(result).toEqual({ ok: true, item: row("a", { n: 1, m: 12, text: "y" }) });
      });

      test("refuse to add to a text or to take a row's kind, and change nothing", async () => {
        await put(row("a", { text: "x" }));
        const update = { update: { pk: "t", sk: "a" }, kind: "row" };
        await expect(store.write({ ...update, add: { text: 1 } })).rejects.toThrow(TypeError);
        await expect(store.write({ ...update, remove: ["kind"] })).rejects.toThrow(TypeError);
        expect(await get("a")).toEqual(row("a", { text: "x" }));
      });

      test("lose none of many that add to one number at once", async () => {
        await Promise.all(
          Array.from({ length: 100 }, () =>
            store.write({ update: { pk: "t", sk: "n" }, kind: "counter", add: { n: 1 } }),
          ),
        );
        expect(await get("n")).toMatchObject({ n: 100 });
      });
    });

    describe("conditions", () => {
      const there = row("a", { n: 5, text: "five", list: [1, 2], map: { a: 1 }, nothing: null });
      const cases: readonly [name: string, condition: NonNullable<Write["if"]>, onRow: boolean, onNothing: boolean][] =
        [
          ["exists", { exists: true }, true, false],
          ["absent", { exists: false }, false, true],
          ["equals", { equals: { n: 5, text: "five" } }, true, false],
          ["equals null", { equals: { nothing: null } }, true, false],
          ["equals null where nothing is set", { equals: { other: null } }, false, false],
          ["equals, one of two wrong", { equals: { n: 5, text: "six" } }, false, false],
          ["equals of another type", { equals: { n: "5" } }, false, false],
          ["one of", { oneOf: { text: ["four", "five"] } }, true, false],
          ["none of", { oneOf: { text: ["four", "six"] } }, false, false],
          ["missing", { missing: ["other"] }, true, true],
          ["missing, but set to null", { missing: ["nothing"] }, false, true],
          ["less than", { lessThan: { n: 6 } }, true, false],
          ["less than its own value", { lessThan: { n: 5 } }, false, false],
          ["less than, of a text", { lessThan: { text: 6 } }, false, false],
          ["size of a list below", { sizeBelow: { list: 3 } }, true, true],
          ["size of a list not below", { sizeBelow: { list: 2 } }, false, true],
          ["size of a map below", { sizeBelow: { map: 2 } }, true, true],
          ["size of a text below", { sizeBelow: { text: 5 } }, true, true],
          ["size of a text not below", { sizeBelow: { text: 4 } }, false, true],
          ["all parts", { exists: true, equals: { n: 5 }, missing: ["other"], lessThan: { n: 9 } }, true, false],
          ["all parts but one", { exists: true, equals: { n: 5 }, missing: ["n"], lessThan: { n: 9 } }, false, false],
        ];
      test.each(cases)("decide by the row as it stands: %s", async (_, condition, onRow, onNothing) => {
        await put(there);
        const refusal = { ok: false, code: "condition", winner: there };
        const result = await store.write({ put: row("a", { second: true }), if: condition });
        expect(result).toEqual(onRow ? { ok: true, item: row("a", { second: true }) } : refusal);
        expect(await get("a")).toEqual(onRow ? row("a", { second: true }) : there);
        const none = await store.write({ put: row("b"), if: condition });
        expect(none).toEqual(onNothing ? { ok: true, item: row("b") } : { ok: false, code: "condition" });
      });

      test("let exactly one of many win, and tell the others who did", async () => {
        const results = await Promise.all(
          Array.from({ length: 20 }, (_, by) => store.write({ put: row("lock", { by }), if: { exists: false } })),
        );
        const won = results.filter((result) => result.ok);
        expect(won.length).toBe(1);
        const winner = await get("lock");
        for (const result of results) if (!result.ok) expect(result).toEqual({ ok: false, code: "condition", winner });
      });

      test("guard updates and deletes alike", async () => {
        await put(there);
        const wrong = { equals: { n: 6 } };
        const refusal = { ok: false, code: "condition", winner: there };
        expect(await store.write({ update: { pk: "t", sk: "a" }, kind: "row", add: { n: 1 }, if: wrong })).toEqual(
          refusal,
        );
        expect(await store.write({ delete: { pk: "t", sk: "a" }, if: wrong })).toEqual(refusal);
        expect(await store.write({ delete: { pk: "t", sk: "a" }, if: { equals: { n: 5 } } })).toMatchObject({
          ok: true,
        });
        expect(await get("a")).toBeUndefined();
      });
    });

    describe("transactions", () => {
      test("do all of it, to rows of several partitions", async () => {
        await put(row("a", { n: 1 }));
        await put(row("b"));
        const result = await store.transact([
          { update: { pk: "t", sk: "a" }, kind: "row", add: { n: 1 } },
          { delete: { pk: "t", sk: "b" } },
          { put: { pk: "u", sk: "c", kind: "row" } },
          { check: { pk: "t", sk: "none" }, if: { exists: false } },
        ]);
        expect(result).toEqual({ ok: true });
        expect(await get("a")).toMatchObject({ n: 2 });
        expect(await get("b")).toBeUndefined();
        expect(await store.get({ pk: "u", sk: "c" })).toBeDefined();
      });

      test("do nothing when one condition fails, and say which, with the row as it stands", async () => {
        await put(row("a", { n: 1 }));
        const result = await store.transact([
          { put: row("new") },
          { update: { pk: "t", sk: "a" }, kind: "row", add: { n: 1 }, if: { equals: { n: 7 } } },
          { check: { pk: "t", sk: "none" }, if: { exists: true } },
          { check: { pk: "t", sk: "b" }, if: { exists: false } },
        ]);
        expect(result).toEqual({
          ok: false,
          reasons: [undefined, { code: "condition", winner: row("a", { n: 1 }) }, { code: "condition" }, undefined],
        });
        expect(await get("new")).toBeUndefined();
        expect(await get("a")).toEqual(row("a", { n: 1 }));
      });

      test("of one write are that write, done or refused with the row as it stands", async () => {
        expect(await store.transact([{ put: row("a", { n: 1 }), if: { exists: false } }])).toEqual({ ok: true });
        for (const write of [
          { put: row("a", { n: 2 }), if: { exists: false } },
          { update: { pk: "t", sk: "a" }, kind: "row", set: { n: 2 }, if: { equals: { n: 2 } } },
          { update: { pk: "t", sk: "a" }, kind: "row", add: { n: 2 }, if: { equals: { n: 2 } } },
          { delete: { pk: "t", sk: "a" }, if: { equals: { n: 2 } } },
          { check: { pk: "t", sk: "a" }, if: { equals: { n: 2 } } },
        ]) {
          const refused = { ok: false, reasons: [{ code: "condition", winner: row("a", { n: 1 }) }] };
          expect(await store.transact([write])).toEqual(refused);
        }
        expect(await store.transact([{ delete: { pk: "t", sk: "a" } }])).toEqual({ ok: true });
        expect(await get("a")).toBeUndefined();
      });

      test("take 100 writes and refuse 101, none, and two to one row", async () => {
        const writes = (count: number): Write[] => Array.from({ length: count }, (_, n) => ({ put: row(`r${n}`) }));
        expect(await store.transact(writes(100))).toEqual({ ok: true });
        await expect(store.transact(writes(101))).rejects.toMatchObject({ code: "store.transaction_too_large" });
        await expect(store.transact([])).rejects.toMatchObject({ code: "store.transaction_too_large" });
        const twice = store.transact([{ put: row("x") }, { delete: { pk: "t", sk: "x" } }]);
        await expect(twice).rejects.toMatchObject({ code: "store.key_invalid" });
        expect(await get("x")).toBeUndefined();
      });

      test("take at most 4 MB, and change nothing beyond", async () => {
        const writes = Array.from({ length: 11 }, (_, n) => ({ put: row(`r${n}`, { text: textOf(390 * 1024) }) }));
        await expect(store.transact(writes)).rejects.toMatchObject({ code: "store.transaction_too_large" });
        expect((await store.query({ pk: "t", limit: 10 })).items).toEqual([]);
        expect(await store.transact(writes.slice(0, 10))).toEqual({ ok: true });
      });
    });

    describe("limits", () => {
      // pk + t + sk + a + kind + row + text = 17 bytes around the text.
      test("a row holds 400 KB by DynamoDB's count, not one byte more", async () => {
        const most = 400 * 1024 - 17;
        expect(await put(row("a", { text: textOf(most) }))).toMatchObject({ ok: true });
        await expect(put(row("b", { text: textOf(most + 1) }))).rejects.toMatchObject({ code: "store.item_too_large" });
        const grow = { update: { pk: "t", sk: "a" }, kind: "row", set: { n: 1 } } as const;
        await expect(store.write(grow)).rejects.toMatchObject({ code: "store.item_too_large" });
        expect(await get("b")).toBeUndefined();
        expect(Object.hasOwn((await get("a")) as Item, "n")).toBe(false);
      });

      test("keys reach 2048 and 1024 bytes of UTF-8, and sort and return as given", async () => {
        const pk = "é".repeat(1024);
        const longest = "é".repeat(512);
        await store.batchWrite([{ put: { pk, sk: longest, kind: "row" } }, { put: { pk, sk: "a", kind: "row" } }]);
        expect((await store.query({ pk, limit: 5 })).items.map((each) => each.sk)).toEqual(["a", longest]);
        await store.settled();
        opened = await opened.reopen();
        const again = await opened.engine.ports.store.query({ pk, limit: 5 });
        expect(again.items.map((each) => each.sk)).toEqual(["a", longest]);
      });

      test.each([
        ["an empty partition key", { pk: "", sk: "a" }],
        ["an empty sort key", { pk: "t", sk: "" }],
        ["a partition key of 2049 bytes", { pk: textOf(2049), sk: "a" }],
        ["a sort key of 1025 bytes", { pk: "t", sk: `é${textOf(1023)}` }],
      ])("%s is refused, reading and writing", async (_, key) => {
        const refused = { code: "store.key_invalid" };
        await expect(store.get(key)).rejects.toMatchObject(refused);
        await expect(store.write({ put: { ...key, kind: "row" } })).rejects.toMatchObject(refused);
        await expect(store.write({ delete: key })).rejects.toMatchObject(refused);
      });
    });

    describe("queries", () => {
      const names = ["a", "b1", "b2", "b3", "c", "é", "\ufffd", "😀"];
      beforeEach(async () => {
        await store.batchWrite(names.map((sk) => ({ put: row(sk) })));
        await store.write({ put: { pk: "s", sk: "z", kind: "row" } });
        await store.write({ put: { pk: "u", sk: "a", kind: "row" } });
      });
      const keys = async (query: object) => {
        const page = await store.query({ pk: "t", limit: 100, ...query });
        return page.items.map((each) => each.sk);
      };

      test("read one partition in the order of UTF-8 bytes, both ways", async () => {
        expect(await keys({})).toEqual(names);
        expect(await keys({ reverse: true })).toEqual(names.toReversed());
      });

      test("keep within bounds, both inclusive, there or not", async () => {
        expect(await keys({ from: "b2" })).toEqual(names.slice(2));
        expect(await keys({ to: "b2" })).toEqual(names.slice(0, 3));
        expect(await keys({ from: "b", to: "b9" })).toEqual(["b1", "b2", "b3"]);
        expect(await keys({ from: "b1", to: "b3", reverse: true })).toEqual(["b3", "b2", "b1"]);
        expect(await keys({ from: "d", to: "c" })).toEqual([]);
      });

      test("find what begins with a prefix", async () => {
        expect(await keys({ prefix: "b" })).toEqual(["b1", "b2", "b3"]);
        expect(await keys({ prefix: "b", reverse: true, limit: 2 })).toEqual(["b3", "b2"]);
        expect(await keys({ prefix: "😀" })).toEqual(["😀"]);
        expect(await keys({ prefix: "none" })).toEqual([]);
      });

      test.each([false, true])(
        "go on where the last page ended, whatever happened to its last row (reverse: %s)",
        async (reverse) => {
          const seen: string[] = [];
          for (let after: string | undefined; ; ) {
            const page = await store.query({ pk: "t", limit: 3, reverse, ...(after !== undefined && { after }) });
            seen.push(...page.items.map((each) => each.sk));
            if (page.last === undefined) break;
            after = page.last;
            await store.write({ delete: { pk: "t", sk: after } });
          }
          expect(seen).toEqual(reverse ? names.toReversed() : names);
        },
      );

      test("go on from a place outside the bounds as from the nearest inside", async () => {
        expect(await keys({ from: "b2", after: "a" })).toEqual(names.slice(2));
        expect(await keys({ from: "b2", after: "z" })).toEqual(["é", "\ufffd", "😀"]);
        expect(await keys({ to: "b2", after: "c" })).toEqual([]);
        expect(await keys({ to: "b2", after: "c", reverse: true })).toEqual(["b2", "b1", "a"]);
        expect(await keys({ prefix: "b", after: "a" })).toEqual(["b1", "b2", "b3"]);
        expect(await keys({ prefix: "b", after: "c", reverse: true })).toEqual(["b3", "b2", "b1"]);
        expect(await keys({ prefix: "b", after: "c" })).toEqual([]);
      });

      test("give as many rows as asked for, however large they are", async () => {
        const large = Array.from({ length: 8 }, (_, n) => ({
          ...row(String(n), { text: textOf(300 * 1024) }),
          pk: "large",
        }));
        await store.batchWrite(large.map((item) => ({ put: item })));
        const { items, last } = await store.query({ pk: "large", limit: 6 });
        expect([items.map((item) => item.sk), last]).toEqual([["0", "1", "2", "3", "4", "5"], "5"]);
        expect((await store.query({ pk: "large", limit: 6, after: "5" })).items.length).toBe(2);
        expect((await store.batchGet(large)).map((item) => item?.sk)).toEqual(large.map((item) => item.sk));
      });

      test("see every write that was answered, at once", async () => {
        await put(row("b15"));
        await store.write({ delete: { pk: "t", sk: "b2" } });
        expect(await keys({ prefix: "b" })).toEqual(["b1", "b15", "b3"]);
      });

      test("find the head of a lane though thousands were taken from it", async () => {
        const rows = real ? 60 : 500;
        await store.batchWrite(
          Array.from({ length: rows }, (_, n) => ({ put: { ...row(String(n).padStart(4, "0")), pk: "lane" } })),
        );
        await store.settled();
        opened = await opened.reopen();
        const lane = opened.engine.ports.store;
        for (let n = 0; n < rows; n++) {
          const { items } = await lane.query({ pk: "lane", limit: 2 });
          expect(items[0]?.sk).toBe(String(n).padStart(4, "0"));
          await lane.write({ delete: { pk: "lane", sk: (items[0] as Item).sk } });
          if (n === rows / 2) {
            // One that comes back before the head is the head.
            await lane.write({ put: { ...row("0007"), pk: "lane" } });
            expect((await lane.query({ pk: "lane", limit: 1 })).items[0]?.sk).toBe("0007");
            await lane.write({ delete: { pk: "lane", sk: "0007" } });
          }
        }
        expect((await lane.query({ pk: "lane", limit: 1 })).items).toEqual([]);
        await lane.write({ put: { ...row("0003"), pk: "lane" } });
        expect((await lane.query({ pk: "lane", limit: 1 })).items.length).toBe(1);
      });
    });

    describe("change feed", () => {
      const images = (given: readonly Change[], sk: string) =>
        given.filter((change) => change.key.sk === sk).map((change) => [change.old?.n, change.new?.n]);

      test("gives old and new image of every change of a row, in order", async () => {
        const { given } = collect("c", ["row"]);
        await put(row("a", { n: 1 }));
        await put(row("b", { n: 10 }));
        await store.write({ update: { pk: "t", sk: "a" }, kind: "row", add: { n: 1 } });
        await store.transact([{ put: row("a", { n: 3 }) }, { delete: { pk: "t", sk: "b" } }]);
        await store.write({ delete: { pk: "t", sk: "a" } });
        await until(() => given.length).toBe(6);
        expect(images(given, "a")).toEqual([
          [undefined, 1],
          [1, 2],
          [2, 3],
          [3, undefined],
        ]);
        expect(images(given, "b")).toEqual([
          [undefined, 10],
          [10, undefined],
        ]);
      });

      test("gives only the kinds asked for, and none for a refused write", async () => {
        const { given } = collect("c", ["row"]);
        await store.write({ put: { pk: "t", sk: "other", kind: "other" } });
        await store.write({ put: row("a"), if: { exists: true } });
        await put(row("b"));
        await until(() => given.map((change) => change.key.sk)).toEqual(["b"]);
      });

      test("gives a batch again when the handler throws, and nothing of it is lost", async () => {
        let failures = 0;
        const seen: string[] = [];
        opened.engine.changes.consume("c", ["row"], async (changes) => {
          if (failures++ < 2) throw new Error("not now");
          for (const change of changes) seen.push(change.key.sk);
        });
        for (const sk of ["a", "b", "c"]) await put(row(sk));
        // A failing consumer holds nobody's writes up.
        await store.settled();
        await until(async () => {
          await opened.advance(real ? 0.1 : 10);
          return [...new Set(seen)].sort();
        }).toEqual(["a", "b", "c"]);
      });

      test("goes on after a restart where the consumer left off, with both images", async () => {
        const first = collect("c", ["row"]);
        await put(row("a", { n: 1 }));
        await store.settled();
        await until(() => first.given.length).toBe(1);
        await first.stop();
        await store.write({ update: { pk: "t", sk: "a" }, kind: "row", add: { n: 1 } });
        await store.write({ update: { pk: "t", sk: "a" }, kind: "row", add: { n: 1 } });
        await put(row("b", { n: 7 }));
        await store.settled();
        opened = await opened.reopen();
        store = opened.engine.ports.store;
        await store.write({ update: { pk: "t", sk: "a" }, kind: "row", add: { n: 1 } });
        const { given } = collect("c", ["row"]);
        await until(() => images(given, "a").at(-1)).toEqual([3, 4]);
        expect(images(given, "a").slice(-3)).toEqual([
          [1, 2],
          [2, 3],
          [3, 4],
        ]);
        expect(images(given, "b")).toEqual([[undefined, 7]]);
      });

      test("gives every consumer everything, each at its own pace", async () => {
        const quick = collect("quick", ["row"]);
        let release!: () => void;
        const gate = new Promise<void>((resolve) => (release = resolve));
        let slow = 0;
        opened.engine.changes.consume("slow", ["row"], async (changes) => {
          await gate;
          slow += changes.length;
        });
        await store.batchWrite(Array.from({ length: 2500 }, (_, n) => ({ put: row(`r${n}`) })));
        await store.settled();
        await until(() => quick.given.length).toBe(2500);
        expect(slow).toBe(0);
        release();
        await until(() => slow).toBeGreaterThanOrEqual(2500);
      });
    });

    describe("projections", () => {
      const groupOf = (change: Change) => change.key.pk;
      /** Counts changes and lists the rows that are there; what it counted decides what it writes, as numbers of events do. */
      const count = (tries: { left: number }) => async (changes: readonly Change[]) => {
        if (tries.left-- > 0) throw new Error("not now");
        const { pk } = (changes[0] as Change).key;
        const before = (await store.get({ pk: `${pk}#log`, sk: "head" }))?.last as number | undefined;
        const last = (before ?? 0) + changes.length;
        return {
          once: [
            { update: { pk: `${pk}#log`, sk: "head" }, kind: "head", set: { last } },
            { put: { pk: `${pk}#log`, sk: `row${String(last).padStart(5, "0")}`, kind: "log", count: changes.length } },
            { update: { pk: `${pk}#sum`, sk: "sum" }, kind: "sum", add: { changes: changes.length } },
          ],
          again: changes.map(({ key, new: next }) =>
            next
              ? { put: { pk: `${pk}#list`, sk: key.sk, kind: "index" } }
              : { delete: { pk: `${pk}#list`, sk: key.sk } },
          ),
        };
      };
      const shown = async () => {
        const [sum, list, log] = await Promise.all([
          store.get({ pk: "t#sum", sk: "sum" }),
          store.query({ pk: "t#list", limit: 100 }),
          store.query({ pk: "t#log", prefix: "row", limit: 1000 }),
        ]);
        const logged = log.items.reduce((all, each) => all + (each.count as number), 0);
        return [sum?.changes, list.items.map((each) => each.sk), logged];
      };

      test("count every change once, though handlers fail and the engine stops in between", async () => {
        let stop = opened.engine.changes.project("counts", ["row"], groupOf, count({ left: 2 }));
        for (let n = 0; n < 20; n++) await put(row(`r${n % 10}`, { n }));
        await store.write({ delete: { pk: "t", sk: "r0" } });
        const names = Array.from({ length: 9 }, (_, n) => `r${n + 1}`);
        await until(async () => {
          await opened.advance(real ? 0.05 : 10);
          await store.projected();
          return await shown();
        }).toEqual([21, names, 21]);
        await stop();
        await put(row("r0", { n: 99 }));
        await store.settled();
        opened = await opened.reopen();
        store = opened.engine.ports.store;
        stop = opened.engine.changes.project("counts", ["row"], groupOf, count({ left: 0 }));
        await until(async () => {
          await store.projected();
          return await shown();
        }).toEqual([22, ["r0", ...names], 22]);
      });
    });

    test.skipIf(unmetered !== undefined)(
      `counts what DynamoDB would bill${unmetered ? `: ${unmetered}` : ""}`,
      async () => {
        const before = opened.engine.meter();
        const used = () => {
          const now = opened.engine.meter();
          return [now.writeUnits - before.writeUnits, now.readUnits - before.readUnits];
        };
        await put(row("a", { text: textOf(1000) }));
        expect(used()).toEqual([1, 0]);
        await put(row("b", { text: textOf(1024) }));
        expect(used()).toEqual([3, 0]);
        await store.transact([{ put: row("c") }, { delete: { pk: "t", sk: "b" } }]);
        expect(used()).toEqual([3 + 2 + 4, 0]);
        await get("a");
        await get("none");
        expect(used()).toEqual([9, 2]);
        await put(row("d", { text: textOf(8000) }));
        await get("d");
        expect(used()).toEqual([9 + 8, 4]);
        await store.query({ pk: "t", limit: 100 });
        expect(used()).toEqual([17, 7]);
        // One write by itself is a plain one; a sum is not.
        await store.transact([{ put: row("e") }]);
        expect(used()).toEqual([18, 7]);
        await store.write({ update: { pk: "t", sk: "e" }, kind: "row", set: { n: 1 } });
        expect(used()).toEqual([19, 7]);
        await store.write({ update: { pk: "t", sk: "e" }, kind: "row", add: { n: 1 } });
        expect(used()).toEqual([21, 8]);
        await store.write({ delete: { pk: "t", sk: "e" }, if: { exists: true } });
        expect(used()).toEqual([23, 8]);
      },
    );
  });
