import { buildClient, type Client, type ClientOptions, commonPlatform } from "./client.ts";
import { findConnection } from "./discover.ts";
import { httpTransport, maxWaits } from "./http.ts";
import { fetchTransport } from "./transport.ts";

export { type AgentOptions, createAgent, type RunningAgent } from "./agent/index.ts";
export type { Handler, Log, TaskContext } from "./agent/work.ts";
export type { CallOptions, Client, ClientOptions, CreateOptions, FollowOptions } from "./client.ts";
export {
  type Connection,
  configPath,
  defaultPort,
  findConnection,
  findDataDir,
  isRunning,
  readConfig,
  runningDir,
} from "./discover.ts";
export { NonRetryableError, WaggleApiError, WaggleConnectionError, WaggleTaskError } from "./error.ts";
export { type Delegation, isTerminal, type ResultOptions, type TaskHandle } from "./handle.ts";
export { parseSse, type SseMessage } from "./sse.ts";
export type * from "./types.ts";
export { type VerifyOptions, verifyWebhook, WaggleWebhookError, type WebhookMessage } from "./webhook.ts";

/**
 * A client that finds the server by itself: options, `WAGGLE_URL` and `WAGGLE_API_KEY`, `waggle config`, or the
 * server that `waggle dev` runs on this machine.
 * @example
 * const client = createClient();
 * const text = await client.tasks.delegate({ type: "summarise", input: { url } }).result<string>();
 */
export function createClient(options: ClientOptions = {}): Client {
  return buildClient(options, {
    ...commonPlatform,
    resolve: findConnection,
    transport: (url, { fetch: fetcher }) => (fetcher ? fetchTransport(url, fetcher) : httpTransport(url)),
    afterTurn: process.nextTick,
    waits: maxWaits,
  });
}
