import type { AttributeValue } from "@aws-sdk/client-dynamodb";
import { expiryOf, type Item, type Value } from "@waggle/core";

/**
 * Names the last plain write of a row: after a reply that was lost it tells our own write from another's. One byte of name
 * and six of value, so that a row that fits a write unit still does as a rule.
 */
export const writeMark = "~";
/** The table's TTL attribute, epoch seconds; hidden from readers. Rows that expire have it, by their `expiresAt`. */
export const ttl = "ttl";
/** Rounded up: DynamoDB counts in seconds, and must not be early. */
export const ttlAt = (expiresAt: number): number => Math.ceil(expiresAt / 1000);

export type Attributes = Record<string, AttributeValue>;

export function toAttribute(value: Value): AttributeValue {
  // Half a surrogate pair is no UTF-8: such a text goes as its UTF-16 bytes, and comes back as it was.
  if (typeof value === "string") return value.isWellFormed() ? { S: value } : { B: Buffer.from(value, "utf16le") };
  // The shortest text that reads back as the same number: at most 17 digits of DynamoDB's 38.
  if (typeof value === "number") return { N: String(value) };
  if (typeof value === "boolean") return { BOOL: value };
  if (value === null) return { NULL: true };
  if (Array.isArray(value)) return { L: value.map(toAttribute) };
  if (typeof value !== "object") throw new TypeError(`a row cannot hold a ${typeof value}`);
  return { M: toAttributes(value as { readonly [name: string]: Value }) };
}

/**
 * A name that is empty or no UTF-8, which DynamoDB refuses, goes as its UTF-16 bytes behind a NUL; so does one with a NUL first,
 * and `__proto__`, at which the SDK's own reader fails.
 */
export const toName = (name: string): string =>
  name === "" || name === "__proto__" || name.startsWith("\0") || !name.isWellFormed()
    ? `\0${Buffer.from(name, "utf16le").toString("base64")}`
    : name;

const fromName = (name: string): string =>
  name.startsWith("\0") ? Buffer.from(name.slice(1), "base64").toString("utf16le") : name;

/** What is undefined is not there. */
function toAttributes(map: { readonly [name: string]: Value | undefined }): Attributes {
  const attributes: Attributes = {};
  for (const name in map) {
    const value = map[name];
    if (value !== undefined) place(attributes, toName(name), toAttribute(value));
  }
  return attributes;
}

/** As it is kept: with `mark`, and with the time DynamoDB may delete it where the row has one. */
export function toRow(item: Item, mark?: string): Attributes {
  const row = toAttributes(item);
  if (mark !== undefined) row[writeMark] = { S: mark };
  const ends = expiryOf(item);
  if (ends !== undefined) row[ttl] = { N: String(ttlAt(ends)) };
  return row;
}

/** An attribute as the SDK gives it, or as JSON in a Lambda event, where bytes are base64. */
export function fromAttribute(attribute: AttributeValue): Value {
  if (attribute.S !== undefined) return attribute.S;
  if (attribute.N !== undefined) return Number(attribute.N);
  if (attribute.BOOL !== undefined) return attribute.BOOL;
  if (attribute.NULL !== undefined) return null;
  if (attribute.L !== undefined) return attribute.L.map(fromAttribute);
  if (attribute.M !== undefined) return fromAttributes(attribute.M);
  const bytes: Uint8Array | string | undefined = attribute.B;
  // LocalStack's streams leave an empty map out of its attribute.
  if (Object.keys(attribute).length === 0) return {};
  if (bytes === undefined) throw new TypeError(`an attribute is of type ${Object.keys(attribute)}, which no row holds`);
  return (typeof bytes === "string" ? Buffer.from(bytes, "base64") : Buffer.from(bytes)).toString("utf16le");
}

function fromAttributes(attributes: Readonly<Record<string, AttributeValue>>): { readonly [name: string]: Value } {
  const map: Record<string, Value> = {};
  for (const name in attributes) place(map, fromName(name), fromAttribute(attributes[name] as AttributeValue));
  return map;
}

export function fromRow(row: Readonly<Record<string, AttributeValue>>): Item {
  const item = fromAttributes(row) as Record<string, Value>;
  delete item[writeMark];
  if (expiryOf(item as unknown as Item) !== undefined) delete item[ttl];
  return item as unknown as Item;
}

/** `__proto__` is a name like any other. */
function place<T>(map: Record<string, T>, name: string, value: T): void {
  if (name !== "__proto__") map[name] = value;
  else Object.defineProperty(map, name, { value, enumerable: true, configurable: true, writable: true });
}
