import { emptied } from "./agent/leave.ts";
import { takeBackAsked } from "./agent/manage.ts";
import type * as AgentRow from "./agent/row.ts";
import { hasRoom, orderOf } from "./delivery/order.ts";
import { isCalled } from "./delivery/schema.ts";
import { requestErrors } from "./error.ts";
import { agentEvents, taskEvents } from "./event/derived.ts";
import { type Entry, eventChannel } from "./event/log.ts";
import { subscribed } from "./event/subscription.ts";
import { serveAgent, serveCalled, serveGate, serveRoomy } from "./match/dispatch.ts";
import * as Gate from "./match/gate.ts";
import { openKnown } from "./match/open.ts";
import type { BusEvent, Change, Ports, Value } from "./port/index.ts";
import { clear } from "./retention/retention.ts";
import { systemScope } from "./scope.ts";
import { failBound, failIfRemoved, waitsForOne } from "./task/bound.ts";
import { catchUp, tellDependants } from "./task/dependency.ts";
import { taskChannel } from "./task/read.ts";
import { held, type Row, terminal } from "./task/row.ts";
import { arm, type TimerEntry } from "./timer.ts";

/** Kinds of rows whose changes the outbox and the projection work on. */
export const outboxKinds = ["task", "agent"] as const;

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
    const entries: Entry[] = [];
    if (next.kind === "task") taskEvents(entries, change.old as Row | undefined, next as Row);
    else agentEvents(entries, change.old as AgentRow.Row | undefined, next as AgentRow.Row);
    for (const [place, [type, at, taskId, agentId, data]] of entries.entries()) {
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
