import { base32, type Random } from "./port/index.ts";

/** 48 bits of milliseconds as 10 base-32 characters that sort as the time does. */
export function encodeTime(at: number): string {
  let text = "";
  for (let rest = at, i = 0; i < 10; i++) {
    text = base32[rest % 32] + text;
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
  return `${prefix}_${encodeTime(lastAt)}${base32[order >> 10]}${base32[(order >> 5) & 31]}${base32[order & 31]}${random(9)}`;
}

/** What an id looks like: `base32` behind its prefix. */
export const idPattern = (prefix: IdPrefix): RegExp => new RegExp(`^${prefix}_[0-9a-hjkmnp-tv-z]{22}$`);

const patterns = { tsk: idPattern("tsk"), agt: idPattern("agt"), key: idPattern("key"), req: idPattern("req") };
export const isId = (prefix: IdPrefix, text: string): boolean => patterns[prefix].test(text);
