import fc from "fast-check";

/*
 * Values nobody should send. JSON values are JSON text, so that some can be what JSON.stringify never writes: numbers
 * beyond a double, a member twice, half a surrogate pair, a member named __proto__.
 */

const text = (value: string) => JSON.stringify(value);

const strings: readonly string[] = [
  "",
  " ",
  " a",
  "a ",
  "a  b",
  "\n",
  "\t",
  "\0",
  "a\0b",
  "\u202eevil",
  "\u200b",
  "\ufeff",
  "e\u0301",
  "\u00e9",
  "\u{1f41d}",
  "\u{10ffff}",
  "\u212b",
  "NaN",
  "Infinity",
  "-0",
  "1e3",
  "0x10",
  "1_000",
  "null",
  "undefined",
  "true",
  "[object Object]",
  "__proto__",
  "constructor",
  "prototype",
  "toString",
  "hasOwnProperty",
  "../../etc/passwd",
  "..%2f..%2f",
  "a/b",
  "a#b",
  "a:b",
  "*",
  "task.*",
  "{id}",
  "$where",
  "'; drop table tasks; --",
  "<script>alert(1)</script>",
  "2030-02-30T00:00:00Z",
  "9999-12-31T23:59:59Z",
  "0000-01-01T00:00:00Z",
  "2030-01-01T00:00:00+23:59",
  "tsk_0000000000000000000000",
  "agt_0000000000000000000000",
  "key_0000000000000000000000",
  "ref:a",
  "http://[::1]:0/",
  "file:///etc/passwd",
  "javascript:alert(1)",
];
const long: readonly string[] = [65, 129, 257, 1025, 4097, 20_000].flatMap((length) => [
  "x".repeat(length),
  "\u{1f41d}".repeat(length / 2),
]);

const numbers: readonly string[] = [
  ..."0 -0 -1 1 0.5 1.5 1e-7 1e-131 5e-324 1e126 1e308 1e400 -1e400 2147483648 4294967296 -2147483649".split(" "),
  ..."9007199254740991 9007199254740992 9007199254740993 18446744073709551616 0.1e1 1E+2".split(" "),
  `1${"0".repeat(400)}`,
  `0.${"3".repeat(400)}`,
];

const deep = (levels: number, open: string, close: string) => `${open.repeat(levels)}0${close.repeat(levels)}`;
const composites: readonly string[] = [
  "null",
  "true",
  "false",
  "[]",
  "{}",
  "[null]",
  "[[]]",
  "[1,2,3]",
  '{"a":1}',
  '{"a":1,"a":2}',
  '{"":0}',
  '{"__proto__":{"polluted":true}}',
  '{"constructor":{"prototype":{"polluted":true}}}',
  '{"\\u005f_proto__":1}',
  '{"length":1000000000}',
  '{"toJSON":null}',
  '"\\ud800"',
  '"\\udc00\\ud800"',
  '"\\u0000"',
  `[${"0,".repeat(200)}0]`,
  `[${'"a",'.repeat(2000)}"a"]`,
  `{${Array.from({ length: 200 }, (_, n) => `"k${n}":${n}`).join(",")}}`,
  `"${"x".repeat(70_000)}"`,
  deep(62, "[", "]"),
  deep(65, "[", "]"),
  deep(2000, "[", "]"),
  deep(65, '{"a":', "}"),
];

export const evilStrings: fc.Arbitrary<string> = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...strings) },
  { weight: 1, arbitrary: fc.constantFrom(...long) },
  { weight: 2, arbitrary: fc.string({ unit: "binary", maxLength: 12 }) },
  { weight: 1, arbitrary: fc.string({ unit: "grapheme", maxLength: 12 }) },
);

/** JSON text. */
export const evilJson: fc.Arbitrary<string> = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(...numbers) },
  { weight: 4, arbitrary: fc.constantFrom(...composites) },
  { weight: 4, arbitrary: evilStrings.map(text) },
  { weight: 1, arbitrary: fc.double().map((value) => (Number.isFinite(value) ? String(value) : "1e999")) },
  { weight: 1, arbitrary: fc.json({ maxDepth: 3 }) },
);
