import { WaggleError } from "@waggle/core";
import { expect, test } from "vitest";
import * as z from "zod/mini";
import { queryReader } from "./query.ts";

const read = queryReader(
  z.strictObject({
    seconds: z._default(z.coerce.number().check(z.gte(0), z.lte(20)), 0),
    after: z._default(z.coerce.number().check(z.int(), z.gte(0)), 0),
  }),
);

test.each([
  ["seconds=0.1234567890123", { seconds: 0.1234567890123, after: 0 }],
  ["seconds=1e-7", { seconds: 1e-7, after: 0 }],
  ["seconds=2E%2B1&after=1e3", { seconds: 20, after: 1000 }],
  ["seconds=5e-324", { seconds: 5e-324, after: 0 }],
  ["seconds=007", { seconds: 7, after: 0 }],
  ["after=9007199254740991", { seconds: 0, after: 9007199254740991 }],
])("takes a number as any program writes it: %s", (search, values) => {
  expect(read(search)).toEqual(values);
});

test.each([
  ..."seconds=x seconds=1e400 seconds=-1e400 seconds=Infinity seconds=NaN seconds=0x10 seconds=.5 seconds=5. seconds=1e".split(
    " ",
  ),
  ..."seconds=+1 seconds=%201 seconds=1_0 seconds=-1 seconds=2e1.0 seconds=20.000001 after=1.5 after=1e16".split(" "),
])("refuses what is no number, or out of range: %s", (search) => {
  expect(() => read(search)).toThrow(WaggleError);
});
