import * as z from "zod/mini";
import { integer } from "../fields.ts";

const day = 24 * 3600;
const keep = integer(0, 3660 * day).check(
  z.refine((seconds) => seconds === 0 || seconds >= 60, "at least 60, or 0 for ever"),
);

/** How long what is over is kept, in seconds; 0: for ever. What is left out stays as it is. */
export const Put = z
  .strictObject({
    /** A task with its history, payloads and lists, from its end on. */
    taskSeconds: z.optional(keep),
    /** An event of the log. */
    eventSeconds: z.optional(keep),
  })
  .check(
    z.refine(
      (put) => put.taskSeconds !== undefined || put.eventSeconds !== undefined,
      "give taskSeconds, eventSeconds or both",
    ),
  );
export type Put = z.output<typeof Put>;
export const Info = z.object({ taskSeconds: z.number(), eventSeconds: z.number() });
export type Info = z.output<typeof Info>;
export type Retention = Readonly<Info>;

export const defaultRetention: Retention = { taskSeconds: 30 * day, eventSeconds: 7 * day };
