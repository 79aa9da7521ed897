import { agentCalls } from "./client/agents.ts";
import { createCaller } from "./client/caller.ts";
import { operateCalls } from "./client/operate.ts";
import type { ClientOptions, Platform } from "./client/options.ts";
import { taskCalls } from "./client/tasks.ts";

export type { CallOptions, ClientOptions, CreateOptions, FollowOptions, Platform } from "./client/options.ts";
export { commonPlatform } from "./client/options.ts";

export type Client = ReturnType<typeof buildClient>;

export function buildClient(options: ClientOptions, platform: Platform) {
  const caller = createCaller(options, platform);
  return {
    agents: agentCalls(caller),
    tasks: taskCalls(caller, options, platform),
    ...operateCalls(caller),
    /** Where the calls go. */
    get url() {
      return caller.open().url;
    },
    /** Ends streams that are followed and calls under way, and closes kept-open connections; a later call opens them again. */
    close: () => caller.close(),
  };
}
