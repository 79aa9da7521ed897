import type { Live } from "./live.ts";

/** Who listens to what in this process. */
export interface Channels extends Pick<Live, "subscribe"> {
  /** Whether anybody does: to whom nobody listens nothing need be brought. */
  has(channel: string): boolean;
  /** Calls who listens by now, in the order they came. */
  deliver(channel: string, message: unknown): void;
}

export function createChannels(): Channels {
  const channels = new Map<string, Set<(message: never) => void>>();
  return {
    has: (channel) => channels.has(channel),
    deliver(channel, message) {
      for (const listener of channels.get(channel) ?? []) listener(message as never);
    },
    subscribe(channel, listener) {
      const listeners = channels.get(channel) ?? new Set();
      channels.set(channel, listeners);
      // One function may listen twice: each subscription is one of its own.
      const own = (message: never) => listener(message);
      listeners.add(own);
      return () => {
        listeners.delete(own);
        if (listeners.size === 0 && channels.get(channel) === listeners) channels.delete(channel);
      };
    },
  };
}
