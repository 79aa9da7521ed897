import { storeErrors } from "./error.ts";
import type { Pattern, Value } from "./port/index.ts";

/**
 * Event patterns as EventBridge matches them.
 * Rules: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html; where the page is
 * silent, as its matcher does: https://github.com/aws/event-ruler.
 */
const patternCharacters = 2048;
/** `$or` multiplies: EventBridge refuses a pattern that unfolds to more combinations than this. */
const orCombinations = 1000;

/** Tests one leaf value of an event. */
type Test = (value: Scalar) => boolean;
type Scalar = string | number | boolean | null;
type Fields = { readonly [name: string]: unknown };

/** Tests a place in the event; `undefined`: nothing is there. */
type Node = (value: unknown, event: unknown) => boolean;

/**
 * Checks a pattern and makes a function of it. Throws `bus.pattern_invalid`, naming the place.
 * @example compilePattern({ detail: { attempts: [{ numeric: [">", 3] }] } })
 */
export function compilePattern(pattern: Pattern): (event: Value) => boolean {
  if (!isObject(pattern)) throw invalid([], "a pattern is an object");
  const characters = JSON.stringify(pattern).length;
  if (characters > patternCharacters) {
    throw invalid([], `the pattern has ${characters} characters; at most ${patternCharacters}`);
  }
  if (combinations(pattern) > orCombinations) throw invalid([], `$or makes more than ${orCombinations} combinations`);
  const node = compileObject(pattern, []);
  return (event) => node(event, event);
}

/** Checks and matches in one go; compile a pattern that is used often. */
export const matches = (pattern: Pattern, event: Value): boolean => compilePattern(pattern)(event);

function compileObject(pattern: Fields, path: readonly string[]): Node {
  const names = Object.keys(pattern);
  if (names.length === 0) throw invalid(path, "an object needs at least one field");
  const alternatives: Node[][] = [];
  const fields: { readonly name: string; readonly node: Node }[] = [];
  for (const name of names) {
    const below = pattern[name];
    const place = [...path, name];
    if (name === "$or" && Array.isArray(below) && below.every(isObject)) {
      if (below.length < 2) throw invalid(place, "$or takes at least two patterns");
      alternatives.push(below.map((each) => compileObject(each as Fields, path)));
    } else if (Array.isArray(below)) fields.push({ name, node: compileLeaf(below, place) });
    else if (isObject(below)) fields.push({ name, node: compileObject(below, place) });
    else throw invalid(place, "must be an array of values to match, or an object");
  }
  const matchesOne = (value: unknown, event: unknown): boolean => {
    const object = isObject(value) ? value : undefined;
    for (const { name, node } of fields) {
      const below = object !== undefined && Object.hasOwn(object, name) ? object[name] : undefined;
      if (!node(below, event)) return false;
    }
    for (const nodes of alternatives) if (!nodes.some((node) => node(value, event))) return false;
    return true;
  };
  // All fields of an object in a list have to match in one and the same element.
  return (value, event) => {
    if (!Array.isArray(value)) return matchesOne(value, event);
    const elements = value.flat(Number.POSITIVE_INFINITY);
    return elements.length === 0 ? matchesOne(undefined, event) : elements.some((each) => matchesOne(each, event));
  };
}

function compileLeaf(list: readonly unknown[], path: readonly string[]): Node {
  if (list.length === 0) throw invalid(path, "a list of values cannot be empty");
  const tests: Test[] = [];
  let absent = false;
  for (const each of list) {
    if (isObject(each) && each.exists === false && Object.keys(each).length === 1) absent = true;
    else tests.push(compileTest(each, path));
  }
  return (value, event) => {
    // The field counts as absent when no element of any list on the way has it.
    if (absent && !hasLeaf(event, path, 0)) return true;
    return value !== undefined && tests.length > 0 && someLeaf(value, (leaf) => tests.some((test) => test(leaf)));
  };
}

function compileTest(rule: unknown, path: readonly string[]): Test {
  if (isScalar(rule)) return (value) => value === rule;
  if (!isObject(rule)) throw invalid(path, "a list inside a list of values");
  const names = Object.keys(rule);
  if (names.length !== 1) throw invalid(path, "an operator is an object with one field");
  const name = names[0] as string;
  const place = [...path, name];
  const argument = rule[name];
  switch (name) {
    case "prefix":
    case "suffix": {
      if (isObject(argument)) {
        const folded = foldCase(onlyText(argument, "equals-ignore-case", place));
        return (value) => typeof value === "string" && edge(name, foldCase(value), folded);
      }
      const text = asText(argument, place);
      return (value) => typeof value === "string" && edge(name, value, text);
    }
    case "equals-ignore-case": {
      const folded = foldCase(asText(argument, place));
      return (value) => typeof value === "string" && foldCase(value) === folded;
    }
    case "wildcard":
      return compileWildcard(asText(argument, place), place);
    case "anything-but": {
      const test = compileAnythingBut(argument, place);
      return (value) => !test(value);
    }
    case "numeric":
      return compileNumeric(argument, place);
    case "exists":
      if (typeof argument !== "boolean") throw invalid(place, "must be true or false");
      return () => argument;
    case "cidr":
      return compileCidr(asText(argument, place), place);
    default:
      throw invalid(path, `there is no operator ${JSON.stringify(name)}`);
  }
}

