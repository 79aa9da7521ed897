import { cancelMark, deadlineOf, heldMark, isCarried } from "../agent/row.ts";
import type { Refusal, Update, WriteResult } from "../port/index.ts";
import { agentKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import type { Row } from "../task/row.ts";
import type { Directory } from "./directory.ts";
import type { Member } from "./member.ts";

/** Taken in memory first, so that nobody else in this process proposes the same slot. */
export function hold(directory: Directory, member: Member, slots: number): void {
  member.reserved++;
  member.pending += slots;
  member.used += slots;
  member.lastAssigned = ++directory.assignments;
  member.assigned++;
  directory.refresh(member);
}

/** Does the write that takes the slots held for these tasks: they are taken then, or free again. */
export async function takeHeld<Result extends { readonly ok: boolean }>(
  directory: Directory,
  member: Member,
  tasks: readonly Pick<Row, "slots">[],
  write: () => Promise<Result>,
): Promise<Result> {
  let taken = false;
  try {
    const result = await write();
    taken = result.ok;
    return result;
  } finally {
    for (const { slots } of tasks) unhold(directory, member, slots, taken);
  }
}

/** They are held no more. @param taken the agent's row counts them now */
export function unhold(directory: Directory, member: Member, slots: number, taken: boolean): void {
  member.reserved--;
  member.pending -= slots;
  if (taken) return;
  member.used -= slots;
  member.assigned--;
  directory.refresh(member);
}

/** The write that takes an agent's slots for tasks, if it has them and is there to be given them. */
export function slotsWrite(
  scope: Scope,
  member: Member,
  tasks: readonly Pick<Row, "id" | "slots" | "fence">[],
  connectionId?: string,
): Update {
  const slots = tasks.reduce((sum, task) => sum + task.slots, 0);
  const { shared } = scope.ports;
  const marks = tasks.map((task) => [heldMark(task.id), task.fence] as const);
  const lease = leaseWith(member.row, scope.ports.clock.now());
  return {
    update: agentKey(scope.tenant, member.id),
    kind: "agent",
    add: { used: slots },
    ...(shared && { set: { ...Object.fromEntries(marks), ...lease.set } }),
    if: {
      equals: { state: "active", ...(connectionId !== undefined && { connectionId }), ...lease.equals },
      // An earlier attempt of the task may have ended, and not given its slots back yet.
      ...(shared && { missing: marks.map(([mark]) => mark) }),
      lessThan: { used: member.maxConcurrency - slots + 1, ...lease.lessThan },
    },
  };
}

interface LeaseChange {
  readonly set?: { readonly expiresAt: number; readonly deadlineAt: number };
  readonly equals?: { readonly expiresAt: number };
  readonly lessThan?: { readonly expiresAt: number };
}

/**
 * An agent that lives by its connection gets a lease with what it is given: whoever gives it shortens the one it has, if that is
 * still the one it knows, and is refused where it has become long meanwhile.
 */
function leaseWith(row: Member["row"], now: number): LeaseChange {
  if (row.carriedUntil === undefined) return {};
  const expiresAt = now + row.leaseSeconds * 1000;
  if (!isCarried(row, now)) return { lessThan: { expiresAt: expiresAt + 1 } };
  const deadlineAt = deadlineOf({ ...row, expiresAt }) as number;
  return { set: { expiresAt, deadlineAt }, equals: { expiresAt: row.expiresAt as number } };
}

/** Takes an agent's slots by themselves, where others share the store. */
export async function reserve(...asked: Parameters<typeof slotsWrite>): Promise<WriteResult> {
  const [scope] = asked;
  return scope.ports.store.write(slotsWrite(...asked));
}

/** Gives them back by themselves, once for each attempt: for one that came to nothing, or whose end got no further. */
export async function unreserve(scope: Scope, member: Member, { id, slots }: Row, fence: number): Promise<void> {
  await scope.ports.store.write({
    update: agentKey(scope.tenant, member.id),
    kind: "agent",
    add: { used: -slots },
    remove: [heldMark(id), cancelMark(id)],
    if: { equals: { [heldMark(id)]: fence } },
  });
}

/** A refused write tells what its agent is like now. */
export function learnFromRefusal(directory: Directory, member: Member, refused: Refusal): void {
  if (!refused.winner) return;
  const row = refused.winner as unknown as Member["row"];
  member.used = row.used;
  directory.set(row);
  directory.refresh(member);
}
