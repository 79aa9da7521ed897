import fc from "fast-check";
import { expect, test } from "vitest";
import { age, cut, duration, safe, table, width } from "./format.ts";
import { painter, wantsColour } from "./io.ts";

const plain = { colour: false };

test("writes durations in two units at most", () => {
  const told = [0, 85, 850, 4_200, 9_000, 59_600, 192_000, 18_240_000, 183_600_000].map(duration);
  expect(told).toEqual(["0ms", "85ms", "850ms", "4.2s", "9s", "1m", "3m12s", "5h4m", "2d3h"]);
});

test("writes ages in one unit", () => {
  const now = Date.parse("2026-01-10T00:00:00Z");
  const ago = (seconds: number) => age(new Date(now - seconds * 1000).toISOString(), now);
  expect([5, 119, 120, 7199, 7200, 172_800].map(ago)).toEqual(["5s", "119s", "2m", "119m", "2h", "2d"]);
});

test("lines columns up whatever is in them", () => {
  const rows = [
    { a: "x", b: "one" },
    { a: "蜂蜂", b: "two" },
    { a: "", b: "three" },
  ];
  const text = table(
    rows,
    [
      { title: "A", value: (row) => row.a },
      { title: "B", value: (row) => row.b },
    ],
    plain,
  );
  expect(text).toBe("A     B\nx     one\n蜂蜂  two\n-     three\n");
});

test("lets no text of others move the cursor or colour the terminal", () => {
  const text = table([{ a: "\u001b[2Jgone\u0007\nnext\u202e" }], [{ title: "A", value: (row) => row.a }], plain);
  expect(text).toBe("A\n\ufffd[2Jgone\ufffd next\ufffd\n");
  fc.assert(fc.property(fc.string({ unit: "binary" }), (any) => !/[\u0000-\u001f\u007f-\u009f]/.test(safe(any))));
});

test("cuts to the columns there are", () => {
  fc.assert(
    fc.property(fc.string({ unit: "grapheme" }), fc.integer({ min: 1, max: 30 }), (text, columns) => {
      expect(width(cut(text, columns))).toBeLessThanOrEqual(Math.max(columns, 1));
    }),
  );
});

test("colours on a terminal alone, and never with NO_COLOR", () => {
  expect(wantsColour({}, true)).toBe(true);
  expect(wantsColour({}, false)).toBe(false);
  expect(wantsColour({ NO_COLOR: "1" }, true)).toBe(false);
  expect(wantsColour({ NO_COLOR: "1", FORCE_COLOR: "1" }, true)).toBe(false);
  expect(wantsColour({ FORCE_COLOR: "1" }, false)).toBe(true);
  expect(wantsColour({ TERM: "dumb" }, true)).toBe(false);
  expect(painter(false)("red", "x")).toBe("x");
});
