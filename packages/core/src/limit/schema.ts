import * as z from "zod/mini";
import { ConcurrencyLimit, RateLimit } from "../task/schema.ts";

export const Key = ConcurrencyLimit.shape.key;
/** At least one of the two. What the operator sets holds over what tasks ask. */
export const Put = z
  .strictObject({
    concurrency: z.optional(ConcurrencyLimit.shape.limit),
    rate: z.optional(z.strictObject({ limit: RateLimit.shape.limit, perSeconds: RateLimit.shape.perSeconds })),
  })
  .check(z.refine((put) => put.concurrency !== undefined || put.rate !== undefined, "give concurrency or rate"));
export type Put = z.output<typeof Put>;
export const Info = z.object({
  key: z.string(),
  concurrency: z.optional(z.number()),
  rate: z.optional(z.object({ limit: z.number(), perSeconds: z.number() })),
  /** Slots in use now. */
  running: z.number(),
  /** Tasks that wait for this key. */
  waiting: z.number(),
});
export type Info = z.output<typeof Info>;
