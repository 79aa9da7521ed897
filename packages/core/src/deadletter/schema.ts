import * as z from "zod";
import { name, text } from "../fields.ts";
import { cursorCharacters } from "../page.ts";

export const Redrive = z
  .strictObject({
    taskIds: z.array(name(64)).min(1).max(100).optional(),
    all: z.literal(true).optional(),
    /** `nextCursor` of the call before, to go on with `all`. */
    cursor: text(cursorCharacters).optional(),
    /** Spread the redriven tasks: at most this many a second. */
    perSecond: z.number().min(0.01).max(10_000).optional(),
  })
  .refine((redrive) => (redrive.taskIds === undefined) !== (redrive.all === undefined), "give taskIds or all: true")
  .refine((redrive) => redrive.cursor === undefined || redrive.all === true, "a cursor goes with all: true");
export type Redrive = z.output<typeof Redrive>;
