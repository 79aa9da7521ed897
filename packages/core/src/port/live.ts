/**
 * Wakes whoever waits in a connected process. Not durable and not the truth: a reader that was away looks at the store.
 * A message is delivered only after everything written before it is durable.
 */
export interface Live {
  publish(channel: string, message: unknown): void;
  /** @returns ends the subscription */
  subscribe(channel: string, listener: (message: never) => void): () => void;
}
