import { createChannels, type Live } from "@waggle/core";
import type { Clients } from "./clients.ts";
import type { Caller } from "./retry.ts";

export interface LiveParts {
  readonly clients: Clients;
  readonly caller: Caller;
  /** Messages to connections go through API Gateway; without it they stay in the process like others. */
  readonly sockets: boolean;
  readonly pollMs: number;
  /** Told of a message to a connection that was given up, unless the connection is gone; and of what failed of seeing to that. */
  readonly onUnsent?: ((error: unknown) => void) | undefined;
}

export interface AwsLive extends Live {
  readonly pollMs: number;
  onGone(listener: (connectionId: string) => Promise<void>): () => void;
  /** Resolves when every message to a connection has left, or was given up. */
  idle(): Promise<void>;
}

const connections = "connection/";

/**
 * Channels reach who listens in this process; `connection/<id>` reaches an API Gateway WebSocket from any process. A message
 * that cannot be brought to its connection in the retry budget is given up: the reader looks at the store.
 */
export function createLive({ clients, caller, sockets, pollMs, onUnsent = () => {} }: LiveParts): AwsLive {
  const { has, deliver, subscribe } = createChannels();
  const goneListeners = new Set<(connectionId: string) => Promise<void>>();
  const leaving = new Map<string, Promise<void>>();

  async function push(connectionId: string, message: unknown): Promise<void> {
    const { DeleteConnectionCommand, PostToConnectionCommand } = await import("@waggle/engine-aws/sdk/sockets");
    const ConnectionId = connectionId;
    const post = (text: string) => new PostToConnectionCommand({ ConnectionId, Data: new TextEncoder().encode(text) });
    try {
      await caller.call("store", async ({ signal: abortSignal }) => {
        const client = await clients.sockets();
        if (message === null) await client.send(new DeleteConnectionCommand({ ConnectionId }), { abortSignal });
        else await client.send(post(typeof message === "string" ? message : JSON.stringify(message)), { abortSignal });
      });
    } catch (error) {
      const { name, $metadata } = error as { name?: string; $metadata?: { httpStatusCode?: number } };
      if (name !== "GoneException" && $metadata?.httpStatusCode !== 410) return onUnsent(error);
      for (const listener of goneListeners) await listener(connectionId).catch(onUnsent);
    }
  }

  return {
    pollMs,
    publish(channel, message) {
      if (sockets && channel.startsWith(connections)) {
        // One after another for each connection: frames have an order.
        const id = channel.slice(connections.length);
        const sent = (leaving.get(id) ?? Promise.resolve()).then(() => push(id, message));
        leaving.set(id, sent);
        void sent.finally(() => {
          if (leaving.get(id) === sent) leaving.delete(id);
        });
        return;
      }
      // What was written before is durable by now; a listener still never runs inside its publisher.
      if (has(channel)) setImmediate(() => deliver(channel, message));
    },
    subscribe,
    onGone(listener) {
      const own = (connectionId: string) => listener(connectionId);
      goneListeners.add(own);
      return () => goneListeners.delete(own);
    },
    async idle() {
      while (leaving.size > 0) await Promise.all(leaving.values());
    },
  };
}
