import { Agent, deliver, type Message, type Ports } from "@waggle/core";
import type { BatchOutcome, OnError } from "./index.ts";

/**
 * Handler of the deliver queue: hands tasks to the agents that are called. All of a batch at once, so that one that is slow
 * to answer holds up no other; a message that fails here, and not at its agent, is delivered again.
 */
export const deliverHandler = (ports: Ports, onError: OnError) => {
  // What an agent gives back may go to one with a connection.
  Agent.watchConnections(ports);
  return async (messages: readonly Message[]): Promise<BatchOutcome> => {
    const failed = await Promise.all(
      messages.map(async ({ id, body }) => {
        try {
          await deliver(ports, body);
          return [];
        } catch (error) {
          onError("deliver", error);
          return [id];
        }
      }),
    );
    return { failed: failed.flat() };
  };
};
