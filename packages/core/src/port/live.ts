/**
 * Wakes whoever waits in a connected process. Not durable and not the truth: a reader that was away looks at the store.
 * A message is delivered only after everything written before it is durable.
 */
export interface Live {
  /**
   * Set where messages published in other processes do not arrive: whoever waits looks again this often, in milliseconds.
   * The channel `connection/<connectionId>` reaches its connection from every process all the same: text is sent, in order, and
   * `null` ends the connection.
   */
  readonly pollMs?: number;
  publish(channel: string, message: unknown): void;
  /** @returns ends the subscription */
  subscribe(channel: string, listener: (message: never) => void): () => void;
  /**
   * Tells of connections that a message to `connection/<connectionId>` found gone.
   * @returns ends the subscription
   */
  onGone?(listener: (connectionId: string) => Promise<void>): () => void;
}
