import { requestErrors } from "./error.ts";

/** How long a key stands for the request it came with first, whether the domain keeps what it made or the edge its answer. */
export const idempotencyKeptMs = 24 * 3600 * 1000;

export const otherRequest = () =>
  requestErrors.idempotencyMismatch("this Idempotency-Key was used for a different request; use a new key");
