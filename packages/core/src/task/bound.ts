import type { Row as AgentRow } from "../agent/row.ts";
import { openKnown } from "../match/open.ts";
import { readLanes } from "../match/shared.ts";
import { pages } from "../page.ts";
import { agentKey, lanePartition } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { change } from "./change.ts";
import { outcome } from "./error.ts";
import type { Row } from "./row.ts";

/*
 * A task that names its agent can be done by no other. Whoever parks it writes and then looks at the agent; whoever removes the agent
 * writes and then looks at what waits for it: one of the two sees the other. Both look by the outbox, which a crash does not stop.
 */

/** Whether the agent is there no more, and never will be. One that nobody knows may still come, by an import. */
export async function isRemoved(scope: Scope, agentId: string): Promise<boolean> {
  const agent = (await scope.ports.store.get(agentKey(scope.tenant, agentId))) as AgentRow | undefined;
  return agent?.state === "stopped";
}

/** Whether by this change a task came to wait for the one agent it names. */
export const waitsForOne = (old: Row | undefined, next: Row): boolean =>
  next.boundAgentId !== undefined &&
  next.parked !== undefined &&
  (old?.parked !== next.parked || old.gate !== next.gate);

/** An agent was removed: tasks that wait for it alone have failed. */
export async function failBound(scope: Scope, agentId: string): Promise<void> {
  const { shared, store } = scope.ports;
  const directory = await openKnown(scope.ports, scope.tenant);
  if (shared) await readLanes(scope, directory);
  for (const { id } of [...(directory.bound.get(agentId) ?? [])]) {
    for await (const waiting of pages(store, lanePartition(scope.tenant, id), 100))
      for (const { taskId } of waiting) await failIfBound(scope, taskId as string, agentId);
  }
}

/** A task came to wait for the one agent it names. */
export async function failIfRemoved(scope: Scope, { id, boundAgentId = "" }: Row): Promise<void> {
  if (await isRemoved(scope, boundAgentId)) await failIfBound(scope, id, boundAgentId);
}

/** A task waits for this agent alone, and it was removed: it has failed. */
async function failIfBound(scope: Scope, id: string, agentId: string): Promise<void> {
  const message = `agent ${agentId}, which alone may do the task, was removed`;
  await change(scope, id, (row) =>
    row.status === "queued" && row.boundAgentId === agentId
      ? { changes: { status: "failed", error: { code: outcome.agentRemoved, message } }, note: message }
      : undefined,
  );
}
