import type { Live } from "@waggle/core";
import type { Journal } from "./journal.ts";

export function createLive(journal: Journal): Live {
  const channels = new Map<string, Set<(message: never) => void>>();
  return {
    publish(channel, message) {
      if (!channels.has(channel)) return;
      journal.afterDurable(() => {
        for (const listener of channels.get(channel) ?? []) listener(message as never);
      });
    },
    subscribe(channel, listener) {
      let listeners = channels.get(channel);
      if (listeners === undefined) {
        listeners = new Set();
        channels.set(channel, listeners);
      }
      // One function may listen twice: each subscription is one of its own.
      const own = (message: never) => listener(message);
      listeners.add(own);
      const joined = listeners;
      return () => {
        joined.delete(own);
        if (joined.size === 0 && channels.get(channel) === joined) channels.delete(channel);
      };
    },
  };
}
