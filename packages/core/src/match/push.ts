import { tell } from "../agent/message.ts";
import { isCalled } from "../delivery/schema.ts";
import type { Scope } from "../scope.ts";
import { type Row, toInfo } from "../task/row.ts";
import type { Assignment } from "../task/schema.ts";
import { readBlob } from "../task/stored.ts";
import type { Member } from "./member.ts";

/**
 * Pushes work to a connected agent, once it is durable; to one that asks, by the answer of its waiting call. To one that
 * is called the outbox sends it.
 */
export async function push(scope: Scope, member: Member, tasks: readonly Row[]): Promise<void> {
  if (tasks.length === 0 || isCalled(member.row)) return;
  if (!member.connected && !scope.ports.shared) {
    member.mailbox.push(...tasks);
    for (const wake of member.waiters) wake();
    return;
  }
  const assign = await Promise.all(tasks.map((task) => toAssignment(scope, task, member)));
  tell(scope, member.row, { assign });
}

export async function toAssignment(scope: Scope, task: Row, member: Pick<Member, "row">): Promise<Assignment> {
  const info = toInfo(task);
  if (task.inputBlob !== undefined) info.input = await readBlob(scope, task.inputBlob);
  const expires = member.row.expiresAt ?? scope.ports.clock.now() + member.row.leaseSeconds * 1000;
  return { task: info, fence: task.fence, expiresAt: new Date(expires).toISOString() };
}