/** What must not be: the test of the values an `anything-but` leaves out. */
function compileAnythingBut(argument: unknown, path: readonly string[]): Test {
  if (!isObject(argument)) {
    const values = Array.isArray(argument) ? argument : [argument];
    const type = typeof values[0];
    if (values.length === 0) throw invalid(path, "a list of values cannot be empty");
    if (type !== "string" && type !== "number") throw invalid(path, "takes texts or numbers");
    if (values.some((each) => typeof each !== type)) throw invalid(path, "takes texts or numbers, not both");
    return (value) => values.includes(value);
  }
  const names = Object.keys(argument);
  const name = names[0];
  if (names.length !== 1 || name === undefined) throw invalid(path, "an operator is an object with one field");
  if (name !== "prefix" && name !== "suffix" && name !== "equals-ignore-case" && name !== "wildcard") {
    throw invalid(path, `cannot be combined with ${JSON.stringify(name)}`);
  }
  const place = [...path, name];
  const given = argument[name];
  const texts = Array.isArray(given) ? given : [given];
  if (texts.length === 0) throw invalid(place, "a list of values cannot be empty");
  const tests = texts.map((text) => {
    if (text === "") throw invalid(place, "cannot be empty");
    return compileTest({ [name]: asText(text, place) }, path);
  });
  return (value) => tests.some((test) => test(value));
}

const comparisons: Readonly<Record<string, (value: number, bound: number) => boolean>> = {
  "=": (value, bound) => value === bound,
  "<": (value, bound) => value < bound,
  "<=": (value, bound) => value <= bound,
  ">": (value, bound) => value > bound,
  ">=": (value, bound) => value >= bound,
};
/** EventBridge compares numbers from −5e9 to 5e9. */
const numericBound = 5e9;

function compileNumeric(argument: unknown, path: readonly string[]): Test {
  if (!Array.isArray(argument) || argument.length === 0)
    throw invalid(path, 'must be a list such as [">", 0, "<=", 5]');
  const parts: { readonly operator: string; readonly bound: number }[] = [];
  for (let i = 0; i < argument.length; i += 2) {
    const operator = argument[i];
    const bound = argument[i + 1];
    if (typeof operator !== "string" || !Object.hasOwn(comparisons, operator)) {
      throw invalid(path, `${JSON.stringify(operator)} is not one of = < <= > >=`);
    }
    if (typeof bound !== "number") throw invalid(path, `${operator} needs a number after it`);
    if (Math.abs(bound) > numericBound) throw invalid(path, "compares numbers from -5e9 to 5e9");
    parts.push({ operator, bound });
  }
  const [first, second] = parts as [(typeof parts)[0], (typeof parts)[0] | undefined];
  if (second !== undefined) {
    const isRange = parts.length === 2 && first.operator.startsWith(">") && second.operator.startsWith("<");
    if (!isRange) throw invalid(path, "a range is > or >=, a number, then < or <=, a number");
    if (first.bound >= second.bound) throw invalid(path, "the range is empty");
  }
  return (value) =>
    typeof value === "number" &&
    Math.abs(value) <= numericBound &&
    parts.every(({ operator, bound }) => comparisons[operator]?.(value, bound));
}

/** `*` stands for any characters, also none; `\*` and `\\` for themselves. */
function compileWildcard(text: string, path: readonly string[]): Test {
  const parts: string[] = [""];
  for (let i = 0; i < text.length; i++) {
    const character = text[i] as string;
    if (character === "*") {
      if (text[i + 1] === "*") throw invalid(path, "two * in a row");
      parts.push("");
      continue;
    }
    let literal = character;
    if (character === "\\") {
      literal = text[++i] ?? "";
      if (literal !== "*" && literal !== "\\") throw invalid(path, "a \\ must be followed by * or \\");
    }
    parts[parts.length - 1] += literal;
  }
  const first = parts[0] as string;
  const last = parts[parts.length - 1] as string;
  if (parts.length === 1) return (value) => value === first;
  // Leftmost fits of the middle parts leave the most for what follows: no backtracking, so no slow pattern.
  return (value) => {
    if (typeof value !== "string" || value.length < first.length + last.length) return false;
    if (!value.startsWith(first) || !value.endsWith(last)) return false;
    let at = first.length;
    const end = value.length - last.length;
    for (let i = 1; i < parts.length - 1; i++) {
      const part = parts[i] as string;
      const found = value.indexOf(part, at);
      if (found === -1 || found + part.length > end) return false;
      at = found + part.length;
    }
    return true;
  };
}

