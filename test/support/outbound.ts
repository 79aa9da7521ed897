import type { Outbound } from "@waggle/core";

/** A world where whatever is called accepts what it is given. */
export const acceptsAll: Outbound = {
  publicUrl: () => "https://waggle.example.com",
  secretKey: () => "a key for tests",
  check: async () => undefined,
  http: async () => ({ status: 202, body: "" }),
  invoke: async () => ({ payload: "null", error: false }),
  send: async () => {},
};

/** How work reaches an agent by a queue of its own. */
export const byQueue = { type: "queue", queueUrl: "https://sqs.eu-west-1.amazonaws.com/123456789012/work" } as const;
