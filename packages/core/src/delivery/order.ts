import type { Row as Agent } from "../agent/row.ts";
import type { Value } from "../port/index.ts";
import { held, type Row } from "../task/row.ts";
import { isCalled } from "./schema.ts";

/** One thing to deliver, as the deliver queue carries it. */
export interface Order {
  readonly tenant: string;
  readonly agentId: string;
  readonly taskId: string;
  readonly fence: number;
  /** Tries that failed so far. */
  readonly failed?: number;
  /** Tell it to stop working on it, instead. */
  readonly cancel?: true;
}

/** What follows from a change of a task for an agent that is called: its work is delivered, or it is told to stop. */
export function orderOf(old: Row | undefined, next: Row): Order | undefined {
  const order = (row: Row) => ({
    tenant: row.tenant,
    agentId: row.agentId as string,
    taskId: row.id,
    fence: row.fence,
  });
  if (next.status === "assigned" && next.silenceSeconds !== undefined && old?.fence !== next.fence) return order(next);
  if (!old || !held.has(old.status) || old.silenceSeconds === undefined || old.cancelAt !== undefined) return undefined;
  const cancelled = next.cancelAt !== undefined || next.status === "cancelled";
  return cancelled ? { ...order(old), cancel: true } : undefined;
}

/**
 * The agent that is called and came to have room by this change. It asks for nothing, so that it would be idle beside waiting
 * work if whoever made the change died before looking for some.
 */
export function hasRoom(old: Row | Agent | undefined, next: Row | Agent): string | undefined {
  if (next.kind === "task") {
    const before = old as Row | undefined;
    const had = before && held.has(before.status) && before.silenceSeconds !== undefined;
    return had && !held.has(next.status) ? before.agentId : undefined;
  }
  const before = old as Agent | undefined;
  if (!isCalled(next) || next.state !== "active" || before?.rev === next.rev) return undefined;
  const same =
    before?.state === "active" &&
    before.registeredAt === next.registeredAt &&
    before.delivery.type === next.delivery.type &&
    before.probing === next.probing &&
    before.maxConcurrency >= next.maxConcurrency;
  return same ? undefined : next.id;
}

export const readOrder = (body: Value): Order => body as unknown as Order;
