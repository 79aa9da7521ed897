import { setTimeout as pause } from "node:timers/promises";
import { AuditQuery, AuditReport, EventLog, Key, requestErrors, Status } from "@waggle/core";
import { EventList, FleetStatus, Health } from "../answers.ts";
import { family, labels } from "../metrics.ts";
import { admins, everyone, json, type Route, route, type Shared } from "../route.ts";
import { afterOf, eventStream, wantsStream } from "../stream.ts";
import { declared } from "./common.ts";

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

/** How the server, the fleet and the store are, and what happened. */
export const statusRoutes: readonly Route[] = [
  route({
    method: "GET",
    path: "/health",
    id: "getHealth",
    tag: "System",
    summary: "Check whether the server works; no key needed",
    roles: "public",
    responses: {
      200: { description: "It works; `no_agents` and `degraded` describe the fleet", schema: Health },
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
    summary: "Show the fleet and its work at a glance",
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
    summary: "Check that all rows of the store agree",
    description:
      "This is what `waggle doctor --deep` shows. It reads the whole store and changes nothing; what looks wrong is read again two seconds " +
      "later. An admin of the first tenant sees all tenants, or the one it names; an admin of another sees its own. On AWS it reads what " +
      "tasks, agents and events lead to, reads again after ten seconds, and stops after 270 s.",
    roles: admins,
    query: AuditQuery,
    responses: { 200: { description: "What was read, and what is wrong", schema: AuditReport } },
    errors: [declared("audit.too_large")],
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
    summary: "Read the tenant's event log, in order",
    description:
      "`types` is a comma-separated list; `task.*` matches a family. With `Accept: text/event-stream`: the events after `after` or " +
      "`Last-Event-ID`, then live; `id` is the sequence number, so a client that reconnects misses nothing. " +
      "0 begins with the first event there is. After any other number, 410 with `firstSequence` means that events after it are past their retention, " +
      "or, to a stream, that it is the number of another log.",
    roles: everyone,
    query: EventLog.ListQuery,
    streams: true,
    responses: { 200: { description: "Events, in order", schema: EventList } },
    errors: [declared("event.gone")],
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
    summary: "Get metrics as Prometheus text",
    description:
      "The first tenant sees every tenant (on AWS those that the process which answers has worked for) and the process; any other sees its own.",
    roles: everyone,
    responses: { 200: { description: "Prometheus text, version 0.0.4", type: "text/plain" } },
    errors: [],
    async handler({ scope, shared }) {
      const all = scope.tenant === Key.firstTenant;
      const lines: string[] = [];
      for (const metric of await Status.metrics(shared.ports, all ? undefined : scope.tenant)) {
        family(lines, metric.name, metric.type, metric.help);
        for (const sample of metric.samples) lines.push(`${metric.name}${labels(sample.labels)} ${sample.value}`);
      }
      let text = `${lines.join("\n")}\n`;
      if (all) text += shared.metrics.render();
      if (all && shared.admission) text += (await import("../held.ts")).heldText(shared.ports, shared.admission);
      return { text, type: "text/plain; version=0.0.4; charset=utf-8" };
    },
  }),
];
