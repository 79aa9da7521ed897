import type { Apart, ErrorKind, Ports, Role, Scope } from "@waggle/core";
import type { z } from "zod/mini";
import type { Admission } from "./admission.ts";
import type { Inbound } from "./inbound.ts";
import type { Metrics } from "./metrics.ts";

export type Method = "GET" | "POST" | "PUT" | "PATCH" | "DELETE";

/** A part of the path: what it must look like, and the error for what cannot exist. */
export interface Param {
  readonly schema: z.ZodMiniType<string>;
  missing(value: string): Error;
}

export interface Answer {
  readonly status?: number;
  /** JSON text, unless `type` says otherwise. */
  readonly text?: string;
  readonly type?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Instead of text: sent as it comes. */
  readonly stream?: ReadableStream<Uint8Array>;
}

export interface Idempotency {
  readonly key: string;
  /** Of the whole request, white space and the order of members aside. */
  readonly hash: string;
}

/** What the whole server shares. */
export interface Shared {
  readonly ports: Ports;
  readonly version: string;
  readonly startedAt: number;
  readonly metrics: Metrics;
  readonly routes: readonly Route[];
  readonly admission: Admission | undefined;
  /** Aborts when the server stops; long polls and streams end with it. */
  readonly closing: AbortSignal;
  /** Where agents connect, when it is not here. */
  readonly socketUrl: string | undefined;
}

export interface Call<Q = unknown, B = unknown> {
  readonly shared: Shared;
  readonly scope: Scope;
  readonly params: Readonly<Record<string, string>>;
  readonly query: Q;
  readonly body: B;
  readonly request: Inbound;
  /** The work is done, and what follows is waiting: it holds up nobody. */
  readonly done: () => void;
  /** Whether the caller's key or token is still good; for streams that outlive their first check. */
  readonly stillAllowed: () => Promise<boolean>;
  /** Calls back once the caller's key or token is revoked. @returns ends it */
  readonly onRevoked: (listener: () => void) => () => void;
  readonly idempotency: Idempotency | undefined;
}

export interface Response {
  readonly description: string;
  readonly schema?: z.ZodMiniType;
  /** `application/json` unless given. */
  readonly type?: string;
}

/** One call of the API: from this come its route, its checks, its OpenAPI entry and its docs. */
export interface Route<Q = unknown, B = unknown> {
  readonly method: Method;
  /** `{name}` stands for a parameter. */
  readonly path: string;
  /** `operationId` in OpenAPI. */
  readonly id: string;
  readonly tag: "Agents" | "Tasks" | "Dead letters" | "System";
  readonly summary: string;
  readonly description?: string;
  /** Who may call. An agent only where its own id, or a task of its own, is named. `public`: no key. */
  readonly roles: readonly Role[] | "public";
  readonly params?: Readonly<Record<string, Param>>;
  readonly query?: z.ZodMiniType<Q>;
  readonly body?: z.ZodMiniType<B>;
  /** New work, which is refused when there is too much already. */
  readonly brings?: "work";
  /** An empty body counts as `{}`. */
  readonly bodyOptional?: boolean;
  /** Members of the body kept as the text they came in; see `readJson`. */
  readonly payloads?: readonly string[];
  /** A list of the body whose entries are refused one by one; see `readJsonApart`. */
  readonly apart?: Apart;
  /**
   * How `Idempotency-Key` is kept: `domain` hands it to the domain, `answer` keeps the whole answer, encrypted.
   * Where it is not named the header has no meaning.
   */
  readonly idempotent?: "domain" | "answer";
  /** Answers server-sent events too, to whoever accepts them. */
  readonly streams?: boolean;
  readonly responses: Readonly<Record<number, Response>>;
  /** Beside those every call can meet. */
  readonly errors: readonly ErrorKind[];
  handler(call: Call<Q, B>): Promise<Answer>;
}

/** Lets TypeScript infer the handler's types from the schemas. */
export const route = <Q = Record<string, never>, B = undefined>(declared: Route<Q, B>): Route => declared as Route;

export const everyone = ["admin", "operator", "client", "reader"] as const;
export const clients = ["admin", "operator", "client"] as const;
export const operators = ["admin", "operator"] as const;
export const admins = ["admin"] as const;
export const agentOnly = ["agent"] as const;

export const json = (text: string, status = 200, headers?: Record<string, string>): Answer => ({
  status,
  text,
  ...(headers && { headers }),
});
export const replayedHeader = { "idempotency-replayed": "true" } as const;
