import type { Random } from "./port/index.ts";

const alphabet = "0123456789abcdefghjkmnpqrstvwxyz";

/** 48 bits of milliseconds as 10 base-32 characters that sort as the time does. */
export function encodeTime(at: number): string {
  let text = "";
  for (let rest = at, i = 0; i < 10; i++) {
    text = alphabet[rest % 32] + text;
    rest = Math.floor(rest / 32);
  }
  return text;
}

export type IdPrefix = "tsk" | "agt" | "key" | "req";

let lastAt = 0;
let sequence = 0;

/** `tsk_` + time (10) + order within the millisecond (3) + randomness (9): ids of one process sort by creation. */
export function createId(prefix: IdPrefix, at: number, random: Random): string {
  if (at > lastAt) {
    lastAt = at;
    sequence = 0;
  } else sequence++;
  const order = Math.min(sequence, 32767);
  return `${prefix}_${encodeTime(lastAt)}${alphabet[order >> 10]}${alphabet[(order >> 5) & 31]}${alphabet[order & 31]}${random(9)}`;
}

const shape = /^[a-z]{3}_[0-9a-hjkmnp-tv-z]{22}$/;
export const isId = (prefix: IdPrefix, text: string): boolean => text.startsWith(`${prefix}_`) && shape.test(text);
