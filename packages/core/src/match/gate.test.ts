import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { admit, asRead, correctionOf, type Row } from "./gate.ts";

describe("a rate limit", () => {
  const rate = { limit: 5, perSeconds: 10 };
  test("lets a burst of its limit through at once, and then one each tenth", () => {
    let tat = 0;
    const starts: number[] = [];
    for (let now = 0; starts.length < 8; now += 100) {
      for (;;) {
        const answer = admit(tat, rate, 1, now);
        if (!answer.ok) break;
        tat = answer.tat;
        starts.push(now);
      }
    }
    expect(starts).toEqual([0, 0, 0, 0, 0, 2000, 4000, 6000]);
  });
  test("says when there will be room, and there is room then and not before", () => {
    const full = [1, 2, 3, 4, 5].reduce((tat) => (admit(tat, rate, 1, 0) as { tat: number }).tat, 0);
    const answer = admit(full, rate, 2, 0);
    expect(answer).toEqual({ ok: false, nextAt: 4000 });
    expect(admit(full, rate, 2, 3999).ok).toBe(false);
    expect(admit(full, rate, 2, 4000).ok).toBe(true);
  });
  test("lets a weight above the whole limit pass alone instead of never", () => {
    expect(admit(0, rate, 50, 0).ok).toBe(true);
    expect(admit(1, rate, 50, 0).ok).toBe(false);
  });
  test("has room for anything when it is empty, and else says a time to come, whatever the numbers", () => {
    const size = fc.double({ min: 0.001, max: 1_000_000, noNaN: true });
    const seconds = fc.double({ min: 0.001, max: 86_400, noNaN: true });
    const day = fc.integer({ min: Date.parse("2024-01-01"), max: Date.parse("2100-01-01") });
    fc.assert(
      fc.property(size, seconds, size, day, (limit, perSeconds, weight, now) => {
        const odd = { limit, perSeconds };
        const first = admit(0, odd, weight, now);
        expect(first.ok).toBe(true);
        const second = admit((first as { tat: number }).tat, odd, weight, now);
        if (second.ok) return;
        expect(second.nextAt).toBeGreaterThan(now);
        expect(admit((first as { tat: number }).tat, odd, weight, second.nextAt).ok).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });
  test("never admits more than its limit plus what time gave back, in any window", () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 3000 }), fc.integer({ min: 1, max: 3 })), { maxLength: 200 }),
        (steps) => {
          let now = 0;
          let tat = 0;
          const taken: [number, number][] = [];
          for (const [wait, weight] of steps) {
            now += wait;
            const answer = admit(tat, rate, weight, now);
            if (!answer.ok) continue;
            tat = answer.tat;
            taken.push([now, weight]);
          }
          for (const [from] of taken) {
            const inside = taken
              .filter(([at]) => at >= from && at < from + 10_000)
              .reduce((sum, [, weight]) => sum + weight, 0);
            expect(inside).toBeLessThanOrEqual(2 * rate.limit);
          }
        },
      ),
    );
  });
  test("goes on letting tasks through when its time was corrected by a store that adds in decimals", () => {
    const digits = 20;
    /** In units of 10^-20. */
    const exact = (value: number): bigint => {
      const [whole = "", part = ""] = String(value).split(".");
      return BigInt(whole + part.padEnd(digits, "0"));
    };
    const read = (units: bigint) => Number(`${units / 10n ** BigInt(digits)}.${`${units}`.slice(-digits)}`);
    const day = fc.integer({ min: Date.parse("2024-01-01"), max: Date.parse("2100-01-01") });
    const part = fc.integer({ min: 1, max: 10_000 });
    fc.assert(
      fc.property(day, part, part, part, (now, limit, weight, more) => {
        const { tat } = admit(0, { limit, perSeconds: 1 }, weight, now) as { tat: number };
        const stored = exact(tat) + exact((more * 1000) / limit);
        const row = { running: 1, tat: read(stored) } as Row;
        const { equals, lessThan } = asRead(row, true);
        expect(equals).toEqual({ running: 1 });
        expect(exact(lessThan?.tat as number) > stored).toBe(true);
        // Another that entered meanwhile and took a thousandth of a millisecond or more is seen.
        expect((lessThan?.tat as number) - row.tat!).toBeLessThan(0.001);
      }),
      { numRuns: 1000 },
    );
  });
  test("is corrected by no more digits than a store has for the sum, whatever a call says it used", () => {
    const now = Date.parse("2030-01-01");
    const size = fc.double({ min: 0.001, max: 1_000_000, noNaN: true });
    const seconds = fc.double({ min: 0.001, max: 86_400, noNaN: true });
    const units = fc.oneof(fc.double({ min: 0, max: 9e125, noNaN: true }), size);
    const digits = (limit: number, perSeconds: number, weight: number, used: number) => {
      const by = correctionOf({ limit, perSeconds }, weight, used, now, now);
      expect(Math.abs(by)).toBeLessThanOrEqual(1e15);
      return String(by).split(".")[1]?.length ?? 0;
    };
    // What a sum of prices may come to: 0.30000000000000004.
    expect(digits(100, 60, 0.3, 0.1 + 0.2)).toBe(0);
    fc.assert(
      fc.property(size, seconds, size, units, (...numbers) => {
        expect(digits(...numbers)).toBeLessThanOrEqual(3);
      }),
    );
  });
});
