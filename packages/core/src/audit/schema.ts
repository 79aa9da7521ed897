import * as z from "zod/mini";
import { defineError } from "../error.ts";
import { tenantName } from "../key/schema.ts";

export const tooLarge = defineError("audit.too_large", {
  status: 422,
  title: "There is more than one call can read",
  retry: "never",
});

export const Query = z.strictObject({
  /** Whose rows are read. */
  tenant: z.optional(tenantName),
});

export const Finding = z.object({
  /** What kind of thing it is: `agent.slots`, `list.missing`, … */
  code: z.string(),
  /** Partition and sort key of the row. */
  row: z.string(),
  /** The task, agent or key it is about. */
  subject: z.string(),
  problem: z.string(),
  repair: z.string(),
});
export type Finding = z.output<typeof Finding>;

export const Report = z.object({
  /** Whose rows were read. */
  tenants: z.array(z.string()),
  /** Rows read, by kind. */
  rows: z.record(z.string(), z.number()),
  /** At most 1,000; `found` says how many there are. */
  findings: z.array(Finding),
  found: z.number(),
  /** What looked wrong and changed while it was looked at: nothing can be said of it while others write. */
  unsettled: z.number(),
  /** Whether the rows of every partition were read; false where the engine names none, and those were read that others lead to. */
  complete: z.boolean(),
});
export type Report = z.output<typeof Report>;
