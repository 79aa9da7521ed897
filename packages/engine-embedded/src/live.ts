import { createChannels, type Live } from "@waggle/core";
import type { Journal } from "./journal.ts";

export function createLive(journal: Journal): Live {
  const { has, deliver, subscribe } = createChannels();
  return {
    publish(channel, message) {
      if (has(channel)) journal.afterDurable(() => deliver(channel, message));
    },
    subscribe,
  };
}
