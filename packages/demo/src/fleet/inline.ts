import type { Run } from "../git.ts";
import type { Plan, PlannedTask } from "../plan.ts";
import type { Made, Making } from "../report/report.ts";
import { type Around, handlers } from "./handlers.ts";

/** The same tasks through the same handlers, one after another in this process: for tests, and for comparing with a fleet. */
export const runInline = async (repo: string, outDir: string, run: Run = {}) => {
  const results = new Map<string, { type: string; result: unknown }>();
  const made: Made[] = [];
  const around = (task?: PlannedTask): Around => ({
    repo,
    outDir,
    dependencies: async () => (task?.dependsOn ?? []).map((name) => results.get(name.replace(/^ref:/, ""))!),
    making: async (): Promise<Making> => ({
      at: Date.now(),
      tasks: made,
      agents: [{ name: "inline", capabilities: ["everything"], concurrency: 1 }],
    }),
  });
  const plan = (await handlers.plan({ repo }, run, around())) as Plan;
  for (const task of plan.tasks) {
    const startedAt = Date.now();
    // Through JSON, as a result travels.
    const result: unknown = JSON.parse(JSON.stringify(await handlers[task.type](task.input, run, around(task))));
    results.set(task.ref, { type: task.type, result });
    const finishedAt = Date.now();
    made.push({
      id: task.ref,
      type: task.type,
      description: task.description,
      agent: "inline",
      status: "completed",
      createdAt: made[0]?.createdAt ?? startedAt,
      readyAt: startedAt,
      startedAt,
      finishedAt,
      attempts: [{ agent: "inline", from: startedAt, to: finishedAt, end: "done" }],
    });
  }
  return {
    plan,
    results,
    report: results.get("report")!.result as { html: string; markdown: string; grade: string; summary: string },
  };
};
