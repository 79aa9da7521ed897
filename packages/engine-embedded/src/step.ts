/**
 * The steps of the log. They lie flat in one array: the number of the step, then its arguments, so that logging a
 * write costs no object of its own. Every step takes one LSN.
 */
export const Step = {
  /** A message sent and acked within one frame leaves this: 4 arguments to skip. */
  Void: 0,
  /** item */
  Put: 1,
  /** pk, sk, kind, set, add, remove */
  Update: 2,
  /** pk, sk */
  Delete: 3,
  /** queue, id, body, visible at */
  Send: 4,
  /** queue, id */
  Ack: 5,
  /** queue, id, receives, visible at */
  Retry: 6,
  /** queue, id, receives */
  Bury: 7,
  /** queue, id */
  Redrive: 8,
  /** consumer, kinds, LSN */
  Position: 9,
} as const;

export const stepArguments: readonly number[] = [4, 1, 6, 2, 4, 2, 4, 3, 2, 3];
