import { counters, family } from "../counters.ts";
import { cacheOf } from "../match/cache.ts";
import type { Directory } from "../match/directory.ts";
import { peek } from "../match/lane.ts";
import { open, opened } from "../match/open.ts";
import { idOfParked } from "../match/place.ts";
import { capabilitiesOf } from "../match/requirement.ts";
import { headsOf, readLanes } from "../match/shared.ts";
import { pages } from "../page.ts";
import type { Ports } from "../port/index.ts";
import { taskKey, tenantKey } from "../rows.ts";
import { type Scope, systemScope } from "../scope.ts";
import * as Task from "../task/schema.ts";

/** A sample of a Prometheus metric. */
export interface Metric {
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge";
  readonly samples: readonly { readonly labels: Readonly<Record<string, string>>; readonly value: number }[];
}

/** Lanes looked at for the age of their first task. */
const laneLimit = 200;

/** How old the agents may be that are told of. */
const agentsMs = 2_000;

/** What tasks that ask for no capability are counted under. */
const anyName = "any";

/** The fleet and the work at a glance. */
export async function read(scope: Scope) {
  const counts = await counters(scope);
  const directory = await open(scope.ports, scope.tenant, agentsMs);
  const { byStatus, byRole, slots, used } = directory.tally;
  const ended = family(counts, "ended.");
  return {
    at: new Date(scope.ports.clock.now()).toISOString(),
    agents: {
      total: directory.members.size,
      byStatus: { ...byStatus, stopped: counts["agents.stopped"] ?? 0 },
      byRole: Object.fromEntries(byRole),
      slots,
      slotsInUse: used,
    },
    tasks: { byStatus: Object.fromEntries(Task.statuses.map((status) => [status, counts[`tasks.${status}`] ?? 0])) },
    queues: await queuesOf(scope, directory, counts),
    totals: {
      completed: ended.completed ?? 0,
      failed: ended.failed ?? 0,
      cancelled: ended.cancelled ?? 0,
      expired: ended.expired ?? 0,
    },
  };
}

/** What waits, by the capability it needs. */
async function queuesOf(scope: Scope, directory: Directory, counts: Record<string, number>) {
  const now = scope.ports.clock.now();
  const depth = family(counts, "depth.");
  if (Object.keys(depth).length === 0) return [];
  const oldest: Record<string, number> = {};
  const { shared } = scope.ports;
  if (shared) await readLanes(scope, directory);
  let looked = 0;
  for (const lane of directory.lanes.values()) {
    if (++looked > laneLimit) break;
    // Where others take too, what is remembered of a lane is nothing.
    const head = shared
      ? ((await headsOf(scope, lane, 1)).keys[0] ?? null)
      : await peek(scope.ports, scope.tenant, lane);
    if (head === null) continue;
    const task = await scope.ports.store.get(taskKey(scope.tenant, idOfParked(head)));
    const age = task ? (now - ((task.queuedAt as number | undefined) ?? now)) / 1000 : 0;
    for (const name of capabilitiesOf(lane.need.requires)) oldest[name] = Math.max(oldest[name] ?? 0, age);
  }
  const queues = new Map<string, { capability: string; waiting: number; oldestSeconds: number }>();
  for (const [name, waiting] of Object.entries(depth)) {
    // A capability may have that name: one entry for both, since a sample of a metric must not come twice.
    const capability = name || anyName;
    const other = queues.get(capability);
    const oldestSeconds = Math.round((oldest[name] ?? 0) * 1000) / 1000;
    queues.set(capability, {
      capability,
      waiting: waiting + (other?.waiting ?? 0),
      oldestSeconds: Math.max(oldestSeconds, other?.oldestSeconds ?? 0),
    });
  }
  return [...queues.values()];
}

/** Of every tenant: what waits, by the capability it needs, and the slots there are. Where that is counted no agent is read. */
export async function load(ports: Ports) {
  const loads = [];
  for await (const tenants of pages(ports.store, tenantKey("").pk, 100)) {
    for (const { sk: tenant } of tenants) {
      const scope = systemScope(ports, tenant, "scaling");
      if (!ports.shared) {
        const { agents, queues } = await read(scope);
        loads.push({ tenant, slots: agents.slots, slotsInUse: agents.slotsInUse, queues });
        continue;
      }
      const counts = await counters(scope);
      const queues = await queuesOf(scope, cacheOf(ports, tenant), counts);
      loads.push({ tenant, slots: counts["slots.all"] ?? 0, slotsInUse: counts["slots.used"] ?? 0, queues });
    }
  }
  return loads;
}

/** Every tenant; on a shared store, where it would cost much to read them all, those that this process has worked for. */
async function tenantsOf(ports: Ports): Promise<Iterable<string>> {
  const tenants = new Set(opened(ports));
  if (ports.shared) return tenants;
  for await (const page of pages(ports.store, tenantKey("").pk, 1000)) for (const { sk } of page) tenants.add(sk);
  return tenants;
}

/** @param only of this tenant; of every one unless it is given, on a shared store of those this process has worked for */
export async function metrics(ports: Ports, only?: string): Promise<Metric[]> {
  type Sample = Metric["samples"][number];
  const tasks: Sample[] = [];
  const ended: Sample[] = [];
  const agents: Sample[] = [];
  const queues: Sample[] = [];
  const ages: Sample[] = [];
  const slots: Sample[] = [];
  for (const tenant of only === undefined ? await tenantsOf(ports) : [only]) {
    const status = await read(systemScope(ports, tenant, "metrics"));
    for (const [name, value] of Object.entries(status.tasks.byStatus))
      tasks.push({ labels: { tenant, status: name }, value });
    for (const [name, value] of Object.entries(status.totals)) ended.push({ labels: { tenant, status: name }, value });
    for (const [name, value] of Object.entries(status.agents.byStatus))
      agents.push({ labels: { tenant, status: name }, value });
    for (const { capability, waiting, oldestSeconds } of status.queues) {
      queues.push({ labels: { tenant, capability }, value: waiting });
      ages.push({ labels: { tenant, capability }, value: oldestSeconds });
    }
    slots.push(
      { labels: { tenant, state: "used" }, value: status.agents.slotsInUse },
      { labels: { tenant, state: "free" }, value: Math.max(0, status.agents.slots - status.agents.slotsInUse) },
    );
  }
  return [
    { name: "waggle_tasks", help: "Stored tasks by status.", type: "gauge", samples: tasks },
    { name: "waggle_tasks_ended_total", help: "Tasks that ended, by outcome.", type: "counter", samples: ended },
    { name: "waggle_agents", help: "Agents by status.", type: "gauge", samples: agents },
    { name: "waggle_slots", help: "Slots of the fleet.", type: "gauge", samples: slots },
    { name: "waggle_queue_depth", help: "Queued tasks by required capability.", type: "gauge", samples: queues },
    {
      name: "waggle_queue_oldest_seconds",
      help: "Age of the first waiting task by required capability.",
      type: "gauge",
      samples: ages,
    },
  ];
}
