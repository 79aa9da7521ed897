import type { Task } from "@waggle/core";

/*
 * What a task is, written down a second time and by itself: the states and what leads from one to the next, and what callers may
 * rely on of what they were told. Nothing here is taken from the code it is held against.
 */

export type Status = "scheduled" | "queued" | "assigned" | "running" | "completed" | "failed" | "cancelled" | "expired";

/** One entry of a task's history, as its owner reads it. */
interface Entry {
  readonly status: Status;
  readonly attempt: number;
  readonly agentId?: string;
}

const held = (status: Status) => status === "assigned" || status === "running";
const over = (status: Status) => ["completed", "failed", "cancelled", "expired"].includes(status);

/** Why one state of a task may not follow another; undefined where it may. */
export function stepFault(
  before: Entry,
  after: Entry,
  { maxAttempts, retries }: Pick<Seen, "maxAttempts" | "retries">,
): string | undefined {
  const step = `${before.status} (attempt ${before.attempt}) → ${after.status} (attempt ${after.attempt})`;
  if (over(before.status)) {
    const again = before.status !== "completed" && (after.status === "queued" || after.status === "scheduled");
    return again && after.attempt === 0 && may(retries) ? undefined : `${step}: it had ended`;
  }
  switch (after.status) {
    case "assigned":
      if (before.status !== "queued") return `${step}: only what is queued is given to an agent`;
      return after.attempt === before.attempt + 1 && after.attempt <= maxAttempts
        ? undefined
        : `${step}: not the next attempt`;
    case "running":
      if (before.status !== "assigned" || before.agentId !== after.agentId)
        return `${step}: not the agent that was given it`;
      return after.attempt === before.attempt ? undefined : `${step}: another attempt`;
    case "queued":
      if (before.status === "queued") return `${step}: it waited already`;
      // Given back, it costs no attempt; tried again, it does.
      if (held(before.status))
        return before.attempt - after.attempt <= 1 ? undefined : `${step}: attempts were forgotten`;
      return after.attempt === before.attempt ? undefined : `${step}: waiting is no attempt`;
    case "scheduled":
      return held(before.status) && after.attempt === before.attempt
        ? undefined
        : `${step}: only a failed attempt waits again`;
    case "completed":
      return held(before.status) && after.attempt === before.attempt ? undefined : `${step}: nobody had it`;
    default:
      return undefined;
  }
}

const leaves: ReadonlySet<string> = new Set(
  ["queued", "released", "retried", "completed", "failed", "cancelled", "expired"].map((step) => `task.${step}`),
);

/** Moments of the event log at which more of these tasks were with agents than their limit, which is one, allows. */
export function limitFaults(
  events: readonly { readonly sequence: number; readonly type: string; readonly taskId?: string | undefined }[],
  limited: ReadonlySet<string>,
): string[] {
  const running = new Set<string>();
  const faults: string[] = [];
  for (const { sequence, type, taskId } of events) {
    if (taskId === undefined || !limited.has(taskId)) continue;
    if (leaves.has(type)) running.delete(taskId);
    if (type !== "task.assigned") continue;
    running.add(taskId);
    if (running.size > 1) faults.push(`${[...running].join()} ran at once under a limit of one (event ${sequence})`);
  }
  return faults;
}

/** What a call was answered. `lost`: the server died before it answered, so that it may have happened or not. */
type Answer = "yes" | "no" | "lost";
const may = (answers: readonly Answer[]): boolean => answers.some((answer) => answer !== "no");

/** What callers saw of one task. */
interface Seen {
  readonly id: string;
  readonly maxAttempts: number;
  readonly dependsOn: readonly string[];
  /** Calls that would end it, by the attempt's fence and what they were answered. */
  readonly completions: { readonly fence: number; readonly answer: Answer }[];
  readonly failures: { readonly fence: number; readonly answer: Answer }[];
  readonly cancels: Answer[];
  readonly retries: Answer[];
  /** Its owner set a time for something. */
  readonly timed: boolean;
  /** Only this agent may do it. */
  readonly boundAgentId: string | undefined;
  /** Who was given it, under which fence. */
  readonly fences: Map<number, string>;
}

