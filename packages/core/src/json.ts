import { createHash } from "node:crypto";
import * as z from "zod/mini";
import { isError, requestErrors, storeErrors, type WaggleError } from "./error.ts";

/**
 * The exact text of one JSON value, as the caller wrote it. Payloads (`input`, `result`, `metadata`, `details`) are
 * stored and answered as this text, never re-made from a parsed value, so nothing in them is lost or renamed.
 */
export type JsonText = string & { readonly __json: true };

/** In a schema: any JSON value. The edge hands over its exact text (`readJson`); OpenAPI shows `{}`. */
export const jsonText = () => z.custom<JsonText>((value) => typeof value === "string").check(z.meta({ payload: true }));

export const jsonLimits = {
  bodyBytes: 1024 * 1024,
  depth: 64,
  inlineBytes: 64 * 1024,
  /** Of one object outside payloads. A schema looks at each before it counts them, which takes seconds for 100,000. */
  members: 1000,
} as const;

/** Too large to lie in its task's row: it is kept as a blob. A character is at most three bytes, so most texts need no count. */
export const isLarge = (text: JsonText): boolean =>
  text.length * 3 > jsonLimits.inlineBytes && new TextEncoder().encode(text).length > jsonLimits.inlineBytes;

/**
 * Of a payload that stays in its row, which has to have room for what comes: one that is full can be changed no more.
 * @throws `store.item_too_large`
 */
export function checkInline(path: string, text: JsonText | undefined): void {
  if (text === undefined || !isLarge(text)) return;
  const message = `${path} has at most 64 KiB`;
  throw storeErrors.itemTooLarge(message, { errors: [{ path, message }] });
}

/** Tells payloads apart, in the names of blobs. */
export const digestOf = (text: JsonText): string => createHash("sha256").update(text).digest("hex").slice(0, 32);

/** Equal for what is equal: stores may keep the members of a map in an order of their own. */
export const canonical = (value: unknown): string | undefined =>
  JSON.stringify(value, (_, part: unknown) =>
    isObject(part) && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)))
      : part,
  );

/**
 * Parses JSON, keeping the members named by `payloads` as the exact text they were written in.
 * Of a member written twice the last counts, as in `JSON.parse`.
 *
 * @param payloads paths of members, `*` for each entry of a list: `input`, `tasks.*.input`. Pass the same list each
 * time: it is compiled once.
 * @throws `request.invalid` with the path: not JSON, deeper than 64, wider than 1000 outside payloads, or a surrogate without its other half (U+D800 to
 * U+DFFF cannot be written as UTF-8: https://www.rfc-editor.org/rfc/rfc8259#section-8.2)
 * @example readJson('{"input": 1e400}', ["input"]) // { input: "1e400" }
 */
export function readJson(text: string, payloads: readonly string[]): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw invalid("", `${noJson}: ${(cause as Error).message}`);
  }
  if (!text.isWellFormed()) throw invalid(pathAt(text, firstLoneSurrogate(text)), loneSurrogate);
  if (text.includes("\\u")) checkEscapes(text);
  if (!isObject(value)) return value;
  let tree = compiled.get(payloads);
  if (tree === undefined) {
    tree = compile(payloads);
    compiled.set(payloads, tree);
  }
  scan(text, skipSpace(text, 0), 0, tree, value as Composite);
  if (text.includes("__proto__") || text.includes("\\u00")) refuseProto(value, "");
  if (text.length > jsonLimits.members * 4) refuseWide(value, "");
  return value;
}

const noJson = "the body is not JSON";

/** Of what `readJson` throws: the text is something else, and not JSON that breaks a limit. */
export const isNoJson = (error: unknown): boolean =>
  isError(error, requestErrors.invalid) && error.message.startsWith(noJson);

/** A list in a text whose entries stand each for itself: the tasks of a batch, the frames of a message. */
export interface Apart {
  /** The member that is the list. Unless given, the text is: or its one entry, where it is no list. */
  readonly member?: string;
  /** As for `readJson`, of one entry. */
  readonly payloads: readonly string[];
  /** The entries of a longer list are not looked at one by one. */
  readonly most: number;
  /** What takes the place of an entry that breaks a limit. */
  readonly refused: (problem: WaggleError, entry: unknown) => unknown;
}

/**
 * As `readJson`; but an entry of the list that breaks a limit leaves the others as they are. Only then is each read by itself,
 * its levels counted from its own beginning.
 * @throws as `readJson`, for what is wrong outside the list
 */
