import {
  Agent,
  createId,
  isError,
  Key,
  type Ports,
  parse,
  problemType,
  type Role,
  readJson,
  readJsonApart,
  requestErrors,
  type Scope,
  toProblem,
} from "@waggle/core";
import { type Context, Hono } from "hono";
import type { Admission, Stay } from "./admission.ts";
import { createFailedAuth, type FailedAuth } from "./auth.ts";
import * as idempotency from "./idempotency.ts";
import { type Env, type Inbound, inbound } from "./inbound.ts";
import { createMetrics } from "./metrics.ts";
import { type QueryReader, queryReader } from "./query.ts";
import type { Answer, Call, Route, Shared } from "./route.ts";
import { createRouter } from "./router.ts";
import { routes } from "./routes/index.ts";

export interface AppOptions {
  readonly ports: Ports;
  readonly version: string;
  /** Origins whose pages may call this API with a key, e.g. `https://console.example.com`. None unless given. */
  readonly corsOrigins?: readonly string[];
  /** Aborts when the server stops: new calls get 503, long polls and streams end. */
  readonly closing?: AbortSignal;
  /** `wss://…` where agents connect, when this server takes no connections itself: they are sent there. */
  readonly socketUrl?: string | undefined;
  /** How much is let in at once; all, unless given, as where each process has one request at a time. */
  readonly admission?: Admission | undefined;
  /** Called with what was thrown and is not a declared error. */
  readonly onError?: (error: unknown, requestId: string) => void;
}

/** The app, and what the WebSocket edge shares with it. */
export interface App {
  readonly hono: Hono<Env>;
  readonly shared: Shared;
  readonly failedAuth: FailedAuth;
}

/**
 * The HTTP API as a Hono app, bound to no server.
 * @example const { hono } = createApp({ ports, version: "0.1.0" }); const response = await hono.request("/health")
 */
export function createApp(options: AppOptions): App {
  const { ports } = options;
  Agent.watchConnections(ports);
  const shared: Shared = {
    ports,
    version: options.version,
    startedAt: ports.clock.now(),
    metrics: createMetrics(),
    routes,
    admission: options.admission,
    closing: options.closing ?? new AbortController().signal,
    socketUrl: options.socketUrl,
  };
  const failedAuth = createFailedAuth(ports.clock);
  const context = { options, shared, failedAuth };
  const hono = new Hono<Env>({ router: createRouter() });
  for (const route of routes) hono.on(route.method, honoPath(route.path), pipeline(route, context));
  const paths = allowedByPath();
  hono.notFound((c) => fallback(c, paths, context));
  return { hono, shared, failedAuth };
}

interface Common {
  readonly options: AppOptions;
  readonly shared: Shared;
  readonly failedAuth: FailedAuth;
}

const honoPath = (path: string) => path.replaceAll(/\{(\w+)\}/g, ":$1");

/** One handler a route and no middleware: Hono calls it without composing anything. */
function pipeline(route: Route, common: Common): (c: Context<Env>) => Promise<Response> {
  const served: Served = {
    route,
    common,
    readQuery: queryReader(route.query),
    paramNames: Object.keys(route.params ?? {}),
  };
  return async (c) => {
    const started = performance.now();
    const request = inbound(c, common.shared.closing);
    const requestId = requestIdOf(request, common.options.ports);
    let answer: Answer;
    const { store } = common.options.ports;
    const generation = store.generation();
    const visit: Visit = { stay: undefined };
    try {
      answer = await run(served, c, request, requestId, visit);
      // Nothing leaves before what it tells of is on disk, reads included.
      if (route.roles !== "public") await store.settled(generation);
    } catch (thrown) {
      answer = await failure(thrown, requestId, common);
    } finally {
      visit.stay?.leave();
    }
    return respond(answer, request, requestId, started, route.path, common);
  };
}

/** A route, and what all its calls share. */
interface Served {
  readonly route: Route;
  readonly common: Common;
  readonly readQuery: QueryReader;
  readonly paramNames: readonly string[];
}

/** What a call holds until it has been answered. */
interface Visit {
  stay: Stay | undefined;
}

