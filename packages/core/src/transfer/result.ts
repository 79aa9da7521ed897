import type { WaggleError } from "../error.ts";
import type { Outcome } from "./request.ts";

/** What becomes of an imported record; `problem` tells what differs, and what to do about it. */
export interface Result {
  readonly outcome: Outcome;
  readonly problem?: WaggleError;
}
export const taken: Result = { outcome: "taken" };
export const there: Result = { outcome: "there" };
export const refused = (problem: WaggleError): Result => ({ outcome: "differs", problem });

/** Of these fields, those that the record has. */
export function picked<R extends object>(record: R, names: readonly (keyof R)[]): Partial<R> {
  const fields: Partial<R> = {};
  for (const name of names) if (record[name] !== undefined) fields[name] = record[name];
  return fields;
}
