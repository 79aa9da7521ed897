import type { Item } from "@waggle/core";
import fc from "fast-check";
import { expect, test } from "vitest";
import { fromRow, toRow } from "./marshal.ts";

const row = { pk: "t", sk: "a", kind: "row" };

test("rows come back as they went, whatever is in them", () => {
  const scalar = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.constantFrom("", "\ud800", "a\udc00b", "\0", "__proto__", null, true, false),
    fc.integer(),
    fc.double({ noNaN: true, min: -1e125, max: 1e125 }).filter((each) => each === 0 || Math.abs(each) >= 1e-130),
  );
  const { value } = fc.letrec((tie) => ({
    value: fc.oneof(
      { depthSize: "small" },
      scalar,
      fc.array(tie("value"), { maxLength: 4 }),
      fc.dictionary(
        fc.oneof(fc.string({ unit: "binary", maxLength: 4 }), fc.constantFrom("\ud800", "\0", "")),
        tie("value"),
        {
          maxKeys: 4,
        },
      ),
    ),
  }));
  fc.assert(
    fc.property(value, (each) => {
      const item = { ...row, each } as Item;
      // As a Lambda event carries it: JSON, bytes as base64.
      const sent = JSON.parse(
        JSON.stringify(toRow(item, "abcdef"), (name, part) =>
          name === "B" && part?.type === "Buffer" ? Buffer.from(part.data).toString("base64") : part,
        ),
      );
      expect(fromRow(toRow(item, "abcdef"))).toEqual(plain(item));
      expect(fromRow(sent)).toEqual(plain(item));
    }),
  );
});

/** -0 is 0 in DynamoDB, and objects there have no prototype of their own. */
function plain(value: unknown): unknown {
  if (value === 0) return 0;
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  const map = {};
  for (const name of Object.keys(value)) {
    const part = plain((value as Record<string, unknown>)[name]);
    Object.defineProperty(map, name, { value: part, enumerable: true, configurable: true, writable: true });
  }
  return map;
}

test("what is undefined is not stored", () => {
  expect(toRow({ ...row, gone: undefined, map: { a: undefined as never, b: 1 } })).toEqual({
    pk: { S: "t" },
    sk: { S: "a" },
    kind: { S: "row" },
    map: { M: { b: { N: "1" } } },
  });
});

test.each([undefined, () => 1, Symbol("x"), 1n])("a value that no row holds is refused: %s", (bad) => {
  expect(() => toRow({ ...row, list: [bad] as never })).toThrow(TypeError);
});

test("rows that pass away tell DynamoDB when, in seconds, and nobody else", () => {
  const key = { pk: "t", sk: "k", kind: "idempotency", expiresAt: 1_700_000_000_001 };
  const kept = toRow(key, "abcdef");
  expect(kept.ttl).toEqual({ N: "1700000001" });
  expect(fromRow(kept)).toEqual(key);
  // A row of another kind may have an attribute of that name.
  expect(fromRow(toRow({ ...row, ttl: 5 }))).toEqual({ ...row, ttl: 5 });
});