async function run(
  { route, common, readQuery, paramNames }: Served,
  c: Context<Env>,
  request: Inbound,
  requestId: string,
  visit: Visit,
): Promise<Answer> {
  const { ports } = common.options;
  if (common.shared.closing.aborted && route.path !== "/health") {
    throw requestErrors.notReady("the server is stopping", { retryAfterSeconds: 1 });
  }
  const bearer = Key.bearerOf(request.header("authorization"));
  const scope =
    route.roles === "public" ? undefined : await authenticate(route.roles, bearer, request, requestId, common);
  let params = noParams;
  if (paramNames.length > 0) {
    params = {};
    for (const name of paramNames) params[name] = param(route, name, c.req.param(name) ?? "");
    if (!isEncoded(request.path)) throw badPath(paramNames.at(-1) as string);
  }
  if (scope?.actor.role === "agent") await checkAgent(scope, route, params);
  const query = readQuery(request.search);
  if (route.body !== undefined && common.shared.admission)
    visit.stay = common.shared.admission.enter(request.header, route.brings === "work");
  const body = route.body === undefined ? undefined : await readBody(route, request, visit);
  const call: Call = {
    shared: common.shared,
    // A public route has no scope and uses none.
    scope: scope as Scope,
    params,
    query,
    body: body?.parsed,
    request,
    done: () => visit.stay?.leave(),
    async stillAllowed() {
      const known = bearer === undefined ? undefined : await Key.authenticate(ports, bearer);
      return known?.actor.id === scope?.actor.id;
    },
    onRevoked: (listener) => (bearer === undefined ? () => {} : Key.onRevoked(ports, bearer, listener)),
    idempotency: undefined,
  };
  const key = route.idempotent === undefined ? undefined : idempotency.keyOf(request.header("idempotency-key"));
  if (key === undefined || scope === undefined || bearer === undefined) return route.handler(call);
  if (route.idempotent === "domain") {
    const hash = idempotency.hashOf(route.method, request.path, body?.raw);
    return route.handler({ ...call, idempotency: { key, hash } });
  }
  const hash = idempotency.hashOf(route.method, request.path, body?.raw, scope.actor.id);
  return idempotency.once(scope, bearer, { key, hash }, () => route.handler(call));
}

const noParams: Record<string, string> = {};

/** Who calls, and whether this one may. @throws `auth.required`, `auth.forbidden`, `request.rate_limited` */
export async function authenticate(
  roles: readonly Role[],
  bearer: string | undefined,
  request: Pick<Inbound, "header" | "remoteAddress">,
  requestId: string,
  { options: { ports }, failedAuth }: Pick<Common, "failedAuth"> & { options: { ports: Ports } },
): Promise<Scope> {
  if (bearer === undefined) {
    throw requestErrors.unauthenticated("send a key: Authorization: Bearer <key>");
  }
  const known = await Key.authenticate(ports, bearer);
  if (known === undefined) throw failedAuth.refuse(request.remoteAddress, "the key is unknown or revoked");
  const { tenant, actor } = known;
  if (!roles.includes(actor.role as Role)) {
    throw requestErrors.forbidden(`a key of role ${actor.role} may not call this; it takes ${roles.join(", ")}`);
  }
  const traceparent = request.header("traceparent");
  return traceparent !== undefined && isTraceparent.test(traceparent)
    ? { tenant, actor, ports, requestId, traceparent }
    : { tenant, actor, ports, requestId };
}

/** Of version ff, and of ids that are all zeros, there are none: https://www.w3.org/TR/trace-context/#traceparent-header */
const isTraceparent = /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;

function param(route: Route, name: string, value: string): string {
  const declared = route.params?.[name];
  if (declared === undefined || declared.schema.safeParse(value).success) return value;
  throw declared.missing(value);
}

/** An agent acts for itself alone; every call of it is a sign of life. */
async function checkAgent(scope: Scope, route: Route, params: Readonly<Record<string, string>>): Promise<void> {
  const id = params.id;
  if (route.tag === "Agents" && id !== scope.actor.id) throw route.params?.id?.missing(id ?? "") as Error;
  await Agent.seen(scope, scope.actor.id);
}

/** What is not is left by the router as it is, and would be taken for a name with percent signs in it. */
function isEncoded(path: string): boolean {
  if (!path.includes("%")) return true;
  try {
    return decodeURIComponent(path) !== undefined;
  } catch {
    return false;
  }
}

const badPath = (name: string) =>
  requestErrors.invalid("the path is not percent-encoded UTF-8", {
    errors: [{ path: name, message: "expected percent-encoded UTF-8" }],
  });

async function readBody(route: Route, request: Inbound, { stay }: Visit): Promise<{ raw: unknown; parsed: unknown }> {
  const encoding = request.header("content-encoding");
  if (encoding !== undefined && encoding.toLowerCase() !== "identity") {
    throw requestErrors.unsupportedMediaType("send the body as it is, without Content-Encoding");
  }
  const text = await request.body();
  stay?.read(Buffer.byteLength(text));
  let raw: unknown = {};
  if (text !== "" || !route.bodyOptional) {
    const type = request.header("content-type");
    if (!isJson(type)) {
      throw requestErrors.unsupportedMediaType(`the body must be application/json, not ${type ?? "of no type"}`);
    }
    const payloads = route.payloads ?? noPayloads;
    raw = route.apart ? readJsonApart(text, payloads, route.apart) : readJson(text, payloads);
  }
  return { raw, parsed: route.body === undefined ? undefined : parse(route.body, raw) };
}

const noPayloads: readonly string[] = [];

