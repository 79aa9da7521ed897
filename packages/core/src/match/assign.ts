import { heldMark } from "../agent/row.ts";
import { isCalled } from "../delivery/schema.ts";
import type { Item, Put, TransactResult, Update, Write } from "../port/index.ts";
import { stickyKey, taskKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { advance, held, type Row } from "../task/row.ts";
import type { Choice } from "./choice.ts";
import type { Directory } from "./directory.ts";
import type { Member } from "./member.ts";
import { type Fresh, noteRefusal, placeOf } from "./park.ts";
import { hold, learnFromRefusal, reserve, slotsWrite, takeHeld, unreserve } from "./slots.ts";

/** The task as it is once it has its agent, and the write that makes it so. */
export function assigned(scope: Scope, row: Row, { member, decision }: Choice): { next: Row; write: Update } {
  const now = scope.ports.clock.now();
  return advance(
    row,
    {
      status: "assigned",
      agentId: member.id,
      fence: row.fence + 1,
      attempt: row.attempt + 1,
      assignedAt: now,
      startedAt: undefined,
      beatAt: undefined,
      decision,
      waitingReason: undefined,
      waitingSince: undefined,
      parked: undefined,
      gate: undefined,
      silenceSeconds: isCalled(member.row) ? member.row.leaseSeconds : undefined,
    },
    { at: now },
  );
}

/** What an assignment has to do with, beside the task and its agent. */
export interface Terms {
  /** What makes it enter the limits it has. */
  readonly gateWrites?: readonly Write[];
  /** The task is new. */
  readonly fresh?: Fresh;
  /** On a shared store: it will be pushed there, so the agent must still have this connection. */
  readonly connectionId?: string | undefined;
}

/**
 * The agent's slots taken, the task assigned, its fence one up, its place in limits and lists settled: one transaction, or
 * on a shared store two writes, where the task and its agent are all there is to change.
 * @returns undefined where the task, its agent or a limit changed meanwhile; `freed` where they did after the agent's slots were
 *   taken, which are given back: others may wait for them
 */
export async function tryAssign(
  scope: Scope,
  directory: Directory,
  row: Row,
  choice: Choice,
  { gateWrites = [], fresh, connectionId }: Terms,
): Promise<Row | "freed" | undefined> {
  const { member } = choice;
  const { next, write } = assigned(scope, row, choice);
  const task: Put | Update = fresh ? { put: next, if: { exists: false } } : write;
  const others: Write[] = [...gateWrites];
  // That one fewer waits at its limit is part of its entering there.
  if (row.parked !== undefined) others.push({ delete: placeOf(scope.tenant, row, row.parked) });
  if (row.stickyKey !== undefined && choice.stickyAgentId !== member.id) {
    others.push({ put: { ...stickyKey(scope.tenant, row.stickyKey), kind: "sticky", agentId: member.id } });
  }
  if (fresh) others.push(...fresh.others);
  hold(directory, member, row.slots);
  const result = await takeHeld<Assigned>(directory, member, [row], () =>
    scope.ports.shared && others.length === 0
      ? assignApart(scope, member, next, task, connectionId)
      : scope.ports.store.transact([task, slotsWrite(scope, member, [next], connectionId), ...others]),
  );
  if (result.agent) directory.set(result.agent as unknown as Member["row"]);
  if (result.ok) return next;
  const [, agentRefusal] = result.reasons;
  if (agentRefusal) learnFromRefusal(directory, member, agentRefusal);
  const left = agentRefusal?.winner?.[heldMark(row.id)];
  if (typeof left === "number" && left < next.fence) await unreserve(scope, member, row, left);
  directory.refresh(member);
  if (fresh) noteRefusal(fresh, result.reasons);
  return result.freed ? "freed" : undefined;
}

type Assigned = TransactResult & { readonly agent?: Item; readonly freed?: boolean };

/**
 * By themselves, one after the other, the two writes cost half of a transaction. The agent's comes first: what it cannot take
 * leaves no trace on the task. The mark it makes is for this task and fence alone, so that after a crash between the two
 * whoever gives the task to the same agent goes on from there; if nobody does, the reconciler takes it for stray.
 */
async function assignApart(
  scope: Scope,
  member: Member,
  next: Row,
  task: Put | Update,
  connectionId: string | undefined,
): Promise<Assigned> {
  const { store } = scope.ports;
  const slots = await reserve(scope, member, [next], connectionId);
  if (!slots.ok) {
    const there = slots.winner as Member["row"] | undefined;
    const begun =
      slots.winner?.[heldMark(next.id)] === next.fence &&
      there?.state === "active" &&
      (connectionId === undefined || there.connectionId === connectionId);
    if (!begun) return { ok: false, reasons: [undefined, slots] };
  }
  const written = await store.write(task);
  if (written.ok) return { ok: true, ...(slots.ok && slots.item && { agent: slots.item }) };
  const now = (written.winner ?? (await store.get(taskKey(scope.tenant, next.id)))) as Row | undefined;
  // Whoever else gave it to the same agent has it by the same mark.
  const shares = now?.agentId === member.id && now.fence === next.fence && held.has(now.status);
  const freed = slots.ok && !shares;
  if (freed) await unreserve(scope, member, next, next.fence);
  return { ok: false, reasons: [written, undefined], freed };
}
