import { createHash } from "node:crypto";
import type { BlobRecord, PayloadField } from "./schema.ts";
import { transferLimits } from "./schema.ts";

export const sha256 = (text: string): string => createHash("sha256").update(text, "utf8").digest("hex");

/** A payload that is too long for a line, as records that go before its task's. */
export function cut(id: string, field: PayloadField, text: string): BlobRecord[] {
  const texts: string[] = [];
  for (let at = 0; at < text.length; ) {
    let end = Math.min(text.length, at + transferLimits.pieceCharacters);
    // Halves of a surrogate pair cannot be written apart.
    if (end < text.length && (text.charCodeAt(end - 1) & 0xfc00) === 0xd800) end--;
    texts.push(text.slice(at, end));
    at = end;
  }
  const whole = sha256(text);
  return texts.map((piece, index) => ({
    kind: "blob",
    id,
    field,
    sha256: whole,
    index,
    of: texts.length,
    text: piece,
  }));
}

/** Where a piece waits for the others and for its task. */
export const pieceKey = (tenant: string, id: string, field: PayloadField, whole: string, index: number): string =>
  `${tenant}/import/${id}/${field}-${whole}/${index}`;
