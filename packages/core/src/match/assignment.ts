import { tell } from "../agent/message.ts";
import { isCalled } from "../delivery/schema.ts";
import type { JsonText } from "../json.ts";
import type { RowKey, Write } from "../port/index.ts";
import { gateKey, gatePartition, lanePartition, taskKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { type Row, toInfo } from "../task/row.ts";
import type { Assignment } from "../task/schema.ts";
import * as Gate from "./gate.ts";
import type { Member } from "./member.ts";

export async function readTask(scope: Scope, id: string): Promise<Row | undefined> {
  return (await scope.ports.store.get(taskKey(scope.tenant, id))) as Row | undefined;
}

/** The row by which a task waits: at a limit, or in its lane. */
export const placeOf = (tenant: string, { gate, lane }: Row, parked: string): RowKey => ({
  pk: gate === undefined ? lanePartition(tenant, lane) : gatePartition(tenant, gate),
  sk: parked,
});

/** The writes by which a task waits no more where it did. */
export function unpark({ tenant }: Scope, row: Row): Write[] {
  if (row.parked === undefined) return [];
  return [
    { delete: placeOf(tenant, row, row.parked) },
    ...(row.gate === undefined ? [] : [Gate.waitingWrite(gateKey(tenant, row.gate), row.gate, -1)]),
  ];
}

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

/** undefined once it is deleted, as with its task: that may be after the task's row was read. */
export async function readBlob(scope: Scope, key: string): Promise<JsonText | undefined> {
  const bytes = await scope.ports.blobs.get(key);
  return bytes && (new TextDecoder().decode(bytes) as JsonText);
}
