import * as z from "zod/mini";
import { integer, pageLimit, text } from "../fields.ts";
import { cursorCharacters } from "../page.ts";

export { newerFormat } from "./error.ts";

/*
 * What the API has to know of a transfer before there is one. The rest is loaded by whoever moves something
 * (`@waggle/core/transfer`), so that a function that never does starts without it.
 */

/** Records of one import. */
export const importRecords = 100;
export const ExportQuery = z.strictObject({
  limit: pageLimit(100),
  cursor: z.optional(text(cursorCharacters)),
});
/** `records` are looked at once the version is known to be one of ours. */
export const Import = z.strictObject({
  version: integer(1),
  records: z.array(z.unknown()).check(z.minLength(1), z.maxLength(importRecords)),
});
export type Import = z.output<typeof Import>;
export const outcomes = ["taken", "there", "differs"] as const;
export type Outcome = (typeof outcomes)[number];