/** Writes down what callers do and are told, and says what of it the store contradicts. */
export function createSpec() {
  const tasks = new Map<string, Seen>();
  const faults: string[] = [];
  const of = (id: string) => tasks.get(id) as Seen;

  function endFaults(seen: Seen, info: Task.Info): string[] {
    const { id, completions, failures, cancels } = seen;
    const accepted = completions.filter(({ answer }) => answer === "yes");
    const found: string[] = [];
    if (new Set(accepted.map(({ fence }) => fence)).size > 1) found.push(`${id} was completed twice`);
    if (accepted.length > 0 && info.status !== "completed")
      found.push(`${id} was acknowledged as completed and is ${info.status}`);
    switch (info.status) {
      case "completed": {
        const own = completions.filter(({ fence, answer }) => fence === info.fence && answer !== "no");
        if (own.length === 0) found.push(`${id} is completed under the fence ${info.fence}, and nobody did that`);
        if (String(info.result) !== String(info.fence))
          found.push(`${id} has the result ${info.result} of another attempt than ${info.fence}`);
        break;
      }
      case "failed":
        if (info.error?.code === "task.agent_removed") {
          if (seen.boundAgentId === undefined) found.push(`${id} failed for want of an agent it did not name`);
        } else if (
          !may(failures.map(({ answer }) => answer)) &&
          info.error?.code !== "task.dependency_failed" &&
          info.attempt < seen.maxAttempts
        )
          found.push(`${id} failed and nobody said so`);
        break;
      case "expired":
        if (!seen.timed) found.push(`${id} expired, and it had all the time there is`);
        break;
      case "cancelled":
        if (!may(cancels)) found.push(`${id} is cancelled and nobody asked for it`);
        break;
      default:
        found.push(`${id} is ${info.status} and was to end`);
    }
    return found;
  }

  return {
    faults,
    /** A submit was acknowledged: from now on the task is there. */
    submitted(id: string, asked: Pick<Seen, "maxAttempts" | "dependsOn" | "timed" | "boundAgentId">): void {
      const calls = { completions: [], failures: [], cancels: [], retries: [] };
      tasks.set(id, { id, ...asked, ...calls, fences: new Map() });
    },
    ids: (): string[] => [...tasks.keys()],
    known: (id: string): boolean => tasks.has(id),
    given(id: string, fence: number, agentId: string): void {
      const { fences } = of(id);
      const holder = fences.get(fence) ?? agentId;
      if (holder !== agentId) faults.push(`${id} was given to ${holder} and to ${agentId} under the fence ${fence}`);
      fences.set(fence, agentId);
    },
    completed: (id: string, fence: number, answer: Answer): void => void of(id).completions.push({ fence, answer }),
    failed: (id: string, fence: number, answer: Answer): void => void of(id).failures.push({ fence, answer }),
    cancelled: (id: string, answer: Answer): void => void of(id).cancels.push(answer),
    retried: (id: string, answer: Answer): void => void of(id).retries.push(answer),

    /**
     * Compares what callers were told with what is stored, once all has ended.
     * @param told the last that the log tells of each task: one that has ended may have been deleted since
     */
    contradicted(stored: ReadonlyMap<string, Task.Info>, told: ReadonlyMap<string, Status>): string[] {
      const found = [...faults];
      for (const seen of tasks.values()) {
        const info = stored.get(seen.id);
        if (!info) {
          const last = told.get(seen.id);
          if (last === undefined || !over(last)) found.push(`${seen.id} was acknowledged and is lost`);
          else if (last !== "completed" && seen.completions.some(({ answer }) => answer === "yes"))
            found.push(`${seen.id} was acknowledged as completed and had ${last}`);
          continue;
        }
        found.push(...endFaults(seen, info));
        for (const on of seen.dependsOn)
          if (info.status === "completed" && (stored.get(on)?.status ?? told.get(on)) !== "completed")
            found.push(`${seen.id} was done and ${on}, which it waits for, was not`);
        const history = info.history as readonly Entry[];
        for (let i = 1; i < history.length; i++) {
          const fault = stepFault(history[i - 1] as Entry, history[i] as Entry, seen);
          if (fault) found.push(`${seen.id}: ${fault}`);
        }
      }
      return found;
    },
  };
}
