import type { Agent, Client, Limit, Task, WaggleEvent } from "@waggle/sdk";
import { type Disturbance, historyFaults } from "./history.ts";
import { type Input, type Kind, limits, resultOf } from "./plan.ts";

/** A task the server acknowledged. */
export interface Entry {
  readonly id: string;
  readonly input: Input;
  readonly kind: Kind;
  /** The first outcome anybody read, as text. */
  seen?: string;
}

const ends = ["completed", "failed", "cancelled", "expired"];
export const isEnded = ({ status }: Task) => ends.includes(status);
/** What must never change once it was read. */
export const outcomeOf = ({ status, result, error, finishedAt, fence }: Task) =>
  JSON.stringify({ status, result, error, finishedAt, fence });

async function everyEvent(client: Client): Promise<WaggleEvent[]> {
  const events: WaggleEvent[] = [];
  for (let after = 0; ; ) {
    const page = await client.events.list({ after, limit: 200 });
    events.push(...page.items);
    if (page.items.length === 0) return events;
    after = page.nextAfter;
  }
}

async function all<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const list: Item[] = [];
  for await (const item of items) list.push(item);
  return list;
}

function taskFaults(entry: Entry, task: Task | undefined): string[] {
  const { kind, input, seen } = entry;
  const about = `${entry.id} (${kind.name} ${input.n})`;
  if (task === undefined) return [`${about} was acknowledged and is lost`];
  if (!kind.ends.includes(task.status)) return [`${about} is ${task.status}, meant to be ${kind.ends.join(" or ")}`];
  const faults: string[] = [];
  if (seen !== undefined && seen !== outcomeOf(task))
    faults.push(`${about} ended as ${seen}, and now as ${outcomeOf(task)}`);
  if (task.status === "completed" && JSON.stringify(task.result) !== JSON.stringify(resultOf(input))) {
    faults.push(`${about} has the result ${JSON.stringify(task.result)}`);
  }
  if (task.status === "failed" && task.error?.code !== kind.error)
    faults.push(`${about} failed with ${task.error?.code}`);
  if (JSON.stringify(task.input) !== JSON.stringify(input)) faults.push(`${about} has another input`);
  return faults;
}

function eventFaults(events: readonly WaggleEvent[], tasks: ReadonlyMap<string, Task>): string[] {
  const gap = events.findIndex(({ sequence }, index) => sequence !== index + 1);
  const faults = gap < 0 ? [] : [`event ${gap + 1} has the sequence ${events[gap]?.sequence}`];
  const told = new Map<string, string[]>();
  for (const { taskId, type } of events) {
    if (taskId !== undefined) told.set(taskId, [...(told.get(taskId) ?? []), type]);
  }
  for (const [id, task] of tasks) {
    const types = told.get(id) ?? [];
    const created = types.filter((type) => type === "task.created").length;
    if (created !== 1) faults.push(`${id} has ${created} events task.created`);
    const last = types.filter((type) => ends.some((end) => type === `task.${end}`));
    if (last.join() !== `task.${task.status}`)
      faults.push(`${id} is ${task.status}, and its ends were told as [${last}]`);
  }
  return faults;
}

function slotFaults(agents: readonly Agent[], used: readonly Limit[]): string[] {
  const leaked = agents.filter(({ running }) => running !== 0);
  return [
    ...leaked.map(({ name, running, status }) => `agent ${name} (${status}) still counts ${running} slots in use`),
    ...used
      .filter(({ running, waiting }) => running !== 0 || waiting !== 0)
      .map(({ key, running, waiting }) => `the limit ${key} still counts ${running} running, ${waiting} waiting`),
  ];
}

/** What `waggle doctor --deep` finds. */
export async function auditFaults(client: Client): Promise<string[]> {
  const { findings, found, unsettled } = await client.status.audit();
  return [
    ...findings.map(({ code, subject, problem, row }) => `doctor: ${code} ${subject} ${problem} (${row})`),
    ...(found > findings.length ? [`doctor: ${found} findings in all`] : []),
    ...(unsettled > 0 ? [`doctor: ${unsettled} rows still change`] : []),
  ];
}

export interface Books {
  readonly faults: readonly string[];
  /** Acknowledged, and not there. */
  readonly lost: number;
  /** Tasks of which more than one success was recorded. */
  readonly twice: number;
  readonly byStatus: Readonly<Record<string, number>>;
  readonly events: number;
  /** Attempts that were begun and whose outcome was not the one recorded. */
  readonly repeated: number;
}

const repeats = (list: readonly unknown[]): number => list.length - new Set(list).size;

/** Reads everything back and compares it with what was promised. Call it when nothing is left to do. */
export async function checkBooks(
  client: Client,
  entries: readonly Entry[],
  disturbed?: readonly Disturbance[],
): Promise<Books> {
  const tasks = new Map((await all(client.tasks.all())).map((task) => [task.id, task]));
  const full = new Map<string, Task>();
  for (const { id } of entries) {
    const task = await client.tasks.get(id).catch(() => undefined);
    if (task) full.set(id, task);
  }
  const events = await everyEvent(client);
  const known = new Set(entries.map(({ id }) => id));
  const extra = [...tasks.keys()].filter((id) => !known.has(id));
  const missing = [...known].filter((id) => !tasks.has(id));
  const byStatus: Record<string, number> = {};
  for (const { status } of full.values()) byStatus[status] = (byStatus[status] ?? 0) + 1;
  const counted = ((await client.status.get()) as { tasks: { byStatus: Record<string, number> } }).tasks.byStatus;
  const miscounted = [...new Set([...Object.keys(byStatus), ...Object.keys(counted)])].filter(
    (status) => (byStatus[status] ?? 0) !== (counted[status] ?? 0),
  );
  return {
    faults: [
      ...entries.flatMap((entry) => taskFaults(entry, full.get(entry.id))),
      ...extra.map((id) => `${id} was made by a submit that was sent again under its idempotency key`),
      ...missing.map((id) => `${id} is there but in no list`),
      ...miscounted.map(
        (status) => `the status counts ${counted[status] ?? 0} ${status}, there are ${byStatus[status] ?? 0}`,
      ),
      ...eventFaults(events, full),
      ...slotFaults(
        await all(client.agents.all()),
        await Promise.all(Object.keys(limits).map((key) => client.limits.get(key))),
      ),
      ...historyFaults(events, full, disturbed),
    ],
    lost: entries.filter(({ id }) => !full.has(id)).length,
    twice: repeats(events.flatMap(({ type, taskId }) => (type === "task.completed" ? [taskId] : []))),
    byStatus,
    events: events.length,
    repeated: [...full.values()].reduce(
      (sum, { fence, status }) => sum + Math.max(0, fence - (status === "expired" ? 0 : 1)),
      0,
    ),
  };
}
