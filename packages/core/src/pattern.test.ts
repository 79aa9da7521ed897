import { describe, expect, test } from "vitest";
import { compilePattern, matches } from "./pattern.ts";
import type { Pattern, Value } from "./port/index.ts";

/** Every rule once as a list of values of the field `x`, with what it takes and what it does not. */
const operators: readonly [name: string, list: unknown[], takes: Value[], refuses: Value[]][] = [
  ["exact text", ["a", "b"], ["a", "b"], ["A", "ab", "", null, 1, {}]],
  ["the empty text", [""], [""], [" ", null, "a"]],
  ["null", [null], [null], ["", "null", 0, false]],
  ["exact number", [5, -0.5], [5, -0.5], ["5", 5.1, null]],
  ["true", [true], [true], [false, "true", 1]],
  ["prefix", [{ prefix: "eu-" }], ["eu-west", "eu-"], ["us-eu-", "EU-west", "eu", null, 1]],
  ["prefix, any case", [{ prefix: { "equals-ignore-case": "Eu-" } }], ["EU-west", "eu-"], ["us-", "e"]],
  ["suffix", [{ suffix: ".png" }], ["a.png", ".png"], ["a.PNG", "a.png.gz", null]],
  ["suffix, any case", [{ suffix: { "equals-ignore-case": ".pnG" } }], ["a.PNG", "a.png"], ["a.jpg"]],
  ["equals, any case", [{ "equals-ignore-case": "ALICE" }], ["alice", "Alice"], ["alic", "alice ", null]],
  ["anything but a text", [{ "anything-but": "a" }], ["b", "A", "", null, 1, true], ["a"]],
  ["anything but texts", [{ "anything-but": ["a", "b"] }], ["c", 1], ["a", "b"]],
  ["anything but numbers", [{ "anything-but": [1, 2] }], [3, "1", null], [1, 2]],
  ["anything but a prefix", [{ "anything-but": { prefix: "in" } }], ["out", "IN", 1], ["in", "inner"]],
  ["anything but prefixes", [{ "anything-but": { prefix: ["in", "out"] } }], ["up"], ["inner", "outer"]],
  ["anything but suffixes", [{ "anything-but": { suffix: [".a", ".b"] } }], ["x.c"], ["x.a", "y.b"]],
  ["anything but, any case", [{ "anything-but": { "equals-ignore-case": ["On", "OFF"] } }], ["up"], ["on", "Off"]],
  ["anything but wildcards", [{ "anything-but": { wildcard: ["*/a/*", "b*"] } }], ["x/c/y"], ["x/a/y", "bc"]],
  ["a number below", [{ numeric: ["<", 10] }], [9.99, -5], [10, "9", null]],
  ["a number at most", [{ numeric: ["<=", 10] }], [10], [10.01]],
  ["a number equal", [{ numeric: ["=", 3.018e2] }], [301.8], [301.81, "301.8"]],
  ["a range", [{ numeric: [">", 0, "<=", 5] }], [0.1, 5], [0, 5.1, "1"]],
  ["there", [{ exists: true }], ["", null, 0, false, [1]], [{}, { a: 1 }, []]],
  ["not there", [{ exists: false }], [{}, { a: 1 }, []], ["", null, 0, ["a"]]],
  ["a cidr of IPv4", [{ cidr: "10.0.0.0/23" }], ["10.0.0.0", "10.0.1.255"], ["10.0.2.0", "10.0.0", "a", "::a00:1", 10]],
  ["a cidr of all", [{ cidr: "0.0.0.0/0" }], ["1.2.3.4"], ["256.1.1.1", "::1"]],
  ["a cidr of IPv6", [{ cidr: "2001:db8::/33" }], ["2001:db8::1", "2001:DB8:7fff::"], ["2001:db8:8000::", "10.0.0.1"]],
  ["one address", [{ cidr: "10.0.0.7/32" }], ["10.0.0.7"], ["10.0.0.6"]],
  ["wildcard", [{ wildcard: "dir/*.png" }], ["dir/a.png", "dir/.png", "dir/a/b.png"], ["dir/png", "x/dir/a.png", null]],
  ["wildcards", [{ wildcard: "*a*b*" }], ["ab", "xaybz"], ["ba", "b"]],
  ["wildcard that must not overlap", [{ wildcard: "ab*ba" }], ["abba", "ab-ba"], ["aba"]],
  ["wildcard with itself", [{ wildcard: "a\\*b\\\\*" }], ["a*b\\", "a*b\\x"], ["axb\\", "a*b"]],
  ["any of several rules", ["a", { prefix: "b" }, { numeric: [">", 5] }], ["a", "bc", 6], ["c", 5]],
  ["not there or null", [{ exists: false }, null], [null, {}], ["a"]],
];

