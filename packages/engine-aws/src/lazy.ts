import type { Queue } from "@waggle/core";
import type { QueueParts } from "./queue.ts";

/** The queue, whose code and client are loaded with its first call: most calls of the API send nothing. */
export function lazyQueue(parts: QueueParts): Queue {
  let loaded: Promise<Queue> | undefined;
  const load = async () => (await import("@waggle/engine-aws/sdk/queues")).createQueue(parts);
  /** One that could not be loaded is loaded anew by the next call. */
  const queue = () =>
    (loaded ??= load().catch((error) => {
      loaded = undefined;
      throw error;
    }));
  return {
    send: async (messages) => (await queue()).send(messages),
    receive: async (options) => (await queue()).receive(options),
    ack: async (receipts) => (await queue()).ack(receipts),
    retry: async (receipts, delaySeconds) => (await queue()).retry(receipts, delaySeconds),
    deadLetters: {
      list: async (options) => (await queue()).deadLetters.list(options),
      redrive: async (options) => (await queue()).deadLetters.redrive(options),
    },
    depth: async () => (await queue()).depth(),
  };
}
