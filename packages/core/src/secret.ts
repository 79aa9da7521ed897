import { createHash, randomBytes } from "node:crypto";

/** All that is ever stored of a bearer text. Random 160-bit secrets need no slow hash. */
export const hashOf = (bearer: string): string => createHash("sha256").update(bearer).digest("base64url");

/** `prefix_` + 160 bits of randomness. */
export const newSecret = (prefix: string): string => `${prefix}_${randomBytes(20).toString("base64url")}`;
