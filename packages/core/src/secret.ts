import { createHash, randomBytes } from "node:crypto";
import type { Item, Ports } from "./port/index.ts";
import { bearerKey } from "./rows.ts";
import type { Actor } from "./scope.ts";

const hashes = new Map<string, string>();
/** More than connections that a server has at once. */
const hashesKept = 25_000;

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

/** The row by which whoever bears the text of this hash is found. */
export const bearerRow = (hash: string, tenant: string, { role, id }: Actor): Item => ({
  ...bearerKey(hash),
  kind: "bearer",
  tenant,
  role,
  id,
});

/** In its place, for good: no import makes a key that was revoked good again. */
export const revokedRow = (hash: string): Item => ({ ...bearerKey(hash), kind: "revoked" });

/** Text that may repeat what a caller sent, or what was thrown, with keys, tokens and secrets we made cut to their beginning. */
export const withoutSecrets = (text: string): string =>
  text.replace(/\b(wg[ak]_|whsec_)[A-Za-z0-9_+/-]{27,}={0,2}/g, "$1…");

/** `prefix_` + 160 bits of randomness. */
export const newSecret = (prefix: string): string => `${prefix}_${randomBytes(20).toString("base64url")}`;

const revokedChannel = (hash: string) => `revoked/${hash}`;

/** Tells whoever still acts by the text of this hash that it bears nothing any more. In other processes they find out when they look. */
export const tellRevoked = ({ live }: Ports, hash: string): void => live.publish(revokedChannel(hash), null);

/** @returns ends it */
export const onRevoked = ({ live }: Ports, bearer: string, listener: () => void): (() => void) =>
  live.subscribe(revokedChannel(hashOf(bearer)), listener);
