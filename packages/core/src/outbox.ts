import { emptied } from "./agent/leave.ts";
import { takeBackAsked } from "./agent/manage.ts";
import type * as AgentRow from "./agent/row.ts";
import { countedBy } from "./counters.ts";
import { hasRoom, orderOf } from "./delivery/order.ts";
import { isCalled } from "./delivery/schema.ts";
import { requestErrors } from "./error.ts";
import type { Entry } from "./event/log.ts";
import { eventChannel } from "./event/log.ts";
import { subscribed } from "./event/subscription.ts";
import { openKnown } from "./match/directory.ts";
import { serveAgent, serveCalled, serveGate, serveRoomy } from "./match/dispatch.ts";
import * as Gate from "./match/gate.ts";
import { capabilitiesOf } from "./match/requirement.ts";
import { policyOf } from "./policy.ts";
import {
  type BusEvent,
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
import { clear, expiry } from "./retention/retention.ts";
import {
  eventHeadKey,
  eventPartition,
  eventRowsPerPartition,
  type IndexField,
  indexKey,
  sequenceKey,
  taskEventPartition,
} from "./rows.ts";
import { systemScope } from "./scope.ts";
import { failBound, failIfRemoved, waitsForOne } from "./task/bound.ts";
import { catchUp, tellDependants } from "./task/dependency.ts";
import { outcome } from "./task/error.ts";
import { taskChannel } from "./task/read.ts";
import { held, payloadBytes, payloads, type Row, taskBytes, terminal, whole } from "./task/row.ts";
import { arm, type TimerEntry } from "./timer.ts";

/** Kinds of rows whose changes the outbox and the projection work on. */
export const outboxKinds = ["task", "agent"] as const;

/** Events in one stored row, and what they may take of the 400 KB of an item: one may tell of an error of 48 KB. */
const entriesPerRow = 200;
const entriesBytes = 300 * 1024;

/** What is done after a batch of changes, in this order. */
const steps = [
  ...["told", "result", "deleted", "unmet", "emptied", "removed"],
  ...["bound", "asked", "parked", "limit", "room"],
] as const;

/** What follows from a batch of changes, as far as they were looked through. */
interface Work {
  readonly timers: TimerEntry[];
  readonly dispatch: Value[];
  readonly deliver: Value[];
  /** By what each is about: it is done once, for the last change that asks for it. */
  readonly todo: Readonly<Record<(typeof steps)[number], Map<unknown, () => Promise<unknown>>>>;
  readonly freed: Map<string, Map<string, AgentRow.Row>>;
  /** Some of it takes payloads away. */
  unnamed: boolean;
}

/**
 * What has to follow from changes of state: timers are set, tasks that waited for others learn how those ended,
 * whoever watches is woken. At least once; repeating it is harmless.
 */
export async function relay(ports: Ports, changes: readonly Change[]): Promise<void> {
  const todo = Object.fromEntries(steps.map((step) => [step, new Map()])) as unknown as Work["todo"];
  const work: Work = { timers: [], dispatch: [], deliver: [], todo, freed: new Map(), unnamed: false };
  const generation = ports.store.generation();
  const tenants = new Set<string>();
  for (const change of changes) {
    const next = change.new as Row | AgentRow.Row | undefined;
    const old = change.old as Row | AgentRow.Row | undefined;
    if (next) tenants.add(next.tenant);
    // A deadline that moved away needs no new timer: the one that is set looks again when it fires.
    const at = next?.deadlineAt;
    if (next && at !== undefined && at < (old?.deadlineAt ?? Number.POSITIVE_INFINITY))
      work.timers.push([next.tenant, next.kind, next.id, at]);
    if ((next ?? old)?.kind === "task") followTask(ports, work, old as Row | undefined, next as Row | undefined);
    else if (next) followAgent(ports, work, old as AgentRow.Row | undefined, next as AgentRow.Row);
  }
  const { timers, dispatch, deliver, freed } = work;
  if (timers.length > 0) await arm(ports, timers);
  if (dispatch.length > 0) await ports.queues.dispatch.send(dispatch.map((body) => ({ body })));
  if (deliver.length > 0) await ports.queues.deliver.send(deliver.map((body) => ({ body })));
  for (const tenant of tenants) {
    const types = await subscribed(ports, tenant);
    if (types.size > 0) await publish(ports, tenant, types, changes);
  }
  // A payload is gone at once: that no row names it any more has to be on disk first.
  if (work.unnamed) await ports.store.settled(generation);
  for (const step of steps) for (const run of todo[step].values()) await run();
  for (const [tenant, agents] of freed)
    if (agents.size > 0) await serveRoomy(systemScope(ports, tenant, "outbox"), [...agents.values()]);
  for (const tenant of tenants) ports.live.publish(eventChannel(tenant), {});
}

function followTask(ports: Ports, work: Work, old: Row | undefined, next: Row | undefined): void {
  const { tenant, id } = (next ?? old) as Row;
  const scope = systemScope(ports, tenant, "outbox");
  const { todo } = work;
  if (!next) {
    work.unnamed ||= (old as Row).inputBlob !== undefined || (old as Row).resultBlob !== undefined;
    todo.deleted.set(old, () => clear(scope, old as Row));
    return;
  }
  // Retried by hand, it has the result no more that was kept apart from it.
  const blob = old?.resultBlob;
  if (blob !== undefined && next.resultBlob === undefined) {
    work.unnamed = true;
    todo.result.set(blob, () => ports.blobs.delete(blob));
  }
  const order = orderOf(old, next);
  if (order) work.deliver.push(order as unknown as Value);
  if (waitsForOne(old, next)) todo.bound.set(next, () => failIfRemoved(scope, next));
  if (terminal.has(next.status) && !(old && terminal.has(old.status))) {
    ports.live.publish(taskChannel(tenant, id), { status: next.status });
    if (next.dependants) todo.told.set(next, () => tellDependants(scope, id, next.status));
  }
  if (ports.shared) return;
  const agentId = hasRoom(old, next);
  if (agentId !== undefined) todo.room.set(`${tenant}/${agentId}`, () => serveAgent(scope, agentId));
  for (const key of limitsLeft(old, next)) todo.limit.set(`${tenant}/${key}`, () => serveGate(scope, key));
  if (isParked(old, next)) todo.parked.set(`${tenant}/${next.lane}`, () => serveCalled(scope, next));
  if (next.status === "queued" && next.parked === undefined && old?.status !== "queued")
    work.dispatch.push({ tenant, id, rev: next.rev });
  if (next.status === "scheduled" && next.unmet !== undefined && old?.unmet === undefined)
    todo.unmet.set(next, () => catchUp(scope, next));
}

function followAgent(ports: Ports, { todo, freed }: Work, old: AgentRow.Row | undefined, next: AgentRow.Row): void {
  const { tenant, id } = next;
  const scope = systemScope(ports, tenant, "outbox");
  const name = `${tenant}/${id}`;
  if (hasRoom(old, next) !== undefined) todo.room.set(name, () => serveAgent(scope, id));
  if (next.state === "stopped" && old?.state !== "stopped") todo.removed.set(name, () => failBound(scope, id));
  if (old && !isCalled(old) && isCalled(next)) todo.asked.set(next, () => takeBackAsked(scope, old, next));
  if (!isEmpty(next)) todo.emptied.delete(name);
  else todo.emptied.set(name, async () => emptied(scope, await openKnown(ports, tenant), id));
  if (ports.shared) noteFreed(freed, old, next);
}

/**
 * Limits that this change may let a task through: it gave a place back there, or came to wait. Whoever did that looked, or died before
 * it did. On a shared store the reconciler sees to it.
 */
function limitsLeft(old: Row | undefined, next: Row): string[] {
  const keys = old && held.has(old.status) && !held.has(next.status) && Gate.gated(old) ? Gate.keysOf(old) : [];
  return next.gate !== undefined && next.gate !== old?.gate ? [...keys, next.gate] : keys;
}

/** By this change it came to wait in its lane. On a shared store the reconciler sees to those that wait beside somebody free. */
const isParked = (old: Row | undefined, next: Row): boolean =>
  next.parked !== undefined && next.gate === undefined && (old?.parked !== next.parked || old.gate !== undefined);

/**
 * It is to leave, and holds nothing: its last task may have ended in the moment it was told to, which took it for busy, or whoever ended
 * that one may have died before it looked.
 */
const isEmpty = ({ state, used, drainedAt, stopAt }: AgentRow.Row): boolean =>
  state === "draining" && used === 0 && (drainedAt === undefined || stopAt !== undefined);

/**
 * Agents that gave slots back and still have them, where work is handed to them. Whoever ended their tasks looked for more as far
 * as it knew, or died before it did.
 */
function noteFreed(
  freed: Map<string, Map<string, AgentRow.Row>>,
  old: AgentRow.Row | undefined,
  next: AgentRow.Row,
): void {
  const agents = freed.get(next.tenant) ?? new Map<string, AgentRow.Row>();
  const room = next.state === "active" && next.used < next.maxConcurrency;
  if (!room || (next.connectionId === undefined && !isCalled(next))) agents.delete(next.id);
  else if (agents.has(next.id) || (old !== undefined && old.used > next.used)) {
    agents.set(next.id, next);
    freed.set(next.tenant, agents);
  }
}

/**
 * Publishes what somebody subscribes to, in the order of the changes. An event that goes twice has the same id, made of
 * whose it is, the change, and its place in it.
 */
async function publish(
  ports: Ports,
  tenant: string,
  types: ReadonlySet<string>,
  changes: readonly Change[],
): Promise<void> {
  const events: BusEvent[] = [];
  for (const change of changes) {
    const next = change.new as Row | AgentRow.Row | undefined;
    if (!next || next.tenant !== tenant) continue;
    const batch = newBatch();
    if (next.kind === "task") taskEvents(batch.events, change.old as Row | undefined, next as Row);
    else agentChanged(batch, change.old as AgentRow.Row | undefined, next as AgentRow.Row);
    for (const [place, [type, at, taskId, agentId, data]] of batch.events.entries()) {
      if (!types.has(type)) continue;
      const { id: subject, rev, traceparent, parentId, hops = 0 } = next as Row;
      const id = `${subject}.${rev}.${place}`;
      const time = new Date(at).toISOString();
      const metadata = {
        id,
        time,
        tenant,
        subject,
        actor: agentId === "" ? null : agentId,
        cause: traceparent ?? parentId ?? null,
        // Rises with the changes of one task or agent.
        sequence: rev * 16 + place,
        hops,
      };
      const about = { ...(taskId && { taskId, taskType: (next as Row).type }), ...(agentId && { agentId }) };
      const detail = { ...data, ...about, metadata } as unknown as BusEvent["detail"];
      events.push({ id, source: "waggle", detailType: type, time, detail });
    }
  }
  if (events.length > 0) await ports.bus.publish(events);
}

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
  if (!next) return;
  taskEvents(batch.events, old, next);
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

function taskEvents(events: Entry[], old: Row | undefined, now: Row): void {
  const next = whole(now);
  const { id } = next;
  const agentId = next.agentId ?? "";
  const history = next.history.at(-1);
  const at = history?.[0] ?? next.createdAt;
  const note = history?.[4];
  const say = (type: string, data: Record<string, unknown>, when = at, agent = agentId) =>
    events.push([`task.${type}`, Math.round(when), id, agent, data]);
  if (!old)
    say(
      "created",
      { type: next.type, priority: next.priority, ...(next.parentId !== undefined && { parentId: next.parentId }) },
      next.createdAt,
    );
  // Taken and given to an agent in one go.
  const first = next.history[0];
  if (!old && first?.[1] === "queued" && next.status !== "queued") say("queued", {}, first[0], "");
  if (old?.status !== next.status) {
    const had = old?.agentId ?? agentId;
    const error = next.error && { error: next.error };
    if (next.status === "queued" || next.status === "scheduled") {
      if (old && terminal.has(old.status)) say("retried", { manual: true });
      else if (old && held.has(old.status)) {
        if (note?.startsWith("released")) say("released", { reason: note }, at, had);
        else
          say(
            "retried",
            {
              attempt: old.attempt,
              ...error,
              ...(next.scheduledAt !== undefined && { notBefore: new Date(next.scheduledAt).toISOString() }),
            },
            at,
            had,
          );
      }
      if (next.status === "queued") say("queued", { ...(note && old && { reason: note }) });
      else if (!old)
        say("scheduled", {
          ...(next.scheduledAt !== undefined && { notBefore: new Date(next.scheduledAt).toISOString() }),
        });
    } else if (next.status === "assigned") say("assigned", { fence: next.fence, attempt: next.attempt });
    else if (next.status === "running") say("started", { attempt: next.attempt });
    else {
      if (old?.status === "assigned" && next.startedAt !== undefined)
        say("started", { attempt: next.attempt }, next.startedAt);
      say(
        next.status,
        {
          attempt: next.attempt,
          ...(next.status !== "completed" && error),
          ...(note && { reason: note }),
          ...(next.usage && { usage: next.usage }),
        },
        at,
        had,
      );
    }
  }
  if (next.progress !== undefined && !same(next.progress, old?.progress))
    say("progress", { ...next.progress }, next.beatAt ?? at);
  if (next.cancelAt !== undefined && old?.cancelAt === undefined)
    say("cancel_requested", { reason: next.error?.message });
}

const same = (a: unknown, b: unknown): boolean => a === b || JSON.stringify(a) === JSON.stringify(b);

function agentChanged(batch: Batch, old: AgentRow.Row | undefined, next: AgentRow.Row | undefined): void {
  if (old?.state !== next?.state) {
    if (old) add(batch, `agents.${old.state}`, -1);
    if (next) add(batch, `agents.${next.state}`, 1);
  }
  if (!next) return;
  if (old && old.rev === next.rev) return;
  const say = (type: string, data: Record<string, unknown>) =>
    batch.events.push([`agent.${type}`, next.changedAt as number, "", next.id, { name: next.name, ...data }]);
  if (!old || old.registeredAt !== next.registeredAt)
    say("registered", { role: next.role ?? null, capabilities: next.capabilities.map((own) => own.name) });
  else if (old.state !== next.state) {
    // One that is tried anew is lost until it is reached.
    const again = next.state === "active" || (next.state === old.lostFrom && next.lastSeenAt !== old.lastSeenAt);
    if (old.state === "lost" && again) {
      if (!next.probing) say("back", {});
    } else if (next.state === "lost") {
      if (!old.probing)
        say("lost", { held: next.used, ...(next.missReason !== undefined && { reason: next.missReason }) });
    } else if (next.state === "active") say("resumed", {});
    else say(next.state === "stopped" ? "stopped" : next.state === "paused" ? "paused" : "draining", {});
  } else if (
    !same(old.capabilities, next.capabilities) ||
    !same(old.labels, next.labels) ||
    !same(old.delivery, next.delivery) ||
    old.role !== next.role ||
    old.maxConcurrency !== next.maxConcurrency
  )
    say("updated", {});
  if (old?.probing && !next.probing && old.state === "active" && next.state === "active") say("back", {});
  if (next.drainedAt !== undefined && old?.drainedAt === undefined) say("drained", {});
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

/** What the dispatch queue carries: a task that waits for an agent, or an agent that waits for tasks. */
export function readDispatch(
  body: Value,
): { tenant: string; id: string; rev: number; early: number } | { tenant: string; agentId: string } {
  const { tenant, id, agentId, rev = 0, early = 0 } = (body ?? {}) as Readonly<Record<string, unknown>>;
  if (typeof tenant === "string") {
    if (typeof id === "string") return { tenant, id, rev: rev as number, early: early as number };
    if (typeof agentId === "string") return { tenant, agentId };
  }
  throw requestErrors.invalid("a dispatch message is {tenant, id} or {tenant, agentId}");
}
