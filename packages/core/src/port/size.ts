import type { Item, Value } from "./store.ts";

/** Bytes of a text in UTF-8. */
export function textBytes(text: string): number {
  const length = text.length;
  if (length > 48) return Buffer.byteLength(text);
  for (let i = 0; i < length; i++) if (text.charCodeAt(i) > 127) return Buffer.byteLength(text);
  return length;
}

/** Attribute names repeat: their sizes are looked up, not counted. */
const names = new Map<string, number>();
export function nameBytes(name: string): number {
  let bytes = names.get(name);
  if (bytes === undefined) {
    bytes = textBytes(name);
    if (names.size > 4096) names.clear();
    names.set(name, bytes);
  }
  return bytes;
}

/**
 * Whether a number is one that a row can hold: DynamoDB's range.
 * Source: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html
 */
export function isStorable(value: number): boolean {
  const size = Math.abs(value);
  return size < 1e126 && (size >= 1e-130 || size === 0);
}

/** One byte for every two significant digits, one more, and one for the sign. */
function numberBytes(value: number): number {
  if (!isStorable(value)) {
    throw new TypeError(`a row can hold finite numbers from 1e-130 to below 1e126 only, not ${value}`);
  }
  const sign = value < 0 ? 1 : 0;
  let rest = value < 0 ? -value : value;
  if (!Number.isInteger(rest)) return Math.ceil(String(rest).replace(/e.*|\.|^0\./g, "").length / 2) + 1 + sign;
  let bytes = 1 + sign;
  while (rest >= 100 && rest % 100 === 0) rest /= 100;
  for (; rest >= 1; rest /= 100) bytes++;
  return bytes;
}

/** As DynamoDB counts: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html */
export function valueBytes(value: Value): number {
  if (typeof value === "string") return textBytes(value);
  if (typeof value === "number") return numberBytes(value);
  if (value === null || typeof value === "boolean") return 1;
  // Anything else would make the log unreadable, or the write of a whole frame fail.
  if (typeof value !== "object") throw new TypeError(`a row cannot hold a ${typeof value}`);
  let bytes = 3;
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) bytes += 1 + valueBytes(value[i]);
    return bytes;
  }
  const map = value as { readonly [name: string]: Value };
  for (const name in map) {
    const part = map[name];
    if (part !== undefined) bytes += 1 + nameBytes(name) + valueBytes(part);
  }
  return bytes;
}

/** An attribute that is undefined is not there. */
export function itemBytes(item: Item): number {
  let bytes = 0;
  for (const name in item) {
    const value = item[name];
    if (value !== undefined) bytes += nameBytes(name) + valueBytes(value);
  }
  return bytes;
}

const started = (bytes: number, unitBytes: number): number => (bytes <= unitBytes ? 1 : Math.ceil(bytes / unitBytes));

/** What DynamoDB bills for writing a row of so many bytes, outside transactions. */
export const writeUnits = (bytes: number): number => started(bytes, 1024);
/** What DynamoDB bills for a strong read of rows of so many bytes together. */
export const readUnits = (bytes: number): number => started(bytes, 4096);
/** What SQS and EventBridge bill a message of so many bytes as. */
export const messageUnits = (bytes: number): number => started(bytes, 64 * 1024);