export function readJsonApart(text: string, payloads: readonly string[], apart: Apart): unknown {
  try {
    return readJson(text, payloads);
  } catch (problem) {
    const list = isNoJson(problem) ? undefined : listIn(text, apart.member);
    if (list === undefined || list.entries.length > apart.most) throw problem;
    const entries = list.entries.map((entry) => {
      try {
        return readJson(entry, apart.payloads);
      } catch (wrong) {
        return apart.refused(wrong as WaggleError, JSON.parse(entry));
      }
    });
    if (apart.member === undefined) return entries;
    const around = readJson(`${text.slice(0, list.from)}[]${text.slice(list.to)}`, payloads);
    return { ...(around as object), [apart.member]: entries };
  }
}

/** Where the list stands in a text that is known to be JSON, and the texts of its entries. */
function listIn(text: string, member: string | undefined): { from: number; to: number; entries: string[] } | undefined {
  const from = member === undefined ? skipSpace(text, 0) : lastMember(text, member);
  if (from === undefined || text.charCodeAt(from) !== openList)
    return member === undefined ? { from: 0, to: text.length, entries: [text] } : undefined;
  const entries: string[] = [];
  let at = skipSpace(text, from + 1);
  while (text.charCodeAt(at) !== closeList) {
    const end = skipDeep(text, at);
    entries.push(text.slice(at, end));
    at = skipSpace(text, end);
    if (text.charCodeAt(at) === comma) at = skipSpace(text, at + 1);
  }
  return { from, to: at + 1, entries };
}

/** Where the value of this member begins: of one written twice the last. */
function lastMember(text: string, wanted: string): number | undefined {
  let found: number | undefined;
  let at = skipSpace(text, 0);
  if (text.charCodeAt(at) !== openObject) return undefined;
  at = skipSpace(text, at + 1);
  while (text.charCodeAt(at) === quote) {
    const end = skipString(text, at);
    const name: unknown = JSON.parse(text.slice(at, end));
    at = skipSpace(text, skipSpace(text, end) + 1);
    if (name === wanted) found = at;
    at = skipSpace(text, skipDeep(text, at));
    if (text.charCodeAt(at) === comma) at = skipSpace(text, at + 1);
  }
  return found;
}

/** As `skip`, whatever the depth: counted from so far below, no text reaches the limit. */
const skipDeep = (text: string, start: number): number => skip(text, start, -text.length);

function refuseWide(value: unknown, path: string): void {
  if (!isObject(value)) return;
  const members = Object.entries(value);
  if (!Array.isArray(value) && members.length > jsonLimits.members)
    throw invalid(path, `expected at most ${jsonLimits.members} members, not ${members.length}`);
  for (const [name, member] of members) refuseWide(member, path === "" ? name : `${path}.${name}`);
}

/** A member named `__proto__` outside payloads: no schema has one, and those that take any name would drop it silently. */
function refuseProto(value: unknown, path: string): void {
  if (!isObject(value)) return;
  for (const [name, member] of Object.entries(value)) {
    const here = path === "" ? name : `${path}.${name}`;
    if (name === "__proto__") throw invalid(here, "unknown field");
    refuseProto(member, here);
  }
}

/** Which members below a value are payloads: `leaf`, or where to look further. `*` stands for the entries of a list. */
interface Tree {
  leaf: boolean;
  readonly members: Map<string, Tree>;
}
type Composite = Record<string | number, unknown>;
const isObject = (value: unknown): value is object => typeof value === "object" && value !== null;

const compiled = new WeakMap<readonly string[], Tree>();

function compile(payloads: readonly string[]): Tree {
  const root: Tree = { leaf: false, members: new Map() };
  for (const path of payloads) {
    let at = root;
    for (const part of path.split(".")) {
      const next = at.members.get(part) ?? { leaf: false, members: new Map() };
      at.members.set(part, next);
      at = next;
    }
    at.leaf = true;
  }
  return root;
}

const quote = 34;
const comma = 44;
const colon = 58;
const openList = 91;
const backslash = 92;
const closeList = 93;
const openObject = 123;
const closeObject = 125;

/**
 * Walks one value of text that is known to be JSON and puts payload texts into its parsed twin.
 * `depth` counts what is open around it. @returns the position after the value
 */
