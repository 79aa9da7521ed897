import { open } from "../match/directory.ts";
import { readTask } from "../match/dispatch.ts";
import { indexPartitions } from "../rows.ts";
import type { Scope } from "../scope.ts";
import type { Row } from "../task/row.ts";
import type { Commands } from "./schema.ts";

/** What the agent is to do now: tasks to stop, and whether to take no more. */
export async function commands(scope: Scope, agentId: string): Promise<Commands> {
  const directory = await open(scope.ports, scope.tenant);
  const member = directory.members.get(agentId);
  if (!member) return { cancel: [], pause: false, drain: true };
  if (!member.cancels) {
    member.cancels = new Set();
    for (const task of await heldTasks(scope, agentId)) if (task.cancelAt !== undefined) member.cancels.add(task.id);
  }
  return { cancel: [...member.cancels], pause: member.row.state === "paused", drain: member.row.state === "draining" };
}

/** The tasks an agent holds. */
export async function heldTasks(scope: Scope, agentId: string): Promise<Row[]> {
  await scope.ports.store.projected();
  const tasks: Row[] = [];
  for (const pk of indexPartitions(scope.tenant, "held", agentId)) {
    for (let after: string | undefined; ; ) {
      const page = await scope.ports.store.query({ pk, limit: 100, ...(after !== undefined && { after }) });
      for (const { sk } of page.items) {
        const task = await readTask(scope, sk);
        if (task?.agentId === agentId) tasks.push(task);
      }
      if (page.last === undefined) break;
      after = page.last;
    }
  }
  return tasks;
}
