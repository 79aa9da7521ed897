import fc from "fast-check";

/** The part of JSON Schema that the document of this server uses. */
export interface Schema {
  readonly $ref?: string;
  readonly type?: string | readonly string[];
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly anyOf?: readonly Schema[];
  readonly oneOf?: readonly Schema[];
  readonly allOf?: readonly Schema[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: boolean | Schema;
  readonly items?: Schema;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly exclusiveMinimum?: number;
  readonly pattern?: string;
  readonly format?: string;
}

/** A JSON value as a tree, some of whose leaves are text as it will be sent. */
export type Tree =
  | { readonly text: string }
  | { readonly list: readonly Tree[] }
  | { readonly members: readonly (readonly [string, Tree])[] };

export function print(tree: Tree): string {
  if ("text" in tree) return tree.text;
  if ("list" in tree) return `[${tree.list.map(print).join(",")}]`;
  return `{${tree.members.map(([name, member]) => `${JSON.stringify(name)}:${print(member)}`).join(",")}}`;
}

const leaf = (value: unknown): Tree => ({ text: JSON.stringify(value) });
const leaves = (values: readonly unknown[]) => fc.constantFrom(...values.map(leaf));

/** What a schema cannot say: values that are there, by the name of their field. */
export type Known = (field: string) => readonly unknown[] | undefined;

const oftenMissing = 4;

/** Values that fit a schema, as far as it says what fits. */
export function fitting(
  schema: Schema,
  defs: Readonly<Record<string, Schema>>,
  known: Known,
  field = "",
): fc.Arbitrary<Tree> {
  const go = (inner: Schema, name = field) => fitting(inner, defs, known, name);
  if (schema.$ref !== undefined) {
    const name = schema.$ref.split("/").at(-1) as string;
    return go(defs[name] as Schema);
  }
  const there = known(field);
  if (there !== undefined && schema.properties === undefined && schema.items === undefined) return leaves(there);
  if (schema.const !== undefined) return fc.constant(leaf(schema.const));
  if (schema.enum !== undefined) return leaves(schema.enum);
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices !== undefined) return fc.oneof(...choices.map((choice) => go(choice)));
  switch (schema.type) {
    case "object":
      return object(schema, go);
    case "array":
      return fc
        .array(go(schema.items ?? {}), {
          minLength: schema.minItems ?? 0,
          maxLength: Math.max(schema.minItems ?? 0, 3),
        })
        .map((list) => ({ list }));
    case "string":
      return string(schema).map(leaf);
    case "integer":
    case "number":
      return number(schema).map(leaf);
    case "boolean":
      return fc.boolean().map(leaf);
    default:
      return fc.jsonValue({ maxDepth: 2 }).map(leaf);
  }
}

function object(schema: Schema, go: (schema: Schema, name?: string) => fc.Arbitrary<Tree>): fc.Arbitrary<Tree> {
  const names = Object.keys(schema.properties ?? {});
  if (names.length === 0) {
    const values = typeof schema.additionalProperties === "object" ? go(schema.additionalProperties) : undefined;
    if (values === undefined) return fc.constant({ members: [] });
    return fc
      .array(fc.tuple(fc.constantFrom("a", "tier", "\u00e9", "x y"), values), { maxLength: 2 })
      .map((members) => ({ members }));
  }
  const required = new Set(schema.required);
  const members = names.map((name) => {
    const value = go(schema.properties?.[name] as Schema, name);
    return required.has(name)
      ? value
      : fc.oneof({ weight: oftenMissing, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: value });
  });
  return fc.tuple(...members).map((values) => ({
    members: values.flatMap((value, at) => (value === undefined ? [] : [[names[at] as string, value] as const])),
  }));
}

const words = ["work", "a", "caf\u00e9", "\u540d\u524d", "two words", "x/y", "a#b", "constructor", "toString"];

function string({ pattern, format, minLength = 0, maxLength = 40 }: Schema): fc.Arbitrary<string> {
  if (format === "date-time") return fc.constantFrom("2030-01-01T00:00:00Z", "2031-05-05T10:00:00.123+02:00");
  if (format === "uri") return fc.constantFrom("http://127.0.0.1:9/hook", "https://example.com/hook");
  if (pattern !== undefined) return fc.stringMatching(new RegExp(pattern));
  const fits = words.filter(({ length }) => length >= minLength && length <= maxLength);
  return fits.length > 0
    ? fc.constantFrom(...fits)
    : fc.constantFrom("x".repeat(minLength), "y".repeat(Math.min(maxLength, minLength + 4)));
}

function number({ type, minimum = 0, maximum = 1000 }: Schema): fc.Arbitrary<number> {
  const least = Math.max(minimum, -1e9);
  const most = Math.min(maximum, 1e9);
  const bounds = fc.constantFrom(least, most);
  const between =
    type === "integer"
      ? fc.integer({ min: Math.ceil(least), max: Math.floor(most) })
      : fc.double({ min: least, max: most, noNaN: true });
  return fc.oneof({ weight: 1, arbitrary: bounds }, { weight: 4, arbitrary: between });
}
