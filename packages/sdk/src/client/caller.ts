import { toApiError, WaggleApiError } from "../error.ts";
import { backoffMs, defaultRetry, mayRetry, type RetryPolicy, withRetry } from "../retry.ts";
import { parseSse } from "../sse.ts";
import type { Transport } from "../transport.ts";
import type * as W from "../types.ts";
import type { CallOptions, ClientOptions, CreateOptions, FollowOptions, Platform } from "./options.ts";

type Query = Record<string, string | number | boolean | undefined>;
export interface Call extends CreateOptions {
  /** Default GET. */
  method?: "POST" | "PUT" | "PATCH" | "DELETE";
  path: string;
  query?: object | undefined;
  body?: object | undefined;
  /** The body as JSON text, instead of `body`. */
  text?: string;
  /** Makes something: carries an idempotency key. */
  creates?: boolean;
  /** Doing it twice differs from once, and no key guards it. */
  once?: boolean;
  /** Takes something away: that it is not there any more, after an answer was lost, means that it was done. */
  removes?: boolean;
  waitSeconds?: number;
}

/** What every call of the API goes through. */
export type Caller = ReturnType<typeof createCaller>;

export function createCaller(options: ClientOptions, platform: Platform) {
  const policy: RetryPolicy = {
    ...defaultRetry,
    ...(options.retrySeconds !== undefined && { forMs: options.retrySeconds * 1000 }),
  };
  const timeoutMs = (options.timeoutSeconds ?? 30) * 1000;
  let opened: { transport: Transport; url: string; headers: Record<string, string> } | undefined;
  // Resolved at the first call, so that making a client never fails.
  const open = () => {
    if (opened) return opened;
    const { url, key } = platform.resolve(options);
    const headers: Record<string, string> = { accept: "application/json", ...options.headers };
    if (key !== undefined) headers.authorization = `Bearer ${key}`;
    opened = { transport: platform.transport(url, options), url, headers };
    return opened;
  };
  /** What began before one of them tries nothing more after it. */
  let closes = 0;
  // One random number a client and a counter: as unique as a UUID a call, and cheaper.
  let keyPrefix: string | undefined;
  let keyCount = 0;
  const newKey = () => {
    keyPrefix ??= Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("");
    return `${keyPrefix}-${++keyCount}`;
  };

  async function call<T>(request: Call): Promise<T> {
    const { transport, headers: common } = open();
    const body = request.text ?? (request.body === undefined ? undefined : JSON.stringify(request.body));
    const headers: Record<string, string> = { ...common };
    if (body !== undefined) headers["content-type"] = "application/json";
    if (request.creates) headers["idempotency-key"] = request.idempotencyKey ?? newKey();
    const wire = {
      method: request.method ?? "GET",
      path: request.query ? request.path + toQuery(request.query as Query) : request.path,
      headers,
      body,
      signal: request.signal,
      timeoutMs:
        (request.timeoutSeconds === undefined ? timeoutMs : request.timeoutSeconds * 1000) +
        (request.waitSeconds ?? 0) * 1000,
      waits: request.waitSeconds !== undefined && request.waitSeconds > 0,
    };
    let answerLost = false;
    const before = closes;
    const once = async () => {
      const reply = await transport.send(wire).catch((error: unknown) => {
        answerLost = true;
        throw error;
      });
      answerLost ||= reply.status >= 500;
      if (answerLost && request.removes && reply.status === 404) return undefined as T;
      if (reply.status >= 400 || reply.status < 200) throw toApiError(reply.status, reply.text, reply.header);
      if (reply.text === "") return undefined as T;
      try {
        return JSON.parse(reply.text) as T;
      } catch {
        throw new WaggleApiError({
          status: reply.status,
          code: "client.not_waggle",
          detail: `${opened?.url} answered something other than JSON; is it a Waggle server?`,
        });
      }
    };
    return withRetry(once, {
      policy,
      repeatable: !request.once,
      signal: request.signal,
      over: () => closes !== before,
      random: platform.random,
      sleep: platform.sleep,
      now: platform.now,
    });
  }

  async function* follow(
    path: string,
    { after = 0, types, signal }: FollowOptions = {},
  ): AsyncGenerator<W.WaggleEvent, void, undefined> {
    let last = after;
    let failingSince: number | undefined;
    let followed = false;
    const before = closes;
    for (let tried = 0; closes === before; tried++) {
      const { transport, headers } = open();
      try {
        const stream = await transport.open({
          method: "GET",
          path: path + toQuery({ after: last, types }),
          headers: { ...headers, accept: "text/event-stream", ...(last > 0 && { "last-event-id": String(last) }) },
          signal,
          timeoutMs: Math.max(timeoutMs, 60_000),
        });
        if (stream.status !== 200) {
          let text = "";
          for await (const chunk of stream.chunks) text += chunk;
          throw toApiError(stream.status, text, stream.header);
        }
        failingSince = undefined;
        followed = true;
        for await (const message of parseSse(stream.chunks)) {
          const sequence = Number(message.id);
          // A server may begin again at the last event it knows was read.
          if (message.id !== "" && sequence <= last) continue;
          if (message.id !== "") last = sequence;
          tried = 0;
          yield JSON.parse(message.data) as W.WaggleEvent;
        }
      } catch (error) {
        if (signal?.aborted || closes !== before) return;
        const isGone = followed && error instanceof WaggleApiError && error.code === "event.gone";
        const first = isGone ? Number(error.problem.firstSequence) : Number.POSITIVE_INFINITY;
        // It is another log: read from its beginning. Or what is past its retention was of other types: of all types, it was missed.
        if (first <= last || (isGone && types !== undefined)) last = first - 1;
        else {
          failingSince ??= platform.now();
          if (platform.now() - failingSince >= policy.forMs || !mayRetry(error, true)) throw error;
        }
      }
      try {
        await platform.sleep(backoffMs(tried, policy, platform.random), signal);
      } catch {
        return;
      }
    }
  }

  /** All that a list has, in pages as large as the server makes them. */
  async function* every<Item, Query extends object>(
    list: (query: Query, how?: CallOptions) => Promise<W.Page<Item>>,
    query?: Query,
    how?: CallOptions,
  ): AsyncGenerator<Item, void, undefined> {
    for (let next = { limit: 200, ...query } as Query; ; ) {
      const { items, nextCursor } = await list(next, how);
      yield* items;
      if (nextCursor === undefined) return;
      next = { ...next, cursor: nextCursor };
    }
  }

  return {
    call,
    follow,
    every,
    open,
    timeoutMs,
    close() {
      closes++;
      opened?.transport.close();
      opened = undefined;
    },
  };
}

/** A part of a path. */
export const part = encodeURIComponent;

function toQuery(query: Query): string {
  let text = "";
  for (const name in query) {
    const value = query[name];
    if (value !== undefined) text += `${text === "" ? "?" : "&"}${name}=${encodeURIComponent(value)}`;
  }
  return text;
}
