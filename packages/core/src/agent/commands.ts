import { openFor } from "../match/open.ts";
import { getAll, pages } from "../page.ts";
import { agentKey, indexPartitions, taskKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { held, type Row } from "../task/row.ts";
import { readTask } from "../task/stored.ts";
import { type Row as AgentRow, cancelMarks, heldMark, heldMarks } from "./row.ts";
import type { Commands, Holding } from "./schema.ts";

/** What the agent is to do now: tasks to stop, and whether to take no more. */
export async function commands(scope: Scope, agentId: string): Promise<Commands> {
  const { shared } = scope.ports;
  const directory = await openFor(scope.ports, scope.tenant, agentId);
  const member = directory.members.get(agentId);
  if (!member) return { cancel: [], pause: false, drain: true };
  const { state } = member.row;
  if (shared) return { cancel: cancelMarks(member.row), pause: state === "paused", drain: state === "draining" };
  if (!member.cancels) {
    member.cancels = new Set();
    for (const task of await heldTasks(scope, agentId)) if (task.cancelAt !== undefined) member.cancels.add(task.id);
  }
  return { cancel: [...member.cancels], pause: state === "paused", drain: state === "draining" };
}

/** The tasks an agent holds. */
export async function heldTasks(scope: Scope, agentId: string): Promise<Row[]> {
  if (scope.ports.shared) return heldNow(scope, agentId);
  await scope.ports.store.projected();
  const tasks: Row[] = [];
  for (const pk of indexPartitions(scope.tenant, "held", agentId)) {
    for await (const entries of pages(scope.ports.store, pk, 100)) {
      for (const { sk } of entries) {
        const task = await readTask(scope, sk);
        if (task?.agentId === agentId) tasks.push(task);
      }
    }
  }
  return tasks;
}

/** Of the tasks an agent holds, those it does not name with their fence. */
export async function unnamed(scope: Scope, agent: AgentRow, holding: Holding = []): Promise<Row[]> {
  const named = new Map(holding.map(({ taskId, fence }) => [taskId, fence]));
  // There its marks say it already.
  if (scope.ports.shared && heldMarks(agent).every((taskId) => named.get(taskId) === agent[heldMark(taskId)]))
    return [];
  return (await heldTasks(scope, agent.id)).filter((task) => named.get(task.id) !== task.fence);
}

/** By the marks on the agent's row, which come in one transaction with the assignment. No list tells of them there. */
async function heldNow(scope: Scope, agentId: string): Promise<Row[]> {
  const { store } = scope.ports;
  const directory = await openFor(scope.ports, scope.tenant, agentId);
  const row = directory.members.get(agentId)?.row ?? (await store.get(agentKey(scope.tenant, agentId)));
  const keys = row ? heldMarks(row as never).map((id) => taskKey(scope.tenant, id)) : [];
  const tasks = (await getAll(store, keys)) as (Row | undefined)[];
  return tasks.filter((task): task is Row => task?.agentId === agentId && held.has(task.status));
}
