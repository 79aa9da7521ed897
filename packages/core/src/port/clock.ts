export interface Clock {
  /** Milliseconds since 1970, UTC. */
  now(): number;
  /** Calls back once after `delayMs`; @returns cancels it. */
  after(delayMs: number, callback: () => void): () => void;
}
/** `length` lower-case base-32 characters of randomness. */
export type Random = (length: number) => string;
