import type { Task } from "./types.ts";

/** What Waggle POSTs to an agent with a webhook. */
export type WebhookMessage =
  | {
      type: "task.assigned";
      timestamp: string;
      data: {
        task: Task;
        /** Names this assignment: send it along with every call about it. */
        fence: number;
        attempt: number;
        agentId: string;
        /** Once accepted, something must be heard of the task until then, unless it has time limits of its own. */
        expiresAt: string;
        /** Where to POST what comes of it, with the agent's token as Bearer. */
        callbacks: Record<"start" | "heartbeat" | "complete" | "fail" | "release", string>;
      };
    }
  | {
      type: "task.cancelled";
      timestamp: string;
      /** `fencedAt`: until then the agent may still say how it ended. */
      data: { taskId: string; fence: number; reason: string; fencedAt?: string };
    };

/** The message is not from whoever knows the secret, or it is too old. Answer 401. */
export class WaggleWebhookError extends Error {
  override readonly name = "WaggleWebhookError";
}

type Headers_ = { get(name: string): string | null } | Readonly<Record<string, string | readonly string[] | undefined>>;

export interface VerifyOptions {
  /** How far its time may be from ours, in seconds. Default 300. */
  toleranceSeconds?: number;
  /** Milliseconds since 1970. Default `Date.now`. */
  now?: () => number;
}

/**
 * Proves that a request came from Waggle, by the rules of Standard Webhooks, and reads it. Runs in Node, browsers and edge
 * functions.
 *
 * @param secret as it was given or shown at registration; several while one is being replaced. Without one nothing is proven
 * @param body the body as it came, not parsed and written again
 * @throws WaggleWebhookError
 * @example
 * const message = await verifyWebhook(secret, request.headers, await request.text());
 * if (message.type === "task.assigned") return Response.json({ result: await work(message.data.task.input) });
 */
export async function verifyWebhook(
  secret: string | readonly string[] | undefined,
  headers: Headers_,
  body: string | Uint8Array,
  { toleranceSeconds = 300, now = Date.now }: VerifyOptions = {},
): Promise<WebhookMessage> {
  const secrets = (typeof secret === "string" ? [secret] : (secret ?? [])).filter((each) => each !== "");
  if (secrets.length === 0)
    throw new WaggleWebhookError("there is no secret to check it by; is the variable that holds it set?");
  const header = (name: string): string => {
    const get = (headers as { get?: unknown }).get;
    const value =
      typeof get === "function"
        ? (headers as { get(name: string): string | null }).get(name)
        : Object.entries(headers).find(([key]) => key.toLowerCase() === name)?.[1];
    if (typeof value !== "string" || value === "") throw new WaggleWebhookError(`it has no ${name}`);
    return value;
  };
  const id = header("webhook-id");
  const timestamp = header("webhook-timestamp");
  const signatures = header("webhook-signature").split(" ");
  if (!/^\d{1,12}$/.test(timestamp)) throw new WaggleWebhookError("its webhook-timestamp is no number of seconds");
  if (Math.abs(now() / 1000 - Number(timestamp)) > toleranceSeconds)
    throw new WaggleWebhookError(`its webhook-timestamp is more than ${toleranceSeconds} s from now`);
  const text = typeof body === "string" ? body : new TextDecoder().decode(body);
  const signed = new TextEncoder().encode(`${id}.${timestamp}.${text}`);
  for (const each of secrets) {
    const algorithm = { name: "HMAC", hash: "SHA-256" };
    const key = await crypto.subtle.importKey("raw", bytesOf(each), algorithm, false, ["verify"]);
    for (const signature of signatures) {
      const given = signature.startsWith("v1,") ? fromBase64(signature.slice(3)) : undefined;
      if (given && (await crypto.subtle.verify("HMAC", key, given, signed))) return JSON.parse(text) as WebhookMessage;
    }
  }
  throw new WaggleWebhookError("its signature does not fit the secret");
}

/** After `whsec_` base64; any other text is its own UTF-8. */
const bytesOf = (secret: string): Uint8Array<ArrayBuffer> =>
  (secret.startsWith("whsec_") ? fromBase64(secret.slice(6)) : undefined) ?? new TextEncoder().encode(secret);

/** As the server reads it: padding need not be right, and a last character too many says nothing. */
function fromBase64(text: string): Uint8Array<ArrayBuffer> | undefined {
  const digits = /^([A-Za-z0-9+/]+)={0,2}$/.exec(text)?.[1];
  if (digits === undefined) return undefined;
  const whole = digits.length % 4 === 1 ? digits.slice(0, -1) : digits;
  return Uint8Array.from(atob(whole), (character) => character.charCodeAt(0));
}
