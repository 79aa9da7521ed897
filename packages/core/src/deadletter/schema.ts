import * as z from "zod/mini";
import { name, text } from "../fields.ts";
import { cursorCharacters } from "../page.ts";

export const Redrive = z
  .strictObject({
    taskIds: z.optional(z.array(name(64)).check(z.minLength(1), z.maxLength(100))),
    all: z.optional(z.literal(true)),
    /** `nextCursor` of the call before, to go on with `all`. */
    cursor: z.optional(text(cursorCharacters)),
    /** Spread the redriven tasks: at most this many a second. */
    perSecond: z.optional(z.number().check(z.gte(0.01), z.lte(10_000))),
  })
  .check(
    z.refine((redrive) => (redrive.taskIds === undefined) !== (redrive.all === undefined), "give taskIds or all: true"),
    z.refine((redrive) => redrive.cursor === undefined || redrive.all === true, "a cursor goes with all: true"),
  );
export type Redrive = z.output<typeof Redrive>;
