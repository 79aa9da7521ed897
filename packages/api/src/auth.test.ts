import type { Clock } from "@waggle/core";
import { expect, test } from "vitest";
import { createFailedAuth, limits } from "./auth.ts";

function standing() {
  let now = 0;
  const clock: Clock = { now: () => now, after: () => () => {} };
  const auth = createFailedAuth(clock);
  return {
    pass: (ms: number) => {
      now += ms;
    },
    fail: (address: string) => auth.refuse(address, "wrong").kind.status,
    wait: (address: string) => auth.refuse(address, "wrong").extra.retryAfterSeconds,
  };
}

test("wrong keys are limited for each address, and allowed again as time passes", () => {
  const { fail, wait, pass } = standing();
  for (let i = 0; i < limits.failures; i++) expect(fail("1.1.1.1")).toBe(401);
  expect(fail("1.1.1.1")).toBe(429);
  expect(wait("1.1.1.1")).toBe(1 / limits.failuresPerSecond);
  expect(fail("1.1.1.2")).toBe(401);
  pass(1000 / limits.failuresPerSecond);
  expect([fail("1.1.1.1"), fail("1.1.1.1")]).toEqual([401, 429]);
});

test("a whole IPv6 /64 counts as one address, mapped IPv4 addresses by themselves", () => {
  const { fail } = standing();
  for (let i = 0; i < limits.failures; i++) expect(fail(`2001:db8::${i.toString(16)}`)).toBe(401);
  expect(fail("2001:db8:0:0:ffff:1:2:3")).toBe(429);
  expect(fail("2001:db8:0:1::1")).toBe(401);
  for (let i = 0; i < limits.failures; i++) fail("::ffff:10.0.0.1");
  expect([fail("::ffff:10.0.0.1"), fail("::ffff:10.0.0.2")]).toEqual([429, 401]);
});

test("remembers a bounded number of addresses", () => {
  const { fail } = standing();
  for (let i = 0; i <= limits.failures; i++) fail("9.9.9.9");
  expect(fail("9.9.9.9")).toBe(429);
  for (let i = 0; i < limits.addresses; i++) fail(`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`);
  expect(fail("9.9.9.9")).toBe(401);
});
