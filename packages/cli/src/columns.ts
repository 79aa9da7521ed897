import type { Agent, Key, Limit, Task, WaggleEvent } from "@waggle/sdk";
import { age, duration } from "./format.ts";
import { colourOf } from "./io.ts";
import type { TableOf } from "./print.ts";

const short = (value: unknown): string => {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text === "{}" || text === undefined ? "" : text;
};

const names = ({ capabilities }: Agent) =>
  capabilities.map(({ name, level }) => (level === undefined ? name : `${name}:${level}`)).join(",");

export const agents = (now: () => number): TableOf<Agent> => ({
  empty: "No agents. Make one: waggle agent run --name echo --capability echo -- cat",
  columns: [
    { title: "NAME", value: (agent) => agent.name, max: 32 },
    { title: "STATUS", value: (agent) => agent.status, colour: (agent) => colourOf(agent.status) },
    { title: "RUNNING", value: (agent) => `${agent.running}/${agent.maxConcurrency}` },
    { title: "DONE", value: (agent) => String(agent.stats.completed), right: true },
    { title: "FAILED", value: (agent) => String(agent.stats.failed), right: true },
    { title: "SEEN", value: (agent) => age(agent.lastSeenAt, now()) },
    { title: "CAPABILITIES", value: names, max: 40 },
    { title: "ID", value: (agent) => agent.id, colour: () => "dim" },
  ],
  wide: [
    { title: "ROLE", value: (agent) => agent.role ?? "" },
    { title: "TYPE", value: (agent) => agent.type ?? "" },
    {
      title: "LABELS",
      value: (agent) =>
        Object.entries(agent.labels)
          .map(([key, value]) => `${key}=${value}`)
          .join(","),
    },
    { title: "DELIVERY", value: (agent) => agent.delivery.type },
    {
      title: "SUCCESS",
      value: ({ stats }) => (stats.completed + stats.failed > 0 ? `${Math.round(stats.successRate * 100)}%` : ""),
    },
    { title: "AVERAGE", value: ({ stats }) => (stats.completed > 0 ? duration(stats.averageSeconds * 1000) : "") },
    { title: "AGE", value: (agent) => age(agent.createdAt, now()) },
  ],
});

/** How long it has run, or ran. */
export const ran = (task: Task, now: number): string =>
  task.startedAt === undefined
    ? ""
    : duration((task.finishedAt ? Date.parse(task.finishedAt) : now) - Date.parse(task.startedAt));

const note = (task: Task): string => {
  if (task.status === "completed") return "";
  if (task.status === "failed" || task.status === "expired" || task.status === "cancelled")
    return task.error?.message ?? "";
  if (task.progress)
    return [task.progress.percent === undefined ? "" : `${task.progress.percent}%`, task.progress.message ?? ""]
      .join(" ")
      .trim();
  return task.waiting?.reason ?? task.error?.message ?? "";
};

export const tasks = (now: () => number): TableOf<Task> => ({
  empty: "No tasks.",
  columns: [
    { title: "ID", value: (task) => task.id },
    { title: "TYPE", value: (task) => task.type, max: 28 },
    { title: "STATUS", value: (task) => task.status, colour: (task) => colourOf(task.status) },
    { title: "PRI", value: (task) => String(task.priority), right: true },
    { title: "TRY", value: (task) => `${task.attempt}/${task.maxAttempts}` },
    { title: "AGE", value: (task) => age(task.createdAt, now()) },
    { title: "RAN", value: (task) => ran(task, now()) },
    { title: "NOTE", value: note, max: 48 },
  ],
  wide: [
    { title: "AGENT", value: (task) => task.agentId ?? "" },
    {
      title: "REQUIRES",
      value: ({ requires }) =>
        requires.map(({ capability, minLevel }) => (minLevel ? `${capability}:${minLevel}` : capability)).join(","),
    },
    { title: "TAGS", value: (task) => task.tags.join(",") },
    { title: "PARENT", value: (task) => task.parentId ?? "" },
    { title: "DESCRIPTION", value: (task) => task.description ?? "" },
  ],
});

export const deadLetters = (now: () => number): TableOf<Task> => ({
  empty: "No dead letters.",
  columns: [
    { title: "ID", value: (task) => task.id },
    { title: "TYPE", value: (task) => task.type, max: 28 },
    { title: "TRIES", value: (task) => `${task.attempt}/${task.maxAttempts}` },
    { title: "FAILED", value: (task) => age(task.finishedAt, now()) },
    { title: "CODE", value: (task) => task.error?.code ?? "", colour: () => "red" },
    { title: "MESSAGE", value: (task) => task.error?.message ?? "", max: 60 },
  ],
  wide: [
    { title: "AGENT", value: (task) => task.agentId ?? "" },
    { title: "TAGS", value: (task) => task.tags.join(",") },
  ],
});

export const events = (now: () => number): TableOf<WaggleEvent> => ({
  empty: "No events.",
  columns: [
    { title: "SEQ", value: (event) => String(event.sequence), right: true },
    { title: "AGE", value: (event) => age(event.at, now()) },
    { title: "TYPE", value: (event) => event.type, colour: (event) => colourOf(event.type.split(".").at(-1) ?? "") },
    { title: "TASK", value: (event) => event.taskId ?? "" },
    { title: "AGENT", value: (event) => event.agentId ?? "" },
    { title: "DATA", value: (event) => short(event.data), max: 60 },
  ],
  wide: [{ title: "AT", value: (event) => event.at }],
});

export const limits: TableOf<Limit> = {
  empty: "No limits. Set one: waggle limit set openai --concurrency 10 --rate 100/1m",
  columns: [
    { title: "KEY", value: (limit) => limit.key },
    {
      title: "CONCURRENCY",
      value: (limit) => (limit.concurrency === undefined ? "" : String(limit.concurrency)),
      right: true,
    },
    { title: "RATE", value: ({ rate }) => (rate ? `${rate.limit} per ${duration(rate.perSeconds * 1000)}` : "") },
    { title: "RUNNING", value: (limit) => String(limit.running), right: true },
    { title: "WAITING", value: (limit) => String(limit.waiting), right: true },
  ],
};

export const keys = (now: () => number): TableOf<Key> => ({
  empty: "No keys.",
  columns: [
    { title: "ID", value: (key) => key.id },
    { title: "ROLE", value: (key) => key.role },
    { title: "TENANT", value: (key) => key.tenant },
    { title: "NAME", value: (key) => key.name ?? "" },
    { title: "KEY", value: (key) => key.hint },
    { title: "AGE", value: (key) => age(key.createdAt, now()) },
  ],
});
