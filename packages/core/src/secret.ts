import { createHash, randomBytes } from "node:crypto";

const hashes = new Map<string, string>();
const hashesKept = 10_000;

/** All that is ever stored of a bearer text. Random 160-bit secrets need no slow hash. */
export function hashOf(bearer: string): string {
  const known = hashes.get(bearer);
  if (known !== undefined) return known;
  const hash = createHash("sha256").update(bearer).digest("base64url");
  // The same few keys come with every request; one that was made up must not push them out for long.
  if (hashes.size >= hashesKept) hashes.clear();
  hashes.set(bearer, hash);
  return hash;
}

/** `prefix_` + 160 bits of randomness. */
export const newSecret = (prefix: string): string => `${prefix}_${randomBytes(20).toString("base64url")}`;
