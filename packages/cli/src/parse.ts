import { createReadStream } from "node:fs";
import { usage } from "./failure.ts";
import type { Io } from "./io.ts";

/** `30`, `30s`, `5m`, `1.5h`, `2d`, `250ms` as seconds. */
export function seconds(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?$/.exec(text.trim());
  if (!match) throw usage(`"${text}" is not a duration`, "write 30s, 5m, 1.5h or 2d");
  return Number(match[1]) * { ms: 0.001, s: 1, m: 60, h: 3600, d: 86_400 }[(match[2] ?? "s") as "s"];
}

export function integer(name: string, min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^-?\d+$/.test(text.trim()) || value < min || value > max) {
      throw usage(`${name} "${text}" is not a whole number from ${min} to ${max}`);
    }
    return value;
  };
}

/** `name` or `name:level`, the level from 0 to 1. */
export function capability(text: string): { name: string; level?: number } {
  const match = /^(.+):([01](?:\.\d+)?|\.\d+)$/.exec(text);
  if (!match) return { name: text };
  const level = Number(match[2]);
  if (level > 1) throw usage(`the level in "${text}" is over 1`, "levels go from 0 to 1, as in code:0.8");
  return { name: match[1] as string, level };
}

const scalar = (text: string): string | number => (/^-?\d+(\.\d+)?$/.test(text) ? Number(text) : text);

/** `key=value` of an agent. */
export function label(text: string): [string, string | number] {
  const at = text.indexOf("=");
  if (at < 1) throw usage(`label "${text}" is not key=value`);
  return [text.slice(0, at), scalar(text.slice(at + 1))];
}

export interface Selector {
  key: string;
  op: "eq" | "ne" | "in" | "exists" | "gt" | "gte" | "lt" | "lte";
  value?: string | number | boolean | (string | number)[];
  required?: boolean;
  weight?: number;
}
const operators = { "=": "eq", "==": "eq", "!=": "ne", ">": "gt", ">=": "gte", "<": "lt", "<=": "lte" } as const;

/** `zone=eu`, `zone!=us`, `memory>=16`, `zone=eu,us` (one of), `gpu` (is there), `!gpu` (is not). */
export function selector(text: string): Selector {
  const match = /^([^=!<>]+?)(==|!=|>=|<=|=|>|<)(.*)$/.exec(text);
  if (!match)
    return text.startsWith("!") ? { key: text.slice(1), op: "exists", value: false } : { key: text, op: "exists" };
  const [, key, sign, rest] = match as unknown as [string, string, keyof typeof operators, string];
  const op = operators[sign];
  if (op === "eq" && rest.includes(",")) return { key, op: "in", value: rest.split(",").map(scalar) };
  return { key, op, value: scalar(rest) };
}

/** `key=value` pairs of any text. */
export function pair(text: string): [string, string] {
  const at = text.indexOf("=");
  if (at < 1) throw usage(`"${text}" is not key=value`);
  return [text.slice(0, at), text.slice(at + 1)];
}

/** `limit/duration`: 100/1m is a hundred a minute. */
export function rate(text: string): { limit: number; perSeconds: number } {
  const [limit, per] = text.split("/");
  if (!limit || !per || !(Number(limit) > 0)) throw usage(`"${text}" is not a rate`, "write 100/1m or 5/s");
  return { limit: Number(limit), perSeconds: seconds(/^[a-z]/.test(per) ? `1${per}` : per) };
}

/** A duration in whole seconds, or `never`, which is 0. */
export function kept(text: string): number {
  if (text === "never") return 0;
  const whole = Math.round(seconds(text));
  // Rounded to 0 it would say the opposite.
  if (whole === 0) throw usage(`"${text}" is less than a second`, "`never` keeps for ever");
  return whole;
}

export async function readAll(stream: Io["stdin"]): Promise<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let text = "";
  for await (const chunk of stream) text += typeof chunk === "string" ? chunk : decoder.decode(chunk, { stream: true });
  return text + decoder.decode();
}

/** The JSON value of `@file`, `-` (standard input) or JSON itself. */
export async function json(what: string, text: string, io: Pick<Io, "stdin">): Promise<unknown> {
  const path = text.startsWith("@") ? text.slice(1) : undefined;
  const whence = text === "-" ? " from standard input" : path === undefined ? "" : ` in ${path}`;
  let source = text;
  try {
    if (text === "-") source = await readAll(io.stdin);
    else if (path !== undefined) source = await readAll(createReadStream(path));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ERR_ENCODING_INVALID_ENCODED_DATA") throw usage(`the ${what}${whence} is not UTF-8`);
    throw usage(`cannot read ${path ?? "standard input"}: ${code ?? String(error)}`);
  }
  try {
    return JSON.parse(source);
  } catch (error) {
    throw usage(
      `the ${what}${whence} is not JSON: ${(error as Error).message}`,
      `give JSON, @file or - for standard input; a plain text is JSON in quotes: '"like this"'`,
    );
  }
}
