import { changePolicy, type Policy, policyMs, policyOf } from "../policy.ts";
import type { Delete, Item, Ports, Update, Value } from "../port/index.ts";
import { dependantPartition, indexPartitions, taskEventPartition, taskKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { type Row, terminal } from "../task/row.ts";
import { readTask } from "../task/stored.ts";
import type { Info, Put } from "./schema.ts";

/** How long the tenant keeps what is over. */
export const get = async (scope: Scope): Promise<Info> => (await policyOf(scope.ports, scope.tenant)).retention;

/** Sets it. Tasks that have ended before follow in the background, events written before keep their time. */
export async function put(scope: Scope, input: Put): Promise<Info> {
  const { ports, tenant } = scope;
  // Before it is set: should this process die in between, who asks again finds it set. It begins some time after.
  if (input.taskSeconds !== undefined) await goOn(ports, { tenant, list: 0 }, true);
  const changed = await changePolicy(ports, tenant, ({ retention: before, retiredTo }) => {
    const { taskSeconds = before.taskSeconds, eventSeconds = before.eventSeconds } = input;
    const now = ports.clock.now();
    // Until then others may go by the retention before.
    const known = now + (ports.shared ? policyMs : 0);
    return {
      retention: { taskSeconds, eventSeconds },
      ...(isLonger(before.taskSeconds, taskSeconds) && {
        retiredTo: Math.max(retiredTo, now - Math.max(0, before.taskSeconds * 1000 - walkMs)),
      }),
      ...(isLonger(before.eventSeconds, eventSeconds) && { forgottenTo: known }),
      ...(before.eventSeconds === 0 && eventSeconds > 0 && { endlessTo: known }),
    };
  });
  return changed.retention;
}

const isLonger = (before: number, now: number): boolean => before > 0 && (now === 0 || now > before);

/** Until a walk comes to a task, it may go by the retention before. The longest that one may take. */
const walkMs = 24 * 3600 * 1000;

/** When a task that ends at this time may be deleted; undefined: never. */
export async function keptUntil(scope: Scope, finishedAt: number): Promise<number | undefined> {
  const { taskSeconds } = (await policyOf(scope.ports, scope.tenant)).retention;
  return expiry(finishedAt, taskSeconds);
}

export const expiry = (at: number, keepSeconds: number): number | undefined =>
  keepSeconds === 0 ? undefined : at + keepSeconds * 1000;

/** Whether a task that ended at this time may have been deleted. */
export const isRetired = ({ retention, retiredTo }: Policy, endedAt: number, now: number): boolean =>
  endedAt <= retiredTo || (expiry(endedAt, retention.taskSeconds) ?? Number.POSITIVE_INFINITY) <= now;

/** Whether an event that was written at this time may have been deleted. */
export const isForgotten = ({ retention, forgottenTo }: Policy, at: number, now: number): boolean =>
  at <= forgottenTo || (expiry(at, retention.eventSeconds) ?? Number.POSITIVE_INFINITY) <= now;

/** How far a walk over the finished tasks came: the list it is at, and the last id it saw there. */
export interface Walk {
  readonly tenant: string;
  readonly list: number;
  readonly after?: string;
}

const tasksAtOnce = 100;
/** Between two steps: a change of mind about retention is in no hurry, and the writers are. */
const stepSeconds = 0.1;
/** Before the first. On a shared store others may go by the retention before for as long. */
const firstSeconds = { shared: 90, alone: 2 } as const;

async function goOn({ shared, queues }: Ports, walk: Walk, first = false): Promise<void> {
  const delaySeconds = first ? firstSeconds[shared ? "shared" : "alone"] : stepSeconds;
  await queues.timers.send([{ body: { retention: walk } as unknown as Value, delaySeconds }]);
}

/** One step of giving finished tasks the time that holds now, and the message for the next. Repeating it is harmless. */
export async function step(scope: Scope, { tenant, list, after }: Walk): Promise<void> {
  const lists = [...terminal].flatMap((status) => indexPartitions(tenant, "status", status));
  const pk = lists[list];
  if (pk === undefined) return;
  const { store } = scope.ports;
  await store.projected();
  const page = await store.query({ pk, limit: tasksAtOnce, ...(after !== undefined && { after }) });
  const tasks = await store.batchGet(page.items.map(({ sk }) => taskKey(tenant, sk)));
  for (const task of tasks as readonly (Row | undefined)[]) {
    const write = task && (await renewed(scope, task));
    if (write) await store.write(write);
  }
  if (page.last !== undefined) await goOn(scope.ports, { tenant, list, after: page.last });
  else if (list + 1 < lists.length) await goOn(scope.ports, { tenant, list: list + 1 });
}

async function renewed(scope: Scope, task: Row): Promise<Update | Delete | undefined> {
  if (task.finishedAt === undefined || !terminal.has(task.status)) return undefined;
  const expiresAt = await keptUntil(scope, task.finishedAt);
  if (expiresAt === task.expiresAt) return undefined;
  const key = taskKey(scope.tenant, task.id);
  const same = { equals: { rev: task.rev } };
  const { shared, clock } = scope.ports;
  // Where deletion costs nothing, what is overdue need not wait for the engine to come by.
  if (!shared && expiresAt !== undefined && expiresAt <= clock.now()) return { delete: key, if: same };
  const changes = expiresAt === undefined ? { remove: ["expiresAt"] } : { set: { expiresAt } };
  return { update: key, kind: "task", ...changes, if: same };
}

/** Takes away what only a task that is gone needed. Lists and counters follow by the projection. */
export async function clear(scope: Scope, task: Row): Promise<void> {
  const { blobs } = scope.ports;
  // A caller may have given the id to another task since, which then has all of this.
  const other = await readTask(scope, task.id);
  const kept = [other?.inputBlob, other?.resultBlob];
  for (const key of [task.inputBlob, task.resultBlob])
    if (key !== undefined && !kept.includes(key)) await blobs.delete(key);
  if (other) return;
  if (task.dependants) await empty(scope, dependantPartition(scope.tenant, task.id));
  const { retention, endlessTo } = await policyOf(scope.ports, scope.tenant);
  const { eventSeconds, taskSeconds } = retention;
  // Else they expire by themselves, before the task does.
  if (eventSeconds === 0 || eventSeconds > taskSeconds || task.createdAt <= endlessTo)
    await empty(scope, taskEventPartition(scope.tenant, task.id));
}

async function empty({ ports: { store } }: Scope, pk: string): Promise<void> {
  for (;;) {
    const { items } = await store.query({ pk, limit: 100 });
    if (items.length === 0) return;
    await store.batchWrite(items.map(({ sk }: Item) => ({ delete: { pk, sk } })));
  }
}
