import type { WaggleEvent } from "@waggle/sdk";
import type { PlannedTask } from "../plan.ts";

export type TaskView = {
  id: string;
  ref: string;
  type: string;
  description: string;
  status: string;
  agentId?: string | undefined;
  percent?: number | undefined;
  message?: string | undefined;
  error?: string | undefined;
};
/** An agent that went away with work in hand, until that work is done. */
export type Incident = {
  agent: string;
  agentId: string;
  pid: number;
  how: string;
  at: number;
  /** Task → who did it in the end. */
  tasks: Map<string, string | undefined>;
  requeuedAt?: number;
  backAt?: number;
  newPid?: number;
  healedAt?: number;
};

/** What the event log says about a run: the state of each of its tasks, and of what went wrong and right again. */
export const createTracker = (options: {
  nameOf(agentId: string): string;
  changed(): void;
  healed(incident: Incident): void;
  requeued(incident: Incident): void;
  now(): number;
}) => {
  const tasks = new Map<string, TaskView>();
  const incidents: Incident[] = [];
  const done = new Map<string, number>();
  /** Told before the batch's answer said which task it is about. */
  const early: WaggleEvent[] = [];

  const running = (agentId: string) =>
    [...tasks.values()].filter(
      (task) => task.agentId === agentId && (task.status === "assigned" || task.status === "running"),
    );
  const open = (taskId: string) =>
    incidents.filter((incident) => incident.healedAt === undefined && incident.tasks.has(taskId));
  const settle = (incident: Incident) => {
    if (incident.healedAt !== undefined || incident.backAt === undefined) return;
    if ([...incident.tasks.values()].some((by) => by === undefined)) return;
    incident.healedAt = options.now();
    options.healed(incident);
  };

  const apply = (event: WaggleEvent) => {
    const { taskId, agentId } = event;
    if (taskId === undefined) return;
    const task = tasks.get(taskId);
    if (!task) {
      early.push(event);
      if (early.length > 5000) early.shift();
      return;
    }
    const kind = event.type.replace(/^task\./, "");
    if (kind === "progress") {
      task.percent = event.data.percent as number | undefined;
      task.message = event.data.message as string | undefined;
    } else if (kind === "assigned" || kind === "started") {
      task.status = kind === "started" ? "running" : "assigned";
      task.agentId = agentId;
    } else if (kind === "retried" || kind === "released") {
      const lost =
        agentId === undefined
          ? undefined
          : incidents.findLast((incident) => incident.agentId === agentId && incident.healedAt === undefined);
      if (lost) {
        if (!lost.tasks.has(taskId)) lost.tasks.set(taskId, undefined);
        if (lost.requeuedAt === undefined) {
          lost.requeuedAt = options.now();
          options.requeued(lost);
        }
      }
      Object.assign(task, { status: "queued", agentId: undefined, percent: undefined, message: undefined });
    } else if (kind === "queued" || kind === "scheduled") {
      if (task.status !== "queued") Object.assign(task, { status: kind, agentId: undefined, percent: undefined });
    } else if (kind === "completed" || kind === "failed" || kind === "cancelled" || kind === "expired") {
      task.status = kind;
      task.agentId = agentId ?? task.agentId;
      task.error = (event.data.error as { message?: string } | undefined)?.message;
      if (task.agentId !== undefined && kind === "completed") done.set(task.agentId, (done.get(task.agentId) ?? 0) + 1);
      for (const incident of open(taskId)) {
        incident.tasks.set(taskId, task.agentId === undefined ? "nobody" : options.nameOf(task.agentId));
        settle(incident);
      }
    }
    options.changed();
  };

  return {
    tasks,
    incidents,
    done: (agentId: string) => done.get(agentId) ?? 0,
    running,
    apply,
    add(planned: Pick<PlannedTask, "ref" | "type" | "description">, id: string, status: string) {
      tasks.set(id, { id, ref: planned.ref, type: planned.type, description: planned.description, status });
      const waiting = early.filter((event) => event.taskId === id);
      for (const event of waiting) {
        early.splice(early.indexOf(event), 1);
        apply(event);
      }
      options.changed();
    },
    died(agent: string, agentId: string, pid: number, how: string): Incident {
      const incident: Incident = {
        agent,
        agentId,
        pid,
        how,
        at: options.now(),
        tasks: new Map(running(agentId).map((task) => [task.id, undefined])),
      };
      incidents.push(incident);
      options.changed();
      return incident;
    },
    back(agentId: string, pid: number): Incident | undefined {
      const incident = incidents.findLast((entry) => entry.agentId === agentId && entry.backAt === undefined);
      if (!incident) return undefined;
      incident.backAt = options.now();
      incident.newPid = pid;
      settle(incident);
      return incident;
    },
    count() {
      const all = [...tasks.values()];
      const is = (...statuses: string[]) => all.filter((task) => statuses.includes(task.status)).length;
      return {
        total: all.length,
        done: is("completed"),
        running: is("assigned", "running"),
        failed: is("failed", "cancelled", "expired"),
      };
    },
  };
};
export type Tracker = ReturnType<typeof createTracker>;
