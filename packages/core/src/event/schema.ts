import * as z from "zod";

export const Info = z.object({
  /** Rises by one per tenant with no gap. */
  sequence: z.number(),
  type: z.string(),
  at: z.string(),
  taskId: z.string().optional(),
  agentId: z.string().optional(),
  data: z.record(z.string(), z.unknown()),
});
export type Info = z.output<typeof Info>;
export const ListQuery = z.strictObject({
  after: z.coerce.number().int().min(0).default(0),
  limit: z.coerce.number().int().min(1).max(200).default(50),
  /** Comma-separated; `task.*` matches a family. */
  types: z.string().max(1024).optional(),
});
