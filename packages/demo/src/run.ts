import { setTimeout as pause } from "node:timers/promises";
import { type BatchEntry, type Client, isTerminal, type Task, type TaskStatus } from "@waggle/sdk";
import type { Tracker } from "./fleet/track.ts";
import type { Plan } from "./plan.ts";

export const runTag = "health-report";
export type Outcome = {
  tasks: Task[];
  report?: {
    html: string;
    markdown: string;
    grade: string;
    summary: string;
    cards: unknown[];
    findings: { title: string; why: string }[];
  };
  problem?: string;
};

const policy = {
  // A process may be killed more than once without the work being given up.
  retry: { maxAttempts: 8, initialSeconds: 0.1, factor: 2, maxSeconds: 2 },
  timeouts: { queueSeconds: 600, runSeconds: 900 },
};

/** Cancels what an earlier run on this data folder left unfinished: nobody would read its report. */
export const cancelLeftovers = async (client: Client) => {
  for (const status of ["scheduled", "queued", "assigned", "running"] as const) {
    const left: string[] = [];
    for await (const task of client.tasks.all({ tag: runTag, status })) left.push(task.id);
    await Promise.all(left.map((id) => client.tasks.cancel(id, { reason: "a new run began" })));
  }
};

/**
 * Delegates a whole report: first the plan, then, in one batch, every part and the report that depends on all of them.
 * Resolves when the report task has ended.
 */
export const delegateReport = async (options: {
  client: Client;
  tracker: Tracker;
  repo: string;
  outDir: string;
  signal: AbortSignal;
  planned(plan: Plan): void;
}): Promise<Outcome> => {
  const { client, tracker, repo, outDir, signal } = options;
  const tag = `run-${Date.now().toString(36)}-${process.pid}`;
  const tags = [runTag, tag];
  const planTask = await client.tasks.create({
    type: "plan",
    description: "look at the repository and cut the work into tasks",
    input: { repo },
    priority: 9,
    requires: [{ capability: "planning" }],
    tags,
    ...policy,
  });
  tracker.add({ ref: "plan", type: "plan", description: planTask.description ?? "" }, planTask.id, planTask.status);
  const following = follow(options, planTask.id);

  const planned = await client.tasks.handle(planTask).ended({ signal });
  if (planned.status !== "completed") return { tasks: [planned], problem: problemOf(planned) };
  const plan = planned.result as Plan;
  options.planned(plan);
  const entries = plan.tasks.map(
    (task): BatchEntry => ({
      ref: task.ref,
      type: task.type,
      description: task.description,
      priority: task.priority,
      requires: task.requires,
      dependsOn: task.dependsOn,
      input: task.type === "report" ? { ...task.input, outDir } : task.input,
      tags,
      metadata: { planId: planTask.id },
      ...policy,
    }),
  );
  // All or none: a report that waits for a task that was refused would wait for ever.
  const results = await client.tasks.createBatch(entries, { atomic: true, idempotencyKey: tag });
  const delegated: Task[] = [];
  for (const [index, result] of results.entries()) {
    if (!("task" in result))
      return {
        tasks: [planned],
        problem: `the server refused ${entries[index]?.ref}: ${String(result.problem.detail ?? result.problem.code)}`,
      };
    tracker.add(plan.tasks[index]!, result.task.id, result.task.status);
    delegated.push(result.task);
  }
  const reportTask = await client.tasks.handle(delegated.at(-1)!).ended({ signal });
  // The log is told a moment after the state.
  await Promise.race([following(reportTask.id), pause(2000, undefined, { signal }).catch(() => {})]);
  const tasks = [planned, ...(await Promise.all(delegated.map(({ id }) => client.tasks.get(id))))];
  if (reportTask.status === "completed") return { tasks, report: reportTask.result as NonNullable<Outcome["report"]> };
  const first =
    tasks.find((task) => task.status === "failed" && task.error?.code !== "task.dependency_failed") ?? reportTask;
  return { tasks, problem: problemOf(first) };
};

const problemOf = (task: Task) =>
  `${task.type} ended ${task.status}${task.error ? `: ${task.error.message || task.error.code}` : ""} (${task.id})`;

/**
 * Follows the log from the first task of the run on, until the signal aborts.
 * @returns a wait for the event that tells of a task's end
 */
const follow = (
  { client, tracker, signal }: { client: Client; tracker: Tracker; signal: AbortSignal },
  firstId: string,
) => {
  const watchers = new Map<string, () => void>();
  const seen = new Set<string>();
  const go = async () => {
    let after: number | undefined;
    while (after === undefined) {
      const { items } = await client.tasks.events(firstId, { limit: 1 }, { signal });
      after = items[0] && items[0].sequence - 1;
      if (after === undefined) await pause(20, undefined, { signal });
    }
    for await (const event of client.events.follow({ after, types: "task.*", signal })) {
      tracker.apply(event);
      if (event.taskId === undefined || !isTerminal(event.type.slice("task.".length) as TaskStatus)) continue;
      seen.add(event.taskId);
      watchers.get(event.taskId)?.();
    }
  };
  go().catch(() => {}); // ends with the signal; the run itself is watched by its own calls
  return (id: string) => (seen.has(id) ? Promise.resolve() : new Promise<void>((resolve) => watchers.set(id, resolve)));
};