function scan(text: string, start: number, depth: number, tree: Tree, twin: Composite): number {
  if (depth >= jsonLimits.depth) throw tooDeep(text, start);
  const list = text.charCodeAt(start) === openList;
  const each = list ? tree.members.get("*") : undefined;
  if (list && each === undefined) return skip(text, start, depth);
  let at = skipSpace(text, start + 1);
  if (text.charCodeAt(at) === (list ? closeList : closeObject)) return at + 1;
  for (let index = 0; ; index++) {
    let name = "";
    let below = each;
    if (!list) {
      const end = skipString(text, at);
      name = text.slice(at + 1, end - 1);
      if (name.includes("\\")) name = JSON.parse(text.slice(at, end)) as string;
      below = tree.members.get(name);
      at = skipSpace(text, skipSpace(text, end) + 1);
    }
    const key = list ? index : name;
    // Of a member written twice the twin has only the last, so here may be one that it does not have.
    if (below === undefined || !Object.hasOwn(twin, key)) at = skip(text, at, depth + 1);
    else if (below.leaf) {
      const from = at;
      at = skip(text, from, depth + 1);
      twin[key] = text.slice(from, at);
    } else {
      const inner = twin[key];
      const first = text.charCodeAt(at);
      const alike = Array.isArray(inner) ? first === openList : isObject(inner) && first === openObject;
      at = alike ? scan(text, at, depth + 1, below, inner as Composite) : skip(text, at, depth + 1);
    }
    at = skipSpace(text, at);
    if (text.charCodeAt(at) !== comma) return at + 1;
    at = skipSpace(text, at + 1);
  }
}

/** @returns the position after the value that starts here */
function skip(text: string, start: number, depth: number): number {
  const first = text.charCodeAt(start);
  if (first === quote) return skipString(text, start);
  let open = depth;
  let at = start;
  if (first !== openObject && first !== openList) {
    // A number or a word ends where a separator, a bracket or the text does.
    for (; at < text.length; at++) {
      const code = text.charCodeAt(at);
      if (code === comma || code === closeObject || code === closeList || code <= 32) break;
    }
    return at;
  }
  for (;;) {
    const code = text.charCodeAt(at);
    if (code === quote) {
      at = skipString(text, at);
      continue;
    }
    if (code === openObject || code === openList) {
      if (++open > jsonLimits.depth) throw tooDeep(text, at);
    } else if ((code === closeObject || code === closeList) && --open === depth) return at + 1;
    at++;
  }
}

function skipString(text: string, start: number): number {
  for (let end = text.indexOf('"', start + 1); ; end = text.indexOf('"', end + 1)) {
    let before = end - 1;
    while (text.charCodeAt(before) === backslash) before--;
    if ((end - before) % 2 === 1) return end + 1;
  }
}

function skipSpace(text: string, start: number): number {
  let at = start;
  while (text.charCodeAt(at) <= 32) at++;
  return at;
}

const loneSurrogate = "a surrogate without its other half cannot be encoded as UTF-8";
const isHigh = (code: number) => code >= 0xd800 && code < 0xdc00;
const isLow = (code: number) => code >= 0xdc00 && code < 0xe000;

function firstLoneSurrogate(text: string): number {
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (isHigh(code) && isLow(text.charCodeAt(at + 1))) at++;
    else if (isHigh(code) || isLow(code)) return at;
  }
  return text.length;
}

function checkEscapes(text: string): void {
  const escaped = (at: number) =>
    text.charCodeAt(at) === backslash && text[at + 1] === "u" ? Number.parseInt(text.slice(at + 2, at + 6), 16) : 0;
  // A backslash appears in strings only, and there always with what it escapes.
  for (let at = text.indexOf("\\"); at >= 0; ) {
    const code = escaped(at);
    if (isHigh(code) && isLow(escaped(at + 6))) at += 12;
    else if (isHigh(code) || isLow(code)) throw invalid(pathAt(text, at), loneSurrogate);
    else at += 2;
    at = text.indexOf("\\", at);
  }
}

const invalid = (path: string, message: string) =>
  requestErrors.invalid(path === "" ? message : `${path}: ${message}`, { errors: [{ path, message }] });
const tooDeep = (text: string, at: number) =>
  invalid(pathAt(text, at), `nested deeper than ${jsonLimits.depth} levels`);

/** The path of what stands at a position of the text, at most 16 parts. Only for messages: it walks from the start. */
function pathAt(text: string, position: number): string {
  const path: (string | number)[] = [];
  for (let at = skipSpace(text, 0); at < position; at = skipSpace(text, at)) {
    const code = text.charCodeAt(at);
    const top = path.length - 1;
    if (code === quote) {
      const end = skipString(text, at);
      if (typeof path[top] === "string" && text.charCodeAt(skipSpace(text, end)) === colon)
        path[top] = text.slice(at + 1, end - 1);
      at = end;
      continue;
    }
    if (code === openObject) path.push("");
    else if (code === openList) path.push(0);
    else if (code === closeObject || code === closeList) path.pop();
    else if (code === comma && typeof path[top] === "number") path[top]++;
    at++;
  }
  return path.slice(0, 16).join(".");
}
