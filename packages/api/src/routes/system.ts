import { setTimeout as pause } from "node:timers/promises";
import {
  AuditQuery,
  AuditReport,
  auditTooLarge,
  EventLog,
  Key,
  Limit,
  Quota,
  Retention,
  requestErrors,
  Status,
} from "@waggle/core";
import {
  EventList,
  FleetStatus,
  Health,
  KeyAnswer,
  KeyList,
  LimitAnswer,
  LimitList,
  QuotaAnswer,
  RetentionAnswer,
} from "../answers.ts";
import { family, labels } from "../metrics.ts";
import { admins, everyone, json, operators, type Param, type Route, route, type Shared } from "../route.ts";
import { afterOf, eventStream, wantsStream } from "../stream.ts";
import { declared, idParam, Page } from "./common.ts";

const uptime = ({ ports, startedAt }: Shared) => Math.round((ports.clock.now() - startedAt) / 100) / 10;

/** What others were at when something looked wrong is over by then; where lists follow from a stream, those too. */
const auditPauseMs = { one: 2_000, shared: 10_000 } as const;
/** A function's call is over after 300 s, and the pages it began to read by then take some time. */
const auditBudgetMs = 270_000;

/** How long a check may take before it counts as failed. */
const checkMs = 2000;

type Sample = Awaited<ReturnType<typeof Status.metrics>>[number]["samples"][number];
const counted = new WeakMap<Shared, { at: number; samples: Promise<readonly Sample[]> }>();
/** Health is asked without a key, so counting the fleets must not cost a read for each who asks. */
const countedMs = 1000;

function agentCounts(shared: Shared): Promise<readonly Sample[]> {
  const now = shared.ports.clock.now();
  const known = counted.get(shared);
  if (known && now - known.at < countedMs) return known.samples;
  const samples = Status.metrics(shared.ports).then(
    (all) => all.find(({ name }) => name === "waggle_agents")?.samples ?? [],
  );
  counted.set(shared, { at: now, samples });
  return samples;
}

async function health(shared: Shared): Promise<Health> {
  const { ports, version } = shared;
  const check = async (work: () => Promise<unknown>) => {
    let cancel = () => {};
    const late = new Promise<never>((_, reject) => {
      cancel = ports.clock.after(checkMs, () => reject(new Error(`no answer within ${checkMs} ms`)));
    });
    try {
      await Promise.race([work(), late]);
      return { status: "healthy" as const };
    } catch {
      // The reason may name hosts and paths, and this is read without a key.
      return { status: "unhealthy" as const, detail: "does not answer as it should" };
    } finally {
      cancel();
    }
  };
  const [store, queue] = await Promise.all([
    check(async () => {
      await ports.store.get({ pk: "HEALTH", sk: "read" });
      await ports.store.settled();
    }),
    check(() => ports.queues.dispatch.depth()),
  ]);
  const components = { store, queue };
  const broken = Object.values(components).some((component) => component.status === "unhealthy");
  if (broken || shared.closing.aborted)
    return { status: "unhealthy", version, uptimeSeconds: uptime(shared), components };
  const fleet = await agentCounts(shared);
  const sum = (...statuses: string[]) =>
    fleet.reduce((total, { labels, value }) => total + (statuses.includes(labels.status ?? "") ? value : 0), 0);
  const present = sum("ready", "busy", "paused", "draining");
  const lost = sum("lost");
  const status = present === 0 ? "no_agents" : lost > present ? "degraded" : "healthy";
  return { status, version, uptimeSeconds: uptime(shared), components };
}

const limitKey: Param = {
  schema: Limit.LimitKey,
  missing: () =>
    declared("request.invalid")("the limit's key is empty, too long or has control characters", {
      errors: [{ path: "key", message: "expected 1 to 256 characters, no control characters" }],
    }),
};
const tenantParam: Param = {
  schema: Key.tenantName,
  missing: () =>
    declared("request.invalid")("that is no name of a tenant", {
      errors: [{ path: "tenant", message: "expected 1 to 63 of a-z, 0-9 and -, not starting with -" }],
    }),
};
const keyNotFound = declared("key.not_found");

