import type { Task, WaggleEvent } from "@waggle/sdk";
import { limits } from "./plan.ts";

/** Milliseconds of the server's clock in which it was disturbed: what it owed may have been done out of turn. */
export type Disturbance = readonly [number, number];

/** A task that waited this long beside one of lower priority, with nothing disturbed meanwhile, was passed over. */
const patienceMs = 2_000;

/**
 * Reads the event log as one history, in which the limits, the dependencies and the priorities were kept at every moment.
 * @param disturbed undefined: the clock was stepped, so that no two times of the log can be compared
 */
export function historyFaults(
  events: readonly WaggleEvent[],
  tasks: ReadonlyMap<string, Task>,
  disturbed?: readonly Disturbance[],
): string[] {
  const faults: string[] = [];
  const ended = new Map<string, string>();
  const running = new Map<string, Set<string>>();
  const fences = new Map<string, number>();
  const holders = new Map<string, string>();
  const queued = new Map<string, WaggleEvent>();

  function leave(id: string): void {
    holders.delete(id);
    queued.delete(id);
    for (const set of running.values()) set.delete(id);
  }
  function assigned(event: WaggleEvent, task: Task): void {
    const { id } = task;
    if (holders.has(id))
      faults.push(`${id} was given to ${event.agentId} while ${holders.get(id)} had it (${event.sequence})`);
    if (disturbed) faults.push(...passedOver(event, task, queued, tasks, disturbed));
    leave(id);
    holders.set(id, event.agentId ?? "");
    const fence = event.data.fence as number;
    if (fence <= (fences.get(id) ?? 0))
      faults.push(`${id} was given out under the fence ${fence} again (${event.sequence})`);
    fences.set(id, fence);
    for (const { key } of task.concurrency) {
      const set = running.get(key) ?? new Set();
      running.set(key, set.add(id));
      const limit = limits[key] as number;
      if (set.size > limit)
        faults.push(`${set.size} of ${limit} ran under ${key} at event ${event.sequence}: ${[...set]}`);
    }
  }

  for (const event of events) {
    const task = event.taskId === undefined ? undefined : tasks.get(event.taskId);
    if (!task) continue;
    const { id } = task;
    switch (event.type) {
      case "task.queued":
        leave(id);
        queued.set(id, event);
        for (const on of task.dependsOn)
          if (ended.get(on) !== "completed")
            faults.push(`${id} was let go on while ${on} was not done (${event.sequence})`);
        break;
      case "task.assigned":
        assigned(event, task);
        break;
      case "task.released":
      case "task.retried":
        leave(id);
        break;
      case "task.completed":
      case "task.failed":
      case "task.cancelled":
      case "task.expired":
        leave(id);
        if (ended.has(id)) faults.push(`${id} ended twice: ${ended.get(id)}, then ${event.type} (${event.sequence})`);
        ended.set(id, event.type.slice("task.".length));
    }
  }
  return faults;
}

/** Of tasks with the same needs, one of higher priority that waited all along is given out first. */
function passedOver(
  event: WaggleEvent,
  task: Task,
  queued: ReadonlyMap<string, WaggleEvent>,
  tasks: ReadonlyMap<string, Task>,
  disturbed: readonly Disturbance[],
): string[] {
  if (task.type !== "patient") return [];
  const now = Date.parse(event.at);
  const faults: string[] = [];
  for (const [id, since] of queued) {
    const from = Date.parse(since.at);
    if (tasks.get(id)?.type !== "urgent" || now - from < patienceMs) continue;
    if (disturbed.some(([begin, end]) => begin < now && end > from)) continue;
    faults.push(
      `${id} (urgent) waited from event ${since.sequence} on, and ${task.id} (patient) went before it (${event.sequence})`,
    );
  }
  return faults;
}