const isJson = (type: string | undefined): boolean =>
  type === "application/json" ||
  (type !== undefined && /^application\/json *(; *charset="?utf-?8"?)? *;? *$/i.test(type));

async function failure(thrown: unknown, requestId: string, { options }: Common): Promise<Answer> {
  if (!isError(thrown) || thrown.kind === requestErrors.internal) options.onError?.(thrown, requestId);
  let problem = toProblem(thrown, requestId);
  try {
    // A refusal may tell of what another call has just written.
    await options.ports.store.settled();
  } catch (unavailable) {
    problem = toProblem(unavailable, requestId);
  }
  const headers: Record<string, string> = {};
  if (problem.retryAfterSeconds !== undefined) headers["retry-after"] = String(problem.retryAfterSeconds);
  // RFC 9110, 15.5.22: a 426 says to what.
  if (problem.status === 426) Object.assign(headers, { upgrade: "websocket", connection: "Upgrade" });
  if (problem.status === 401) headers["www-authenticate"] = 'Bearer realm="waggle"';
  // What is left of a body that was refused is not worth receiving.
  if (problem.status === 413) headers.connection = "close";
  return { status: problem.status, text: problem.text, type: problemType, headers };
}

function respond(
  answer: Answer,
  request: Inbound,
  requestId: string,
  started: number,
  path: string,
  { options, shared }: Common,
): Response {
  const status = answer.status ?? 200;
  shared.metrics.request(request.method, path, status, (performance.now() - started) / 1000);
  const headers: Record<string, string> = {
    "content-type": answer.type ?? "application/json",
    "x-request-id": requestId,
    "server-timing": serverTiming(started),
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
  };
  if (answer.headers) Object.assign(headers, answer.headers);
  if (options.corsOrigins !== undefined) allowOrigin(headers, request, options.corsOrigins);
  if (shared.closing.aborted) headers.connection = "close";
  if (status === 204) delete headers["content-type"];
  return new Response(answer.stream ?? answer.text ?? null, { status, headers });
}

/** @param started by the monotonic clock */
export const serverTiming = (started: number): string => `app;dur=${(performance.now() - started).toFixed(2)}`;

function allowOrigin(headers: Record<string, string>, request: Inbound, origins: readonly string[]): void {
  headers.vary = "origin";
  const origin = request.header("origin");
  if (origin === undefined || !origins.includes(origin)) return;
  headers["access-control-allow-origin"] = origin;
  headers["access-control-expose-headers"] = "x-request-id, server-timing, retry-after, idempotency-replayed";
  headers["cross-origin-resource-policy"] = "cross-origin";
}

interface PathMethods {
  readonly pattern: RegExp;
  readonly allow: string;
}

function allowedByPath(): PathMethods[] {
  const byPath = new Map<string, Set<string>>();
  for (const { path, method } of routes) {
    const methods = byPath.get(path) ?? new Set();
    byPath.set(path, methods.add(method));
    if (method === "GET") methods.add("HEAD");
  }
  return [...byPath].map(([path, methods]) => ({
    pattern: new RegExp(`^${path.replaceAll(/[.]/g, "\\.").replaceAll(/\{\w+\}/g, "[^/]+")}$`),
    allow: [...methods, "OPTIONS"].join(", "),
  }));
}

/** What no route took: another method of a path there is, or no such path. */
async function fallback(c: Context<Env>, paths: readonly PathMethods[], common: Common): Promise<Response> {
  const started = performance.now();
  const request = inbound(c, common.shared.closing);
  const requestId = requestIdOf(request, common.options.ports);
  const allow = paths.find(({ pattern }) => pattern.test(request.path))?.allow;
  if (allow !== undefined && request.method === "OPTIONS") {
    const headers: Record<string, string> = { allow };
    if (request.header("access-control-request-method") !== undefined && common.options.corsOrigins !== undefined) {
      headers["access-control-allow-methods"] = allow;
      headers["access-control-allow-headers"] =
        "authorization, content-type, idempotency-key, last-event-id, traceparent, x-request-id";
      headers["access-control-max-age"] = "600";
    }
    return respond({ status: 204, headers }, request, requestId, started, "*", common);
  }
  const error =
    allow === undefined
      ? requestErrors.notFound(`there is nothing at ${request.path.slice(0, 200)}`)
      : requestErrors.methodNotAllowed(`${request.method} is not possible here; ${allow} are`);
  const answer = await failure(error, requestId, common);
  const headers = { ...answer.headers, ...(allow !== undefined && { allow }) };
  return respond({ ...answer, headers }, request, requestId, started, "*", common);
}

export function requestIdOf(request: Pick<Inbound, "header">, ports: Ports): string {
  const given = request.header("x-request-id");
  if (given !== undefined && /^[\x21-\x7e]([\x20-\x7e]{0,126}[\x21-\x7e])?$/.test(given)) return given;
  return createId("req", ports.clock.now(), ports.random);
}
