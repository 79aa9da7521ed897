/** Payloads above 64 KB, written once and never changed. Durable when `put` resolves. */
export interface Blobs {
  /** The same key with the same bytes again is fine. Keys: `[A-Za-z0-9_/-]{1,200}`. */
  put(key: string, bytes: Uint8Array): Promise<void>;
  get(key: string): Promise<Uint8Array | undefined>;
  delete(key: string): Promise<void>;
}
