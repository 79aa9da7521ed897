import * as z from "zod/mini";
import { integer } from "../fields.ts";

/** What is counted of a tenant, beside the tasks it submits in a time. */
export const counted = ["tasks", "bytes", "waiting", "agents"] as const;
export type Counted = (typeof counted)[number];
export type Amounts = Record<Counted, number>;

const count = integer(0, 1e15);

/** What a tenant may have at most. What is left out is not limited. */
export const Quotas = z.strictObject({
  /** Tasks of any status. */
  tasks: z.optional(count),
  /** Of tasks: their payloads in UTF-8, and 1 KiB for each. */
  bytes: z.optional(count),
  /** Tasks that are queued or scheduled. */
  waiting: z.optional(count),
  /** Agents that are not stopped. */
  agents: z.optional(count),
  /** Tasks submitted. */
  submits: z.optional(z.strictObject({ limit: integer(1, 1e9), perSeconds: integer(1, 86_400) })),
});
export type Quotas = z.output<typeof Quotas>;

export const Info = z.object({
  tenant: z.string(),
  quotas: Quotas,
  /** What there is now. On AWS about a second old. */
  usage: z.object({ tasks: z.number(), bytes: z.number(), waiting: z.number(), agents: z.number() }),
});
export type Info = z.output<typeof Info>;
