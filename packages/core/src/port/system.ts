import { randomFillSync } from "node:crypto";
import type { Clock, Random } from "./clock.ts";

export const systemClock: Clock = {
  now: Date.now,
  after(delayMs, callback) {
    // Longer than a timer can hold (2^31 ms) would fire at once; the caller looks again when it fires early.
    const timer = setTimeout(callback, Math.min(delayMs, 2 ** 31 - 1));
    return () => clearTimeout(timer);
  },
};

/** Digits of ids, in the order they sort: Crockford's, without i, l, o and u. */
export const base32 = "0123456789abcdefghjkmnpqrstvwxyz";
const pool = Buffer.alloc(4096);
let used = pool.length;

export const systemRandom: Random = (length) => {
  let text = "";
  for (let i = 0; i < length; i++) {
    if (used === pool.length) {
      randomFillSync(pool);
      used = 0;
    }
    text += base32[(pool[used++] as number) & 31];
  }
  return text;
};

/** A number in [0, 1), in a million steps. */
export const fractionOf = (random: Random): number =>
  [...random(4)].reduce((sum, digit) => (sum + base32.indexOf(digit)) / base32.length, 0);
