import type * as AgentRow from "./agent/row.ts";
import { countedBy } from "./counters.ts";
import { agentEvents, taskEvents } from "./event/derived.ts";
import type { Entry } from "./event/log.ts";
import { capabilitiesOf } from "./match/requirement.ts";
import { policyOf } from "./policy.ts";
import {
  type Change,
  type Delete,
  type Derived,
  type Item,
  type Ports,
  type Put,
  type Update,
  type Value,
  valueBytes,
} from "./port/index.ts";
import { expiry } from "./retention/retention.ts";
import {
  eventHeadKey,
  eventPartition,
  eventRowsPerPartition,
  type IndexField,
  indexKey,
  sequenceKey,
  taskEventPartition,
} from "./rows.ts";
import { outcome } from "./task/error.ts";
import { held, payloadBytes, payloads, type Row, taskBytes, terminal } from "./task/row.ts";

/** Events in one stored row, and what they may take of the 400 KB of an item: one may tell of an error of 48 KB. */
const entriesPerRow = 200;
const entriesBytes = 300 * 1024;

/**
 * The rows derived from changes of state: the event log, the lists by status, type, agent and tag, the counters.
 * There is no event without its change, and no change without its event.
 */
export async function project(ports: Ports, changes: readonly Change[]): Promise<Derived> {
  const tenants = new Map<string, Batch>();
  for (const change of changes) {
    const row = (change.new ?? change.old) as Item;
    const tenant = tenantOf(change);
    const batch = tenants.get(tenant) ?? newBatch();
    tenants.set(tenant, batch);
    if (row.kind === "task") {
      taskChanged(batch, change.old as Row | undefined, change.new as Row | undefined);
      const changed = ports.shared ? usedChanged : heldChanged;
      changed(batch, change.old as Row | undefined, change.new as Row | undefined);
    } else {
      agentChanged(batch, change.old as AgentRow.Row | undefined, change.new as AgentRow.Row | undefined);
      if (ports.shared)
        slotsChanged(batch, change.old as AgentRow.Row | undefined, change.new as AgentRow.Row | undefined);
    }
  }
  const once: (Put | Update)[] = [];
  const again: (Put | Delete)[] = [];
  for (const [tenant, batch] of tenants) {
    const counted = await countedBy(ports, tenant, batch.counts);
    if (counted) once.push(counted);
    if (batch.events.length > 0) await append(ports, tenant, batch, once, again);
    again.push(...batch.lists.values());
  }
  return { once, again };
}

/** Whose change it is: the group that `project` counts and numbers by. */
export const tenantOf = (change: Change): string => (change.new ?? change.old)?.tenant as string;

interface Batch {
  readonly events: Entry[];
  /** The last write for each key: what a batch adds and takes away again is written once. */
  readonly lists: Map<string, Put | Delete>;
  readonly counts: Map<string, number>;
  /** Entries in the list by type of tasks that are new: they also tell which rows hold the task's first events. */
  readonly made: Map<string, { put: Item & { events?: readonly number[] } }>;
}

const newBatch = (): Batch => ({ events: [], lists: new Map(), counts: new Map(), made: new Map() });

function list(batch: Batch, tenant: string, field: IndexField, value: string, id: string, present: boolean): void {
  const key = indexKey(tenant, field, value, id);
  batch.lists.set(`${key.pk}\n${id}`, present ? { put: { ...key, kind: "index" } } : { delete: key });
}

function add(batch: Batch, name: string, by: number): void {
  batch.counts.set(name, (batch.counts.get(name) ?? 0) + by);
}

export const isDead = (row: Row | undefined): boolean =>
  row?.status === "failed" && row.error?.code !== outcome.dependencyFailed;

function taskChanged(batch: Batch, old: Row | undefined, next: Row | undefined): void {
  const row = (next ?? old) as Row;
  const { tenant, id } = row;
  if (old?.status !== next?.status) {
    if (old) {
      list(batch, tenant, "status", old.status, id, false);
      add(batch, `tasks.${old.status}`, -1);
    }
    if (next) {
      list(batch, tenant, "status", next.status, id, true);
      add(batch, `tasks.${next.status}`, 1);
      if (terminal.has(next.status)) add(batch, `ended.${next.status}`, 1);
    }
    const waited = old?.status === "queued";
    const waits = next?.status === "queued";
    if (waited !== waits) {
      for (const capability of capabilitiesOf(row.requires)) add(batch, `depth.${capability}`, waits ? 1 : -1);
    }
    if (isDead(old) !== isDead(next)) list(batch, tenant, "dead", "", id, isDead(next));
  }
  const bytes = grown(old, next);
  if (bytes !== 0) add(batch, "bytes", bytes);
  if (!old || !next) {
    const present = next !== undefined;
    const key = indexKey(tenant, "type", row.type, id);
    const entry = { put: { ...key, kind: "index" } };
    batch.lists.set(`${key.pk}\n${id}`, present ? entry : { delete: key });
    if (present) batch.made.set(id, entry);
    for (const tag of row.tags ?? []) list(batch, tenant, "tag", tag, id, present);
    if (row.parentId !== undefined) list(batch, tenant, "parent", row.parentId, id, present);
  }
  if (old?.agentId !== next?.agentId) {
    if (old?.agentId !== undefined) list(batch, tenant, "agent", old.agentId, id, false);
    if (next?.agentId !== undefined) list(batch, tenant, "agent", next.agentId, id, true);
  }
  if (next) taskEvents(batch.events, old, next);
}

