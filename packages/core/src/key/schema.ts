import * as z from "zod/mini";
import { name } from "../fields.ts";

export const roles = ["admin", "operator", "client", "reader"] as const;
export const tenantName = z
  .string()
  .check(z.regex(/^[a-z0-9][a-z0-9-]{0,62}$/, "1–63 of a–z, 0–9 and -, not starting with -"));
export const Create = z.strictObject({
  role: z.enum(roles),
  tenant: z.optional(tenantName),
  name: z.optional(name()),
});
export type Create = z.output<typeof Create>;
export const Info = z.object({
  id: z.string(),
  role: z.enum(roles),
  tenant: z.string(),
  name: z.optional(z.string()),
  createdAt: z.string(),
  /** The first characters of the key, to tell it by. */
  hint: z.string(),
});
export type Info = z.output<typeof Info>;
