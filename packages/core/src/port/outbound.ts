/** Where work is delivered to: as an agent's `delivery`, without secrets. */
export type Target =
  | { readonly type: "webhook"; readonly url: string }
  | { readonly type: "lambda"; readonly functionArn: string }
  | { readonly type: "queue"; readonly queueUrl: string };

export interface OutboundAnswer {
  readonly status: number;
  /** At most 64 KB. */
  readonly body: string;
  /** As the answer's `Retry-After` says, when it does. */
  readonly retryAfterSeconds?: number;
}

/**
 * Delivers work to agents that are called. Each call is one try: whoever calls tries again.
 *
 * All three throw `delivery.failed` when the target may not be called, was not reached, or did not answer in time, and
 * `delivery.answer_too_large`, also where a queue takes no message so large. Anything else thrown says nothing about the target: the process is about to stop.
 */
export interface Outbound {
  /** Where agents reach this API, without a slash at its end. */
  publicUrl(): string | undefined;
  /** Secrets of webhooks are encrypted with a key made of this text; without it they rest as the store keeps them. */
  secretKey(): string | undefined;
  /** Why this target cannot be served here, in words for whoever registers it. */
  check(target: Target): Promise<string | undefined>;
  /** POST, `content-type: application/json`. A redirect is an answer like any other. */
  http(request: {
    readonly url: string;
    readonly headers: Readonly<Record<string, string>>;
    readonly body: string;
    /** The longest the whole exchange may take, where that is less than the limit set for this server. */
    readonly timeoutSeconds?: number;
  }): Promise<OutboundAnswer>;
  /** Calls the function and waits. `error`: the function ended with one, and `payload` says which. */
  invoke(
    functionArn: string,
    payload: string,
    timeoutSeconds?: number,
  ): Promise<{ readonly payload: string; readonly error: boolean }>;
  send(queueUrl: string, body: string): Promise<void>;
}

/** Delivers nothing, and says so to whoever registers. */
export const noOutbound: Outbound = {
  publicUrl: () => undefined,
  secretKey: () => undefined,
  check: async () => "this server delivers no work; use pull",
  http: () => Promise.reject(new Error("this server delivers no work")),
  invoke: () => Promise.reject(new Error("this server delivers no work")),
  send: () => Promise.reject(new Error("this server delivers no work")),
};
