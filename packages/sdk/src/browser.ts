import { buildClient, type Client, type ClientOptions, commonPlatform } from "./client.ts";
import { WaggleConnectionError } from "./error.ts";
import { fetchTransport } from "./transport.ts";
import { normalUrl } from "./url.ts";

export type { CallOptions, Client, ClientOptions, CreateOptions, FollowOptions } from "./client.ts";
export { NonRetryableError, WaggleApiError, WaggleConnectionError, WaggleTaskError } from "./error.ts";
export { type Delegation, isTerminal, type ResultOptions, type TaskHandle } from "./handle.ts";
export { parseSse, type SseMessage } from "./sse.ts";
export type * from "./types.ts";
export { type VerifyOptions, verifyWebhook, WaggleWebhookError, type WebhookMessage } from "./webhook.ts";

const env = (name: string): string | undefined =>
  (globalThis as { process?: { env?: Record<string, string | undefined> } }).process?.env?.[name];

/**
 * A client over `fetch`, for browsers and every runtime that has no Node.
 * @example const client = createClient({ url: "https://waggle.example.com", key })
 */
export function createClient(options: ClientOptions = {}): Client {
  return buildClient(options, {
    ...commonPlatform,
    resolve({ url, key }) {
      const origin = (globalThis as { location?: { origin: string } }).location?.origin;
      const found = url ?? env("WAGGLE_URL") ?? origin;
      if (!found)
        throw new WaggleConnectionError("client.unreachable", "no server given: pass { url } to createClient");
      return { url: normalUrl(found), key: key ?? env("WAGGLE_API_KEY") };
    },
    transport: (url, { fetch: fetcher }) => fetchTransport(url, fetcher),
    // Called as a method of another object, browsers refuse it: "Illegal invocation".
    afterTurn: (callback) => queueMicrotask(callback),
    // Browsers open six HTTP/1.1 connections to one host; two stay free for short calls.
    waits: 4,
  });
}