describe.each(operators)("%s", (_, list, takes, refuses) => {
  const matching = compilePattern({ detail: { x: list } });
  test.each(takes.map((value) => [value]))("takes %j", (x) => expect(matching({ detail: { x } })).toBe(true));
  test.each(refuses.map((value) => [value]))("does not take %j", (x) =>
    expect(matching({ detail: { x } })).toBe(false),
  );
});

const cases: readonly [name: string, pattern: Pattern, event: Value, expected: boolean][] = [
  ["all fields have to match", { a: [1], b: [2] }, { a: 1, b: 3 }, false],
  ["other fields of the event do not matter", { a: [1] }, { a: 1, b: 3 }, true],
  ["a field that is not there does not match", { a: [1] }, {}, false],
  ["anything-but needs the field", { a: [{ "anything-but": "x" }] }, {}, false],
  ["a list matches by any of its values", { a: ["x"] }, { a: ["y", "x"] }, true],
  ["a list matches by any of its values, lists within", { a: ["x"] }, { a: [["y"], ["x"]] }, true],
  ["a list with none does not match", { a: ["x"] }, { a: ["y", "z"] }, false],
  ["an empty list is nothing", { a: [{ exists: true }] }, { a: [] }, false],
  ["anything-but takes a list with one other value", { a: [{ "anything-but": "x" }] }, { a: ["x", "y"] }, true],
  ["fields of a list's objects match in one element", { l: { a: [1], b: [2] } }, { l: [{ a: 1, b: 2 }] }, true],
  ["and not across elements", { l: { a: [1], b: [2] } }, { l: [{ a: 1 }, { b: 2 }] }, false],
  ["absent under a list: no element has it", { l: { a: [{ exists: false }] } }, { l: [{ b: 1 }, { b: 2 }] }, true],
  ["absent under a list: one element has it", { l: { a: [{ exists: false }] } }, { l: [{ b: 1 }, { a: 2 }] }, false],
  ["absent below what is absent", { l: { a: { b: [{ exists: false }] } } }, { m: 1 }, true],
  ["absent beside a value", { a: [1], b: [{ exists: false }] }, { a: 1 }, true],
  ["$or: the first", { $or: [{ a: [1] }, { b: [2] }] }, { a: 1 }, true],
  ["$or: the second", { $or: [{ a: [1] }, { b: [2] }] }, { b: 2 }, true],
  ["$or: none", { $or: [{ a: [1] }, { b: [2] }] }, { a: 2, b: 1 }, false],
  ["$or and the fields beside it", { c: [3], $or: [{ a: [1] }, { b: [2] }] }, { a: 1, c: 4 }, false],
  ["$or below a field", { d: { $or: [{ a: [1] }, { b: { c: [2] } }] } }, { d: { b: { c: 2 } } }, true],
  ["$or that stands for a field", { $or: ["a"] } as Pattern, { $or: "a" }, true],
  ["fields an object inherits are not there", { constructor: [{ exists: true }] }, {}, false],
  ["deep", { a: { b: { c: { d: ["x"] } } } }, { a: { b: { c: { d: "x" } } } }, true],
  ["a value where an object was meant", { a: { b: ["x"] } }, { a: "b" }, false],
];
test.each(cases)("%s", (_, pattern, event, expected) => expect(matches(pattern, event)).toBe(expected));

