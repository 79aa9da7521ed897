import { cursorCharacters, type ErrorKind, errorKinds, type IdPrefix, idPattern, pageLimit, text } from "@waggle/core";
import * as z from "zod/mini";
import type { Param } from "../route.ts";

/** An error declared in core, by its code. */
export function declared(code: string): ErrorKind {
  const kind = errorKinds.get(code);
  if (kind === undefined) throw new Error(`error ${code} is not declared`);
  return kind;
}

/** An id in the path. One that was never made is as good as one of another tenant: not found. */
export function idParam(prefix: IdPrefix, what: string, notFound: ErrorKind): Param {
  return {
    schema: z.string().check(z.regex(idPattern(prefix))),
    missing: (value) => notFound(`there is no ${what} ${value.slice(0, 64)}`),
  };
}

/** A query that pages through a list. */
export const Page = z.strictObject({
  limit: pageLimit(50),
  cursor: z.optional(text(cursorCharacters)),
});

/** JSON text of a page whose items are JSON text. */
export const pageJson = (items: readonly string[], nextCursor: string | undefined): string =>
  `{"items":[${items.join(",")}]${nextCursor === undefined ? "" : `,"nextCursor":${JSON.stringify(nextCursor)}`}}`;

/** A body without members, for calls that take none. */
export const Nothing = z.strictObject({});
