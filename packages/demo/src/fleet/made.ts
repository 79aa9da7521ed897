import type { Agent, Task } from "@waggle/sdk";
import type { Made, Making } from "../report/report.ts";

type Attempt = Made["attempts"][number];

/** A task's record as the report tells it: every attempt with its agent, from the task's own history. */
export const toMade = (task: Task, names: ReadonlyMap<string, string>, now: number): Made => {
  const attempts: Attempt[] = [];
  const nameOf = (id: string | undefined) => (id === undefined ? "" : (names.get(id) ?? id));
  let open: (Attempt & { number: number }) | undefined;
  const close = (to: number, end: Attempt["end"]) => {
    if (open) attempts.push({ agent: open.agent, from: open.from, to, end });
    open = undefined;
  };
  for (const entry of task.history) {
    const at = Date.parse(entry.at);
    if (entry.status === "assigned" || entry.status === "running") {
      const agent = nameOf(entry.agentId ?? task.agentId);
      if (open && (open.number !== entry.attempt || open.agent !== agent)) close(at, "lost");
      // From here on it ran, where a start was told at all.
      if (open && entry.status === "running") open.from = at;
      open ??= { agent, from: at, to: at, end: "done", number: entry.attempt };
    } else if (entry.status === "queued" || entry.status === "scheduled")
      close(at, /agent\.lost|released|replaced/.test(entry.reason ?? "") ? "lost" : "failed");
    else close(at, entry.status === "completed" ? "done" : "failed");
  }
  close(now, "done");
  const queued = task.history.find((entry) => entry.status === "queued")?.at ?? task.createdAt;
  const last = attempts.at(-1);
  return {
    id: task.id,
    type: task.type,
    description: task.description ?? "",
    agent: last?.agent ?? nameOf(task.agentId),
    status: task.status,
    createdAt: Date.parse(task.createdAt),
    readyAt: Date.parse(queued),
    ...(attempts[0] ? { startedAt: attempts[0].from } : {}),
    ...(task.finishedAt ? { finishedAt: Date.parse(task.finishedAt) } : {}),
    attempts,
  };
};

export const toMaking = (tasks: readonly Task[], agents: readonly Agent[], now: number, server?: string): Making => {
  const names = new Map(agents.map((agent) => [agent.id, agent.name]));
  const made = tasks.map((task) => toMade(task, names, now));
  // Agents of earlier runs had the same names; those of this one are known by what they were given.
  const took = new Set(tasks.flatMap((task) => task.history.map((entry) => entry.agentId)));
  return {
    at: now,
    tasks: made,
    agents: agents
      .filter((agent) => took.has(agent.id))
      .sort((a, b) => a.name.localeCompare(b.name))
      .map((agent) => ({
        name: agent.name,
        capabilities: agent.capabilities.map((own) =>
          own.level === undefined ? own.name : `${own.name} ${own.level}`,
        ),
        concurrency: agent.maxConcurrency,
      })),
    ...(server ? { server } : {}),
  };
};
