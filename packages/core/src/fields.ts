import * as z from "zod/mini";
import { isStorable } from "./port/size.ts";

/*
 * What requests and records are made of. Each is built once, and in one step: a function that starts spends as long on its
 * schemas as on all else it runs, and every `.check` of a schema makes another copy of it.
 */

/** The same schema for the same bounds. */
function once<Bounds extends readonly (number | undefined)[], Schema>(make: (...bounds: Bounds) => Schema) {
  const made = new Map<string, Schema>();
  return (...bounds: Bounds): Schema => {
    const key = bounds.join();
    const schema = made.get(key) ?? make(...bounds);
    made.set(key, schema);
    return schema;
  };
}

/** @param max characters, as of JavaScript's strings */
export const text = once((max: number) => z.string().check(z.maxLength(max)));

/** Names of things people choose: types, capabilities, roles, tags, keys. */
export const name = once((max: number = 128) =>
  z
    .string()
    .check(
      z.minLength(1),
      z.maxLength(max),
      z.regex(/^[^\p{C}\p{Z}]+( [^\p{C}\p{Z}]+)*$/u, "no control characters, no leading, trailing or double spaces"),
    ),
);

const between = (min: number | undefined, max: number | undefined) => [
  ...(min === undefined ? [] : [z.gte(min)]),
  ...(max === undefined ? [] : [z.lte(max)]),
];
const storable = z.refine<number>(isStorable, "expected 0, or a number from 1e-130 to below 1e126 or its negative");

/** A number that a row can hold, whatever the engine. */
export const number = once((min?: number, max?: number) => z.number().check(storable, ...between(min, max)));

export const integer = once((min: number, max?: number) => z.number().check(z.int(), ...between(min, max)));

/** How much a page of a list has at most, in a query. */
export const pageLimit = (usual: number) => z._default(z.coerce.number().check(z.int(), z.gte(1), z.lte(200)), usual);