const wrong: readonly [pattern: unknown, place: string, message: RegExp][] = [
  [{}, "", /at least one field/],
  [[], "", /is an object/],
  [{ a: "x" }, "a", /array of values/],
  [{ a: { b: 1 } }, "a.b", /array of values/],
  [{ a: {} }, "a", /at least one field/],
  [{ a: [] }, "a", /cannot be empty/],
  [{ a: [["x"]] }, "a", /list inside a list/],
  [{ a: [{ begins: "x" }] }, "a", /no operator "begins"/],
  [{ a: [{ prefix: "x", suffix: "y" }] }, "a", /one field/],
  [{ a: [{}] }, "a", /one field/],
  [{ a: [{ prefix: 1 }] }, "a.prefix", /must be a text/],
  [{ a: [{ prefix: { wildcard: "x" } }] }, "a.prefix", /equals-ignore-case/],
  [{ a: [{ "equals-ignore-case": ["x"] }] }, "a.equals-ignore-case", /must be a text/],
  [{ a: [{ "anything-but": [] }] }, "a.anything-but", /cannot be empty/],
  [{ a: [{ "anything-but": ["x", 1] }] }, "a.anything-but", /not both/],
  [{ a: [{ "anything-but": null }] }, "a.anything-but", /texts or numbers/],
  [{ a: [{ "anything-but": { numeric: [">", 1] } }] }, "a.anything-but", /cannot be combined/],
  [{ a: [{ "anything-but": { prefix: "" } }] }, "a.anything-but.prefix", /cannot be empty/],
  [{ a: [{ numeric: [] }] }, "a.numeric", /must be a list/],
  [{ a: [{ numeric: ["~", 1] }] }, "a.numeric", /not one of/],
  [{ a: [{ numeric: ["<", "1"] }] }, "a.numeric", /needs a number/],
  [{ a: [{ numeric: ["<", 5, ">", 1] }] }, "a.numeric", /a range is/],
  [{ a: [{ numeric: [">", 5, "<", 5] }] }, "a.numeric", /empty/],
  [{ a: [{ numeric: ["=", 1, "<", 5] }] }, "a.numeric", /a range is/],
  [{ a: [{ numeric: ["<", 6e9] }] }, "a.numeric", /-5e9 to 5e9/],
  [{ a: [{ exists: "yes" }] }, "a.exists", /true or false/],
  [{ a: { b: [{ cidr: "10.0.0/8" }] } }, "a.b.cidr", /address range/],
  [{ a: [{ cidr: "10.0.0.0/33" }] }, "a.cidr", /address range/],
  [{ a: [{ cidr: "::1/129" }] }, "a.cidr", /address range/],
  [{ a: [{ wildcard: "a**" }] }, "a.wildcard", /two \*/],
  [{ a: [{ wildcard: "a\\b" }] }, "a.wildcard", /must be followed/],
  [{ $or: [{ a: [1] }] }, "$or", /at least two/],
  [{ $or: [{ a: [1] }, { a: 1 }] }, "a", /array of values/],
  [{ a: ["x".repeat(2048)] }, "", /at most 2048/],
  [Object.fromEntries([..."abcdefghijk"].map((name) => [name, { $or: [{ x: [1] }, { y: [2] }] }])), "", /1000 comb/],
];
test.each(wrong)("refuses %j, naming the place", (pattern, path, message) => {
  expect(() => compilePattern(pattern as Pattern)).toThrow(
    expect.objectContaining({ code: "bus.pattern_invalid", message: expect.stringMatching(message) }),
  );
  try {
    compilePattern(pattern as Pattern);
  } catch (error) {
    expect((error as { extra: unknown }).extra).toMatchObject({ errors: [{ path }] });
  }
});

test("ends on a wildcard that would make a backtracking matcher run for years", () => {
  const matching = compilePattern({ a: [{ wildcard: "*a*a*a*a*a*a*a*a*a*a*a*a*b" }] });
  expect(matching({ a: `${"a".repeat(50_000)}c` })).toBe(false);
  expect(matching({ a: `${"a".repeat(50_000)}b` })).toBe(true);
});