// The document and the page are loaded when they are first asked for: a start should not wait for them.
export const systemRoutes: readonly Route[] = [
  route({
    method: "GET",
    path: "/health",
    id: "getHealth",
    tag: "System",
    summary: "Whether the server works; no key needed",
    roles: "public",
    responses: {
      200: { description: "It works; `no_agents` and `degraded` tell of the fleet", schema: Health },
      503: { description: "It does not work, or is stopping", schema: Health },
    },
    errors: [],
    async handler({ shared }) {
      const found = await health(shared);
      const failed = found.status === "unhealthy";
      return json(JSON.stringify(found), failed ? 503 : 200, failed ? { "retry-after": "1" } : undefined);
    },
  }),
  route({
    method: "GET",
    path: "/v1/status",
    id: "getStatus",
    tag: "System",
    summary: "The fleet and the work at a glance",
    roles: everyone,
    responses: { 200: { description: "Counts, queues and ages", schema: FleetStatus } },
    errors: [],
    handler: async ({ scope, shared }) =>
      json(
        JSON.stringify({
          version: shared.version,
          uptimeSeconds: uptime(shared),
          ...(await Status.read(scope)),
          rates: await Status.rates(scope),
          ...(shared.ports.disk && { disk: shared.ports.disk() }),
        }),
      ),
  }),
  route({
    method: "GET",
    path: "/v1/audit",
    id: "auditStore",
    tag: "System",
    summary: "Whether every row agrees with those it has to agree with",
    description:
      "What `waggle doctor --deep` shows. Reads the whole store and changes nothing; what looks wrong is looked at again two seconds " +
      "later. The first tenant's admin is told of all tenants, or of the one it names, another of its own. On AWS it reads what tasks, agents " +
      "and events lead to, again after ten seconds, and for 270 s at most.",
    roles: admins,
    query: AuditQuery,
    responses: { 200: { description: "What was read, and what is wrong", schema: AuditReport } },
    errors: [auditTooLarge],
    async handler({ scope, query, request }) {
      const { ports } = scope;
      const first = scope.tenant === Key.firstTenant;
      const tenant = query.tenant ?? (first ? undefined : scope.tenant);
      if (!first && tenant !== scope.tenant)
        throw requestErrors.forbidden("only an admin of the first tenant is told of another tenant");
      const { Audit } = await import("@waggle/core/audit");
      const again = () =>
        pause(ports.inspect ? auditPauseMs.one : auditPauseMs.shared, undefined, { signal: request.signal });
      const options = {
        pause: again,
        ...(tenant !== undefined && { tenant }),
        ...(!ports.inspect && { budgetMs: auditBudgetMs }),
      };
      return json(JSON.stringify(await Audit.run(ports, options)));
    },
  }),
  route({
    method: "GET",
    path: "/v1/events",
    id: "listEvents",
    tag: "System",
    summary: "The tenant's event log, in order",
    description:
      "`types` is a comma-separated list; `task.*` matches a family. With `Accept: text/event-stream`: the events after `after` or " +
      "`Last-Event-ID`, then live; `id` is the sequence number, so a client that reconnects misses nothing. " +
      "0 begins with the first event there is; after another number, 410 with `firstSequence` says that events after it are past their retention.",
    roles: everyone,
    query: EventLog.ListQuery,
    streams: true,
    responses: { 200: { description: "Events, in order", schema: EventList } },
    errors: [EventLog.gone],
    async handler(call) {
      const { scope, query, request } = call;
      if (!wantsStream(request.header("accept"))) return json(JSON.stringify(await EventLog.list(scope, query)));
      const after = afterOf(call, query.after);
      await EventLog.reach(scope, after);
      return eventStream(call, { after, types: query.types });
    },
  }),
  route({
    method: "GET",
    path: "/metrics",
    id: "getMetrics",
    tag: "System",
    summary: "Metrics as Prometheus text",
    description: "The first tenant sees every tenant and the process; another sees its own.",
    roles: everyone,
    responses: { 200: { description: "Prometheus text, version 0.0.4", type: "text/plain" } },
    errors: [],
    async handler({ scope, shared }) {
      const all = scope.tenant === Key.firstTenant;
      const lines: string[] = [];
      for (const metric of await Status.metrics(shared.ports)) {
        family(lines, metric.name, metric.type, metric.help);
        for (const sample of metric.samples) {
          if (all || sample.labels.tenant === scope.tenant)
            lines.push(`${metric.name}${labels(sample.labels)} ${sample.value}`);
        }
      }
      let text = `${lines.join("\n")}\n`;
      if (all) text += shared.metrics.render();
      if (all && shared.admission) text += (await import("../held.ts")).heldText(shared.ports, shared.admission);
      return { text, type: "text/plain; version=0.0.4; charset=utf-8" };
    },
  }),
  route({
    method: "POST",
    path: "/v1/keys",
    id: "createKey",
    tag: "System",
    summary: "Make a key",
    description:
      "The answer carries the key, shown this once. Only an admin of the first tenant may name another tenant.",
    roles: admins,
    body: Key.Create,
    idempotent: "answer",
    responses: { 201: { description: "The key", schema: KeyAnswer } },
    errors: [],
    async handler({ scope, body }) {
      const { info, key } = await Key.create(scope, body);
      return json(JSON.stringify({ ...info, key }), 201);
    },
  }),
  route({
    method: "GET",
    path: "/v1/keys",
    id: "listKeys",
    tag: "System",
    summary: "List the tenant's keys, never the secrets",
    roles: admins,
    query: Page,
    responses: { 200: { description: "A page of keys", schema: KeyList } },
    errors: [],
    handler: async ({ scope, query }) => json(JSON.stringify(await Key.list(scope, query))),
  }),
  route({
    method: "DELETE",
    path: "/v1/keys/{id}",
    id: "revokeKey",
    tag: "System",
    summary: "Revoke a key, at once",
    roles: admins,
    params: { id: idParam("key", "key", keyNotFound) },
    responses: { 204: { description: "Revoked" } },
    errors: [keyNotFound, declared("key.last_admin")],
    async handler({ scope, params }) {
      await Key.revoke(scope, params.id as string);
      return { status: 204 };
    },
  }),
  route({
    method: "PUT",
    path: "/v1/subscriptions",
    id: "putSubscriptions",
    tag: "System",
    summary: "Which events go to the event bus",
    description:
      "Rules of EventBridge can act on them: source `waggle`, the type as `detail-type`. `task.*` stands for a family; an empty list stops them. The event log has all of them anyway.",
    roles: operators,
    body: EventLog.Subscription,
    responses: { 200: { description: "What goes to the bus from now on", schema: EventLog.Subscription } },
    errors: [],
    handler: async ({ scope, body }) => json(JSON.stringify(await EventLog.subscribe(scope, body))),
  }),
  route({
    method: "GET",
    path: "/v1/subscriptions",
    id: "getSubscriptions",
    tag: "System",
    summary: "The events that go to the event bus",
    roles: everyone,
    responses: { 200: { description: "What goes to the bus", schema: EventLog.Subscription } },
    errors: [],
    handler: async ({ scope }) => json(JSON.stringify(await EventLog.subscription(scope))),
  }),
  route({
    method: "PUT",
    path: "/v1/retention",
    id: "putRetention",
    tag: "System",
    summary: "Set how long what is over is kept",
    description:
      "Seconds; 0: for ever; what is left out stays. Tasks that have finished before follow in the background; events written before keep their time.",
    roles: operators,
    body: Retention.Put,
    responses: { 200: { description: "What holds from now on", schema: RetentionAnswer } },
    errors: [],
    handler: async ({ scope, body }) => json(JSON.stringify({ retention: await Retention.put(scope, body) })),
  }),
  route({
    method: "GET",
    path: "/v1/retention",
    id: "getRetention",
    tag: "System",
    summary: "How long what is over is kept",
    roles: everyone,
    responses: { 200: { description: "Seconds; 0: for ever", schema: RetentionAnswer } },
    errors: [],
    handler: async ({ scope }) => json(JSON.stringify({ retention: await Retention.get(scope) })),
  }),
  route({
    method: "PUT",
    path: "/v1/quotas/{tenant}",
    id: "putQuotas",
    tag: "System",
    summary: "Set what a tenant may have at most",
    description:
      "By an admin of the first tenant. What is left out is not limited. What is beyond is refused: with 403 where something has to go first, with 429 where it passes by itself.",
    roles: admins,
    params: { tenant: tenantParam },
    body: Quota.Quotas,
    responses: { 200: { description: "The quotas and what is used of them", schema: QuotaAnswer } },
    errors: [],
    handler: async ({ scope, params, body }) =>
      json(JSON.stringify({ quota: await Quota.put(scope, params.tenant as string, body) })),
  }),
  route({
    method: "GET",
    path: "/v1/quotas/{tenant}",
    id: "getQuotas",
    tag: "System",
    summary: "What a tenant may have at most, and what it has",
    description: "Another tenant's: with a key of the first tenant alone.",
    roles: operators,
    params: { tenant: tenantParam },
    responses: { 200: { description: "The quotas and what is used of them", schema: QuotaAnswer } },
    errors: [],
    handler: async ({ scope, params }) =>
      json(JSON.stringify({ quota: await Quota.get(scope, params.tenant as string) })),
  }),
  route({
    method: "PUT",
    path: "/v1/limits/{key}",
    id: "putLimit",
    tag: "System",
    summary: "Set the limits of a key",
    description: "They hold over what tasks ask. What is left out no longer holds.",
    roles: operators,
    params: { key: limitKey },
    body: Limit.Put,
    responses: { 200: { description: "The limit and its use", schema: LimitAnswer } },
    errors: [],
    handler: async ({ scope, params, body }) =>
      json(JSON.stringify({ limit: await Limit.put(scope, params.key as string, body) })),
  }),
  route({
    method: "GET",
    path: "/v1/limits/{key}",
    id: "getLimit",
    tag: "System",
    summary: "The limits of a key and their use",
    description: "A key nobody has used is all zeros.",
    roles: everyone,
    params: { key: limitKey },
    responses: { 200: { description: "The limit and its use", schema: LimitAnswer } },
    errors: [],
    handler: async ({ scope, params }) => json(JSON.stringify({ limit: await Limit.get(scope, params.key as string) })),
  }),
  route({
    method: "DELETE",
    path: "/v1/limits/{key}",
    id: "removeLimit",
    tag: "System",
    summary: "Remove the limits of a key",
    description: "What tasks ask holds again, at once.",
    roles: operators,
    params: { key: limitKey },
    responses: { 204: { description: "Removed" } },
    errors: [Limit.notFound],
    async handler({ scope, params }) {
      await Limit.remove(scope, params.key as string);
      return { status: 204 };
    },
  }),
  route({
    method: "GET",
    path: "/v1/limits",
    id: "listLimits",
    tag: "System",
    summary: "The limits the operator has set, by key",
    roles: everyone,
    query: Page,
    responses: { 200: { description: "A page of limits", schema: LimitList } },
    errors: [],
    handler: async ({ scope, query }) => json(JSON.stringify(await Limit.list(scope, query))),
  }),
  route({
    method: "GET",
    path: "/openapi.json",
    id: "getOpenApi",
    tag: "System",
    summary: "This API as an OpenAPI 3.1 document; no key needed",
    roles: "public",
    responses: { 200: { description: "The document", type: "application/json" } },
    errors: [],
    async handler({ shared }) {
      const { openApiText } = await import("../openapi.ts");
      return json(openApiText(shared.version, shared.routes));
    },
  }),
  route({
    method: "GET",
    path: "/docs",
    id: "getDocs",
    tag: "System",
    summary: "A page to read and try this API; no key needed",
    roles: "public",
    responses: { 200: { description: "The page", type: "text/html" } },
    errors: [],
    handler: async () => (await import("../docs/index.ts")).docsPage(),
  }),
];
