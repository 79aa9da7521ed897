import * as z from "zod/mini";
import { pageLimit } from "../fields.ts";
import { typesLike } from "./declared.ts";

export const Info = z.object({
  /** Rises by one per tenant with no gap. */
  sequence: z.number(),
  type: z.string(),
  at: z.string(),
  taskId: z.optional(z.string()),
  agentId: z.optional(z.string()),
  data: z.record(z.string(), z.unknown()),
});
export type Info = z.output<typeof Info>;

/** Of a list with commas. */
export const namesOf = (names: string): string[] => names.split(",").map((name) => name.trim());
const isUnknown = (name: string) => name !== "" && typesLike(name).length === 0;

export const ListQuery = z.strictObject({
  after: z._default(z.coerce.number().check(z.int(), z.gte(0)), 0),
  limit: pageLimit(50),
  /** Comma-separated; `task.*` matches a family. */
  types: z.optional(
    z.string().check(
      z.maxLength(1024),
      z.refine((names) => !namesOf(names).some(isUnknown), {
        error: ({ input }) => `there are no events ${namesOf(input as string).find(isUnknown)}`,
      }),
    ),
  ),
});
