import type { AttributeValue } from "@aws-sdk/client-dynamodb";
import { type Changes, type Condition, expiryOf, type Scalar, type Value } from "@waggle/core";
import { toAttribute, toName, ttl, ttlAt, writeMark } from "./marshal.ts";

/** Names and values of one call's expressions: any name may be a reserved word, so each goes by a number. */
export function createExpression() {
  const names: Record<string, string> = {};
  const values: Record<string, AttributeValue> = {};
  const known = new Map<string, string>();
  let count = 0;
  return {
    name(attribute: string): string {
      let placeholder = known.get(attribute);
      if (placeholder === undefined) {
        placeholder = `#${known.size}`;
        known.set(attribute, placeholder);
        names[placeholder] = toName(attribute);
      }
      return placeholder;
    },
    value(value: Value): string {
      const placeholder = `:${count++}`;
      values[placeholder] = toAttribute(value);
      return placeholder;
    },
    /** DynamoDB refuses empty maps. */
    parts: () => ({
      ...(known.size > 0 && { ExpressionAttributeNames: names }),
      ...(count > 0 && { ExpressionAttributeValues: values }),
    }),
  };
}
type Expression = ReturnType<typeof createExpression>;

/** A condition as DynamoDB evaluates it; undefined when it has no part. */
export function conditionText(condition: Condition | undefined, { name, value }: Expression): string | undefined {
  if (condition === undefined) return undefined;
  const { exists, equals = {}, oneOf = {}, missing = [], lessThan = {}, sizeBelow = {} } = condition;
  const parts: string[] = [];
  if (exists !== undefined) parts.push(`attribute_${exists ? "" : "not_"}exists(${name("pk")})`);
  for (const [each, expected] of Object.entries(equals)) parts.push(`${name(each)} = ${value(expected)}`);
  for (const [each, among] of Object.entries(oneOf))
    parts.push(`${name(each)} IN (${(among as readonly Scalar[]).map(value).join(", ")})`);
  for (const each of missing) parts.push(`attribute_not_exists(${name(each)})`);
  for (const [each, bound] of Object.entries(lessThan)) parts.push(`${name(each)} < ${value(bound)}`);
  for (const [each, bound] of Object.entries(sizeBelow))
    parts.push(`(attribute_not_exists(${name(each)}) OR size(${name(each)}) < ${value(bound)})`);
  return parts.length === 0 ? undefined : parts.join(" AND ");
}

/** That this very write has not been done yet. */
export const notYet = (mark: string, { name, value }: Expression): string =>
  `(attribute_not_exists(${name(writeMark)}) OR ${name(writeMark)} <> ${value(mark)})`;

export const both = (a: string | undefined, b: string | undefined): string | undefined =>
  a === undefined ? b : b === undefined ? a : `${a} AND ${b}`;

/**
 * An update as DynamoDB does it: removed first, then set, then added, as the port says, though DynamoDB takes each attribute
 * once only. `kind` is given to a row the update makes. @param mark undefined takes the mark away
 */
export function updateText(
  { set = {}, add = {}, remove = [] }: Changes,
  kind: string,
  mark: string | undefined | "keep",
  { name, value }: Expression,
): string {
  const sets: string[] = [];
  const adds: string[] = [];
  const gone = new Set(remove);
  const isSet = (each: string) => set[each] !== undefined;
  for (const each of Object.keys(set)) {
    const to = set[each];
    if (to === undefined) continue;
    if (each === "pk" || each === "sk") throw new TypeError("an update cannot change the key of a row");
    const by = add[each];
    if (by !== undefined && typeof to !== "number") throw new TypeError(`cannot add to ${each}: it is not a number`);
    sets.push(`${name(each)} = ${value(by === undefined ? to : (to as number) + by)}`);
  }
  for (const [each, by] of Object.entries(add)) {
    if (isSet(each)) continue;
    if (gone.has(each)) sets.push(`${name(each)} = ${value(by)}`);
    else adds.push(`${name(each)} ${value(by)}`);
  }
  const removes = [...gone].filter((each) => !isSet(each) && add[each] === undefined).map(name);
  if (gone.has("pk") || gone.has("sk") || (gone.has("kind") && !isSet("kind")))
    throw new TypeError("an update cannot change the key of a row or take its kind");
  const ends = expiryOf({ pk: "", sk: "", kind, expiresAt: set.expiresAt });
  if (ends !== undefined) sets.push(`${name(ttl)} = ${value(ttlAt(ends))}`);
  else if (gone.has("expiresAt") && expiryOf({ pk: "", sk: "", kind, expiresAt: 0 }) !== undefined)
    removes.push(name(ttl));
  if (!isSet("kind")) sets.push(`${name("kind")} = if_not_exists(${name("kind")}, ${value(kind)})`);
  if (mark === undefined) removes.push(name(writeMark));
  else if (mark !== "keep") sets.push(`${name(writeMark)} = ${value(mark)}`);
  return [
    `SET ${sets.join(", ")}`,
    adds.length > 0 ? `ADD ${adds.join(", ")}` : "",
    removes.length > 0 ? `REMOVE ${removes.join(", ")}` : "",
  ]
    .filter(Boolean)
    .join(" ");
}
