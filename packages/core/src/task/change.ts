import { emptied } from "../agent/leave.ts";
import { tell } from "../agent/message.ts";
import { type Row as AgentRow, cancelMark, heldMark } from "../agent/row.ts";
import { isCalled } from "../delivery/schema.ts";
import { cacheOf } from "../match/cache.ts";
import type { Directory } from "../match/directory.ts";
import { mayServe, serveAgent, serveGate, take } from "../match/dispatch.ts";
import * as Gate from "../match/gate.ts";
import { left } from "../match/lane.ts";
import { lookAgain } from "../match/larger.ts";
import { freeSlots, type Member } from "../match/member.ts";
import { openFor, openKnown } from "../match/open.ts";
import { unpark } from "../match/park.ts";
import { yieldTo } from "../match/shared.ts";
import type { Update, Write } from "../port/index.ts";
import { keptUntil } from "../retention/retention.ts";
import { agentKey, taskKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { conflict, missing } from "./error.ts";
import { advance, backoffSeconds, exhausted, held, type Row, terminal } from "./row.ts";
import { readTask } from "./stored.ts";

export type Changes = Parameters<typeof advance>[1];
export interface Decision {
  readonly changes: Changes;
  /** Makes an entry of the history. */
  readonly note?: string | true;
  /** How the attempt ended for the agent's record; nothing for one given back. */
  readonly ended?: "completed" | "failed";
  /** What the call really used of its rate limit. */
  readonly units?: number | undefined;
  readonly extra?: readonly Write[];
}

/** Times a change is decided anew when others changed the row under it. */
const tries = 20;

/** The task after a change, and before it. And its agent, where that was written by itself. */
export interface Changed {
  readonly row: Row;
  readonly before: Row;
  readonly agent?: AgentRow;
}

/**
 * Reads the task, decides, and writes on the condition that nobody changed it meanwhile; else decides again.
 * A task that leaves its agent, its lane or its limits gives back in the same transaction what it held there.
 *
 * @param options `revokes`: the agent is told to stop working on a task that leaves it; before its slots are given back, as others may
 *   give it work the moment it has them. `known`: the task as the store had it just now, which saves the first read
 * @returns the same row twice when `decide` answered undefined
 */
export async function change(
  scope: Scope,
  id: string,
  decide: (row: Row, now: number) => Decision | undefined,
  { revokes = false, known }: { readonly revokes?: boolean; readonly known?: Row | undefined } = {},
): Promise<Changed> {
  const { store, clock, queues } = scope.ports;
  for (let attempt = 0; attempt < tries; attempt++) {
    if (scope.ports.shared) await yieldTo(scope.ports, attempt);
    const before = (attempt === 0 ? known : undefined) ?? (await readTask(scope, id));
    if (!before) throw missing(id);
    const now = clock.now();
    const decision = decide(before, now);
    if (!decision) return { row: before, before };
    const { changes } = decision;
    const wasHeld = held.has(before.status);
    const status = changes.status ?? before.status;
    const freed = wasHeld && !held.has(status);
    const unparked = before.parked !== undefined && status !== "queued";
    if (terminal.has(status)) {
      const expiresAt = await keptUntil(scope, now);
      Object.assign(changes, { finishedAt: now, cancelAt: undefined, scheduledAt: undefined, expiresAt });
    } else if (before.expiresAt !== undefined) Object.assign(changes, { expiresAt: undefined });
    if (unparked)
      Object.assign(changes, { parked: undefined, gate: undefined, waitingReason: undefined, waitingSince: undefined });
    const { next, write } = advance(
      before,
      changes,
      decision.note === undefined ? undefined : { at: now, ...(decision.note !== true && { reason: decision.note }) },
    );
    const writes: Write[] = [write];
    if (freed) {
      writes.push(slotsBack(scope, before, decision.ended, now));
      if (Gate.gated(before))
        writes.push(...(await Gate.leave(scope.ports, scope.tenant, before, now, decision.units)));
    }
    if (unparked) writes.push(...unpark(scope, before));
    if (decision.extra) writes.push(...decision.extra);
    // The message first: one without its change is dropped in the end, a change without its message would wait until somebody looks.
    // In one process the outbox sends it, from the change: that needs no order, and comes again after a crash.
    if (scope.ports.shared && status === "queued" && before.status !== "queued")
      await queues.dispatch.send([{ body: { tenant: scope.tenant, id, rev: next.rev } }]);
    // By themselves, one after the other, they cost half. A crash between leaves the mark of a task the agent no longer holds,
    // which keeps its slots until the reconciler takes it away.
    const apart = scope.ports.shared && freed && writes.length === 2;
    const result = await store.transact(apart ? [write] : writes);
    if (!result.ok) continue;
    if (unparked) await noteLeft(scope, before);
    if (freed && revokes) await revoke(scope, before);
    const agent = apart ? await giveSlotsBack(scope, before, writes[1] as Update) : undefined;
    if (agent) return { row: next, before, agent };
    if (freed) await afterFreed(scope, before, decision.ended, now);
    return { row: next, before };
  }
  throw conflict(`task ${id} is being changed by others; try again`);
}

/**
 * Completes an attempt on a shared store, unread: its agent and fence are in the caller's hands, and whatever else counts comes
 * back with the write. What it cannot know, `whole` (`row.ts`) adds. With limits there are more rows to write, together.
 * @returns what was changed; or, as it was refused, the task as it stands
 */
export async function completeUnread(
  scope: Scope,
  id: string,
  fence: number,
  outcome: Changes,
): Promise<{ readonly done: Changed } | { readonly done?: undefined; readonly stands: Row | undefined }> {
  const { store, clock } = scope.ports;
  const now = clock.now();
  const written = await store.write({
    update: taskKey(scope.tenant, id),
    kind: "task",
    set: { ...outcome, status: "completed", finishedAt: now, expiresAt: await keptUntil(scope, now) } as never,
    add: { rev: 1 },
    remove: ["error", "cancelAt", "scheduledAt", "deadlineAt"],
    if: {
      equals: { fence, agentId: scope.actor.id },
      oneOf: { status: [...held] },
      // The first of them also sees to it that no second try of the call adds again.
      missing: ["finishedAt", "concurrency", "rate"],
    },
  });
  if (!written.ok) return { stands: written.winner as Row | undefined };
  const row = written.item as Row;
  const agent = await giveSlotsBack(scope, row, slotsBack(scope, row, "completed", now));
  if (!agent) await afterFreed(scope, row, "completed", now);
  return { done: { row, before: row, ...(agent && { agent }) } };
}

/**
 * It waits in its lane no more, by nobody's taking it: whoever looks there next need not come upon it. On a shared store the
 * reconciler sees to agents that kept slots free for it.
 */
async function noteLeft(scope: Scope, { lane, gate, parked }: Row): Promise<void> {
  if (scope.ports.shared || gate !== undefined) return;
  const directory = await openKnown(scope.ports, scope.tenant);
  const known = directory.lanes.get(lane);
  if (!known) return;
  left(known, parked as string);
  await lookAgain(scope, directory, known);
}

/** The write that gives an agent back the slots of a task that it held. */
const slotsBack = (scope: Scope, task: Row, ended: Decision["ended"], now: number): Update => ({
  update: agentKey(scope.tenant, task.agentId as string),
  kind: "agent",
  add: { used: -task.slots, ...(ended && { [ended]: 1, busyMs: busyMs(task, now) }) },
  ...(scope.ports.shared && { remove: [heldMark(task.id), cancelMark(task.id)] }),
  if: { exists: true },
});

const busyMs = ({ startedAt, assignedAt }: Row, now: number): number => now - (startedAt ?? assignedAt ?? now);

/** By itself, and once for each attempt, whoever does it: with the mark goes the right to. @returns the agent, unless it was done before */
async function giveSlotsBack(scope: Scope, { id, fence }: Row, write: Update): Promise<AgentRow | undefined> {
  const given = await scope.ports.store.write({ ...write, if: { equals: { [heldMark(id)]: fence } } });
  if (!given.ok || !given.item) return undefined;
  const agent = given.item as AgentRow;
  cacheOf(scope.ports, scope.tenant).set(agent);
  return agent;
}

/** `change` of what may leave its agent by another's doing: that one is told. */
export const takeAway = (scope: Scope, id: string, decide: Parameters<typeof change>[2]) =>
  change(scope, id, decide, { revokes: true });

async function afterFreed(scope: Scope, before: Row, ended: Decision["ended"], now: number): Promise<void> {
  const { shared } = scope.ports;
  const directory = await openKnown(scope.ports, scope.tenant);
  const member = directory.members.get(before.agentId as string);
  if (!member) return;
  member.used = Math.max(0, member.used - before.slots);
  member.cancels?.delete(before.id);
  if (ended) {
    member[ended]++;
    member.busyMs += busyMs(before, now);
  }
  directory.refresh(member);
  // What is remembered of its state may be old where others write too: whoever goes on with the agent reads it.
  if (!shared && member.used === 0 && member.row.state === "draining") await emptied(scope, directory, member.id);
}

/**
 * After a task gave back its places: whoever waits for its limits goes on, and its agent gets its next work,
 * as the answer of this call when it asked for `max` of it, else by push when it is there to receive it.
 * @param agent as the store has it, where that is known
 */
export async function goOn(
  scope: Scope,
  before: Row,
  max?: number,
  agent?: AgentRow,
): Promise<{ directory: Directory; member: Member; tasks: Row[] } | undefined> {
  if (Gate.gated(before)) for (const key of Gate.keysOf(before)) await serveGate(scope, key);
  if (before.agentId === undefined) return undefined;
  if (!max) {
    if (!agent) await serveAgent(scope, before.agentId);
    else if (mayServe(scope, agent)) await serveAgent(scope, before.agentId, () => true);
    return undefined;
  }
  const known = agent && (() => true);
  const directory = await openFor(scope.ports, scope.tenant, before.agentId, known);
  const member = directory.members.get(before.agentId);
  if (scope.ports.shared && member?.row.state === "draining") await emptied(scope, directory, member.id);
  if (member && isCalled(member.row)) {
    await serveAgent(scope, before.agentId);
    return undefined;
  }
  if (!member) return undefined;
  const tasks = await take(scope, directory, member, max);
  // It may have asked for less here than it has room for, and wait for more elsewhere.
  if (!scope.ports.shared && freeSlots(member) > 0) await serveAgent(scope, before.agentId);
  return { directory, member, tasks };
}

/** What follows from an attempt that failed: another one after the back-off, or the end. */
export function failed(
  row: Row,
  error: { code: string; message: string; retryable?: boolean | undefined },
  now: number,
  options: { unit: number; immediate?: boolean },
): Decision {
  const kept = {
    code: error.code,
    message: error.message,
    ...(error.retryable !== undefined && { retryable: error.retryable }),
  };
  const over = exhausted(row, error);
  const fenced = { fence: row.fence + 1 };
  if (row.cancelAt !== undefined)
    return {
      changes: { ...fenced, status: "cancelled" },
      note: "cancelled while running",
      ended: "failed",
    };
  if (over !== undefined)
    return { changes: { ...fenced, status: "failed", error: kept }, note: `${error.code}: ${over}`, ended: "failed" };
  const delayMs = options.immediate ? 0 : Math.round(backoffSeconds(row, options.unit) * 1000);
  const again = {
    agentId: undefined,
    error: kept,
    decision: undefined,
    startedAt: undefined,
    assignedAt: undefined,
    beatAt: undefined,
    progress: undefined,
  };
  if (delayMs <= 0)
    return {
      changes: { ...again, status: "queued", queuedAt: now, scheduledAt: undefined },
      note: `retry after ${error.code}`,
      ended: "failed",
    };
  return {
    changes: { ...again, status: "scheduled", scheduledAt: now + delayMs },
    note: `retry after ${error.code}`,
    ended: "failed",
  };
}

/** Back to the queue unharmed, the attempt not counted. */
export function released(row: Row, reason: string, now: number): Decision {
  if (row.cancelAt !== undefined) {
    return {
      changes: { status: "cancelled", fence: row.fence + 1 },
      note: reason,
    };
  }
  return {
    changes: {
      status: "queued",
      queuedAt: now,
      attempt: Math.max(0, row.attempt - 1),
      agentId: undefined,
      decision: undefined,
      assignedAt: undefined,
      startedAt: undefined,
      beatAt: undefined,
      progress: undefined,
    },
    note: `released: ${reason}`.slice(0, 200),
  };
}

/** Tells the agent that had it to stop working on it. */
async function revoke(scope: Scope, before: Row): Promise<void> {
  if (before.agentId === undefined) return;
  tell(scope, await whereIs(scope, before.agentId), { revoked: [before.id] });
}

/** How the agent is reached: its connection as the store has it, where that is how. */
export async function whereIs(
  scope: Scope,
  id: string,
): Promise<{ readonly id: string; readonly connectionId?: string | undefined }> {
  if (!scope.ports.shared) return { id };
  const directory = await openFor(scope.ports, scope.tenant, id);
  return directory.members.get(id)?.row ?? { id };
}
