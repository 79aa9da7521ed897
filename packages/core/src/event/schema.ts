import * as z from "zod";
import { pageLimit } from "../fields.ts";
import { typesLike } from "./declared.ts";

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

/** Of a list with commas. */
export const namesOf = (names: string): string[] => names.split(",").map((name) => name.trim());
const isUnknown = (name: string) => name !== "" && typesLike(name).length === 0;

export const ListQuery = z.strictObject({
  after: z.coerce.number().int().min(0).default(0),
  limit: pageLimit(50),
  /** Comma-separated; `task.*` matches a family. */
  types: z
    .string()
    .max(1024)
    .refine((names) => !namesOf(names).some(isUnknown), {
      error: ({ input }) => `there are no events ${namesOf(input as string).find(isUnknown)}`,
    })
    .optional(),
});