function compileCidr(text: string, path: readonly string[]): Test {
  const [address, length, ...rest] = text.split("/");
  const base = readAddress(address ?? "");
  const bits = base?.length === 4 ? 32 : 128;
  const prefix = length === undefined ? bits : /^\d{1,3}$/.test(length) ? Number(length) : -1;
  if (base === undefined || rest.length > 0 || prefix < 0 || prefix > bits) {
    throw invalid(path, `${JSON.stringify(text)} is not an address range such as 10.0.0.0/24`);
  }
  return (value) => {
    const other = typeof value === "string" ? readAddress(value) : undefined;
    if (other === undefined || other.length !== base.length) return false;
    for (let bit = 0; bit < prefix; bit += 8) {
      const mask = prefix - bit >= 8 ? 0xff : (0xff00 >> (prefix - bit)) & 0xff;
      if (((other[bit >> 3] as number) ^ (base[bit >> 3] as number)) & mask) return false;
    }
    return true;
  };
}

/** The 4 or 16 bytes of an IP address. */
function readAddress(text: string): readonly number[] | undefined {
  if (!text.includes(":")) {
    const parts = text.split(".");
    const bytes = parts.map((part) => (/^\d{1,3}$/.test(part) ? Number(part) : 256));
    return parts.length === 4 && bytes.every((byte) => byte < 256) ? bytes : undefined;
  }
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const [head, tail] = halves.map((half) => readGroups(half));
  if (head === undefined || (halves.length === 2 && tail === undefined)) return undefined;
  if (tail === undefined) return head.length === 16 ? head : undefined;
  const gap = 16 - head.length - tail.length;
  return gap < 2 ? undefined : [...head, ...new Array<number>(gap).fill(0), ...tail];
}

function readGroups(text: string): readonly number[] | undefined {
  if (text === "") return [];
  const bytes: number[] = [];
  const groups = text.split(":");
  for (let i = 0; i < groups.length; i++) {
    const group = groups[i] as string;
    if (i === groups.length - 1 && group.includes(".")) {
      const last = readAddress(group);
      if (last === undefined) return undefined;
      bytes.push(...last);
    } else if (/^[0-9a-f]{1,4}$/i.test(group)) {
      const value = Number.parseInt(group, 16);
      bytes.push(value >> 8, value & 255);
    } else return undefined;
  }
  return bytes;
}

/** How many patterns without `$or` this one stands for. */
function combinations(pattern: Fields): number {
  let product = 1;
  for (const name of Object.keys(pattern)) {
    const below = pattern[name];
    if (name === "$or" && Array.isArray(below) && below.every(isObject)) {
      product *= below.reduce((sum: number, each) => sum + combinations(each as Fields), 0);
    } else if (isObject(below)) product *= combinations(below);
  }
  return product;
}

function hasLeaf(value: unknown, path: readonly string[], depth: number): boolean {
  if (Array.isArray(value)) return value.some((each) => hasLeaf(each, path, depth));
  if (depth === path.length) return isScalar(value);
  const name = path[depth] as string;
  return isObject(value) && Object.hasOwn(value, name) && hasLeaf(value[name], path, depth + 1);
}

function someLeaf(value: unknown, test: Test): boolean {
  if (Array.isArray(value)) return value.some((each) => someLeaf(each, test));
  return isScalar(value) && test(value);
}

const isObject = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const isScalar = (value: unknown): value is Scalar =>
  value === null || typeof value === "string" || typeof value === "number" || typeof value === "boolean";

const edge = (name: "prefix" | "suffix", value: string, text: string): boolean =>
  name === "prefix" ? value.startsWith(text) : value.endsWith(text);

/** Character by character, so that no text changes its length. */
const foldCase = (text: string): string => text.replace(/\p{Lu}/gu, (letter) => letter.toLowerCase());

function asText(value: unknown, path: readonly string[]): string {
  if (typeof value !== "string") throw invalid(path, "must be a text");
  return value;
}

function onlyText(value: Fields, name: string, path: readonly string[]): string {
  const names = Object.keys(value);
  if (names.length !== 1 || names[0] !== name) throw invalid(path, `must be a text or {"${name}": text}`);
  return asText(value[name], [...path, name]);
}

function invalid(path: readonly string[], message: string) {
  const place = path.join(".");
  return storeErrors.patternInvalid(place === "" ? message : `${place}: ${message}`, {
    errors: [{ path: place, message }],
  });
}
