import type { Value } from "../port/index.ts";
import { held, type Row } from "../task/row.ts";

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

export const readOrder = (body: Value): Order => body as unknown as Order;