/** By how many bytes what is stored of a task has grown: its payloads, and a fixed size for all else. */
export function grown(old: Row | undefined, next: Row | undefined): number {
  let bytes = ((next ? 1 : 0) - (old ? 1 : 0)) * taskBytes;
  for (const name of payloads)
    if (old?.[name] !== next?.[name]) bytes += payloadBytes(next?.[name]) - payloadBytes(old?.[name]);
  const kept = (row: Row | undefined) => (row?.inputBytes ?? 0) + (row?.resultBytes ?? 0);
  return bytes + kept(next) - kept(old);
}

/** What an agent holds. On a shared store its row says so, by marks. */
function heldChanged(batch: Batch, old: Row | undefined, next: Row | undefined): void {
  const { tenant, id } = (next ?? old) as Row;
  const heldBefore = old && held.has(old.status) ? old.agentId : undefined;
  const heldNow = next && held.has(next.status) ? next.agentId : undefined;
  if (heldBefore !== heldNow) {
    if (heldBefore !== undefined) list(batch, tenant, "held", heldBefore, id, false);
    if (heldNow !== undefined) list(batch, tenant, "held", heldNow, id, true);
  }
}

function agentChanged(batch: Batch, old: AgentRow.Row | undefined, next: AgentRow.Row | undefined): void {
  if (old?.state !== next?.state) {
    if (old) add(batch, `agents.${old.state}`, -1);
    if (next) add(batch, `agents.${next.state}`, 1);
  }
  if (next) agentEvents(batch.events, old, next);
}

/** Slots there are. Where one process has all in memory it counts them there. */
function slotsChanged(batch: Batch, old: AgentRow.Row | undefined, next: AgentRow.Row | undefined): void {
  const slots = (row: AgentRow.Row | undefined) =>
    row === undefined || row.state === "stopped" ? 0 : row.maxConcurrency;
  add(batch, "slots.all", slots(next) - slots(old));
}

/** Slots in use, by the tasks that have them: their change is counted anyway, that of their agent is not. */
function usedChanged(batch: Batch, old: Row | undefined, next: Row | undefined): void {
  const slots = (row: Row | undefined) => (row && held.has(row.status) ? row.slots : 0);
  add(batch, "slots.used", slots(next) - slots(old));
}

/** How many of the next events go into one row. */
function fitting(events: readonly Entry[], from: number, most: number): number {
  let bytes = 0;
  let count = 0;
  while (count < most && from + count < events.length) {
    bytes += valueBytes(events[from + count] as unknown as Value);
    if (count > 0 && bytes > entriesBytes) break;
    count++;
  }
  return count;
}

/** Gives events their sequence numbers, and notes for each task which rows speak of it. */
async function append(
  ports: Ports,
  tenant: string,
  { events, made }: Batch,
  once: (Put | Update)[],
  again: (Put | Delete)[],
): Promise<void> {
  const { eventSeconds } = (await policyOf(ports, tenant)).retention;
  // From now on, not from when it was: what an import tells of may be older than that, and the log would have holes.
  const expiresAt = expiry(ports.clock.now(), eventSeconds);
  const ends = expiresAt !== undefined && { expiresAt };
  const head = await ports.store.get(eventHeadKey(tenant));
  let last = (head?.last as number | undefined) ?? 0;
  const rowsOf = new Map<string, number[]>();
  for (let done = 0; done < events.length; ) {
    const first = last + 1;
    const room = eventRowsPerPartition - (first % eventRowsPerPartition);
    const entries = events.slice(done, done + fitting(events, done, Math.min(entriesPerRow, room)));
    once.push({
      put: {
        pk: eventPartition(tenant, first),
        sk: sequenceKey(first),
        kind: "events",
        first,
        entries: entries as unknown as Value,
        ...ends,
      },
    });
    for (const [, , taskId] of entries) {
      if (!taskId) continue;
      const rows = rowsOf.get(taskId);
      if (rows === undefined) rowsOf.set(taskId, [first]);
      else if (rows.at(-1) !== first) rows.push(first);
    }
    last += entries.length;
    done += entries.length;
  }
  once.push({ update: eventHeadKey(tenant), kind: "events-head", set: { last } });
  for (const [taskId, rows] of rowsOf) {
    const entry = made.get(taskId);
    if (entry) {
      entry.put = { ...entry.put, events: rows };
      continue;
    }
    const sk = sequenceKey(rows[0] as number);
    again.push({ put: { pk: taskEventPartition(tenant, taskId), sk, kind: "task-events", rows, ...ends } });
  }
}
