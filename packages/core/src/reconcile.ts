import { heldTasks } from "./agent/commands.ts";
import { timeUp as agentTimeUp } from "./agent/liveness.ts";
import { send } from "./agent/message.ts";
import { type Row as AgentRow, heldMark, heldMarks } from "./agent/row.ts";
import { counters } from "./counters.ts";
import { isCalled } from "./delivery/schema.ts";
import { canonical } from "./json.ts";
import type { Directory } from "./match/directory.ts";
import { dispatch, serveAgent, serveGate, serveLaneShared } from "./match/dispatch.ts";
import { open } from "./match/open.ts";
import { toAssignment } from "./match/push.ts";
import { dropLane, headsOf, readLanes } from "./match/shared.ts";
import { getAll } from "./page.ts";
import type { Item, Ports } from "./port/index.ts";
import { agentKey, indexPartitions, indexShards, reconcileKey, taskKey, tenantKey } from "./rows.ts";
import { type Scope, systemScope } from "./scope.ts";
import { failBound, isRemoved } from "./task/bound.ts";
import { catchUp } from "./task/dependency.ts";
import { takeBack, timeUp as taskTimeUp } from "./task/end.ts";
import { held, type Row as Task } from "./task/row.ts";
import type { Status } from "./task/schema.ts";

/** What was put right, by what was wrong. */
export interface Reconciled {
  readonly tenants: number;
  /** Tasks that were queued and neither waited in a lane nor were with anybody. */
  readonly orphaned: number;
  /** Assignments a connected agent had not begun for long: pushed again. */
  readonly undelivered: number;
  /** Tasks that still waited for others which had ended. */
  readonly unmet: number;
  /** Tasks whose deadline had passed, and whose timer was lost. */
  readonly expired: number;
  /** Agents that were due: their lease had run out, they had tasks and were lost, or were to be stopped. */
  readonly overdue: number;
  /** Agents whose slots in use were not those of the tasks they held. */
  readonly drifted: number;
  /** Tasks with an agent that was stopped in the moment it was given them. */
  readonly stranded: number;
  /** Tasks that waited beside an agent that was free for them. */
  readonly waiting: number;
  /** Lanes that were empty for long: forgotten. */
  readonly dropped: number;
}

const graceMs = {
  /** Its message comes within a second as a rule; with the minute between two runs an orphan waits 65 s at most. Looking too early costs a read. */
  queued: 5_000,
  unmet: 30_000,
  undelivered: 30_000,
  due: 5_000,
  /** After that its dependencies are looked at now and then only: a task may wait for days, and the read of each would be paid each minute. */
  unmetNow: 3_600_000,
} as const;
/** Read for one tenant in one run; the next run goes on from there. Of marks: cleared of one agent, as an expression of DynamoDB holds 4 KB. */
const limits = {
  queued: 200,
  newest: 50,
  others: 25,
  agents: 50,
  lanes: 200,
  gates: 100,
  laneAgents: 10,
  marks: 100,
} as const;
/** A status that no task has, by the count, is looked at now and then only: most tenants are at rest, and it is eight reads. */
const thoroughMinutes = 30;
const scanned: readonly Status[] = ["queued", "scheduled", "assigned", "running", "input_required"];

type Counts = { -readonly [Name in Exclude<keyof Reconciled, "tenants">]: number };

/**
 * Finds what a crash between two calls, or a lost message, left undone, and does it. For stores that other processes share:
 * an engine of one process knows all that is waiting when it starts. Reads a bounded number of rows by key.
 */
export async function reconcile(ports: Ports, onError: (error: unknown) => void): Promise<Reconciled> {
  const counts: Counts = {
    orphaned: 0,
    undelivered: 0,
    unmet: 0,
    expired: 0,
    overdue: 0,
    drifted: 0,
    stranded: 0,
    waiting: 0,
    dropped: 0,
  };
  const { store } = ports;
  const key = reconcileKey("");
  const begun = (await store.get(key))?.tenant as string | undefined;
  let noted = begun;
  let tenants = 0;
  for await (const group of tenantsAfter(ports, begun)) {
    await Promise.all(group.map((tenant) => ofTenant(systemScope(ports, tenant, "reconciler"), counts, onError)));
    tenants += group.length;
    if (tenants % noteEvery !== 0) continue;
    noted = group.at(-1) as string;
    await store.write({ put: { ...key, kind: "cursor", tenant: noted } });
  }
  if (noted !== undefined) await store.write({ put: { ...key, kind: "cursor" } });
  return { tenants, ...counts };
}

/** Tenants looked at together. */
const atOnce = 8;
/** How far a run came is noted after so many, for the next to go on there where one ran out of time. */
const noteEvery = 32;

/** Every tenant once, a few at a time: those after `begun`, then those up to it. */
async function* tenantsAfter(ports: Ports, begun: string | undefined): AsyncGenerator<readonly string[]> {
  const { pk } = tenantKey("");
  let group: string[] = [];
  for (const [from, to] of begun === undefined ? [[]] : [[begun], [undefined, begun]]) {
    for (let after = from; ; ) {
      const page = await ports.store.query({ pk, limit: 100, ...(after !== undefined && { after }) });
      for (const { sk } of page.items) {
        if (to !== undefined && sk > to) break;
        group.push(sk);
        if (group.length < atOnce) continue;
        yield group;
        group = [];
      }
      after = page.last;
      if (after === undefined || (to !== undefined && after > to)) break;
    }
  }
  if (group.length > 0) yield group;
}

/** One run over a tenant. */
interface Run {
  readonly scope: Scope;
  readonly directory: Directory;
  /** How far the run before came, and what it noted. */
  readonly cursor: Readonly<Record<string, string | undefined>>;
  /** The same for the run that follows. */
  readonly next: Record<string, string>;
  readonly counts: Counts;
  /** One that fails holds up no other. */
  attempt(step: () => Promise<void>): Promise<void>;
}

async function ofTenant(scope: Scope, counts: Counts, onError: (error: unknown) => void): Promise<void> {
  const directory = await open(scope.ports, scope.tenant);
  const key = reconcileKey(scope.tenant);
  const cursor = ((await scope.ports.store.get(key)) ?? {}) as Run["cursor"];
  const next: Record<string, string> = {};
  const attempt = async (step: () => Promise<void>) => {
    try {
      await step();
    } catch (error) {
      onError(error);
    }
  };
  const run: Run = { scope, directory, cursor, next, counts, attempt };
  for (const part of [tasks, agents, lanes]) await attempt(() => part(run));
  const kept = Object.entries(cursor).filter(([name]) => !["pk", "sk", "kind"].includes(name));
  if (
    JSON.stringify(Object.fromEntries(kept.sort())) !== JSON.stringify(Object.fromEntries(Object.entries(next).sort()))
  )
    await scope.ports.store.write({ put: { ...key, kind: "cursor", ...next } });
}

async function tasks(run: Run): Promise<void> {
  const { scope, cursor, next, attempt } = run;
  const { store, clock } = scope.ports;
  const gates = new Set<string>();
  const counted = await counters(scope);
  const thorough = Math.floor(clock.now() / 60_000) % thoroughMinutes === 0;
  for (const status of scanned) {
    if (!thorough && !counted[`tasks.${status}`]) continue;
    const limit = status === "queued" ? limits.queued : limits.others;
    const partitions = indexPartitions(scope.tenant, "status", status);
    for (let shard = 0; shard < indexShards; shard++) {
      const name = `${status}.${shard}`;
      const after = cursor[name];
      const page = await store.query({
        pk: partitions[shard] as string,
        limit,
        ...(after !== undefined && { after }),
      });
      if (page.last !== undefined) next[name] = page.last;
      const ids = new Set(page.items.map(({ sk }) => sk));
      // Where more wait than one run reads, the newest are not to be found only when it is their turn: they are who has been orphaned just now.
      if (status === "queued" && (after ?? page.last) !== undefined) {
        const newest = await store.query({ pk: partitions[shard] as string, limit: limits.newest, reverse: true });
        for (const { sk } of newest.items) ids.add(sk);
      }
      const keys = [...ids].map((id) => taskKey(scope.tenant, id));
      for (const task of (await getAll(store, keys)) as (Task | undefined)[])
        if (task) await attempt(() => ofTask(run, task, thorough, gates));
    }
  }
  for (const gate of gates) await attempt(() => serveGate(scope, gate));
}

/** What a crash or a lost message may have left undone of one task. @param gates limits to be looked at afterwards */
async function ofTask(
  { scope, directory, counts }: Run,
  task: Task,
  thorough: boolean,
  gates: Set<string>,
): Promise<void> {
  const now = scope.ports.clock.now();
  if (task.deadlineAt !== undefined && task.deadlineAt < now - graceMs.due) {
    await taskTimeUp(scope, task.id);
    counts.expired++;
  } else if (task.status === "queued" && task.parked === undefined) {
    if ((task.queuedAt ?? task.createdAt) > now - graceMs.queued) return;
    await dispatch(scope, task.id);
    counts.orphaned++;
  } else if (
    task.unmet &&
    waitsSince(task) < now - graceMs.unmet &&
    (thorough || waitsSince(task) > now - graceMs.unmetNow)
  ) {
    if (await catchUp(scope, task)) counts.unmet++;
  } else if (task.agentId !== undefined && held.has(task.status) && !directory.members.has(task.agentId)) {
    counts.stranded += await leftBehind(scope, task.agentId);
  } else if (task.gate !== undefined && gates.size < limits.gates) gates.add(task.gate);
}

const waitsSince = ({ history, createdAt }: Task): number => history.at(-1)?.[0] ?? createdAt;

/** An agent may be stopped in the moment between the two writes that give it a task. @returns how many tasks it had */
async function leftBehind(scope: Scope, agentId: string): Promise<number> {
  const row = (await scope.ports.store.get(agentKey(scope.tenant, agentId))) as AgentRow | undefined;
  return row?.state === "stopped" ? takeBack(scope, agentId, "released", "its agent was removed") : 0;
}

async function agents(run: Run): Promise<void> {
  const { scope, directory, cursor, next, counts, attempt } = run;
  const now = scope.ports.clock.now();
  const holders: string[] = [];
  for (const { id, row, used } of [...directory.members.values()]) {
    if (used > 0) holders.push(id);
    const leaseEnd = row.expiresAt === undefined ? undefined : row.expiresAt + (row.leaseSeconds * 1000) / 3;
    const ended = leaseEnd !== undefined && leaseEnd < now - graceMs.due && row.state !== "lost";
    const stops = row.stopAt !== undefined && row.stopAt < now - graceMs.due;
    // What a called agent accepted it keeps when it is lost; it is tried anew.
    const left = row.state === "lost" && used > 0 && !isCalled(row);
    const probe = row.state === "lost" && row.probeAt !== undefined && row.probeAt < now - graceMs.due;
    if (!ended && !stops && !left && !probe) continue;
    await attempt(async () => {
      await agentTimeUp(scope, id);
      counts.overdue++;
    });
  }
  const after = cursor.agents ?? "";
  const due = holders.sort().filter((id) => id > after);
  const part = due.slice(0, limits.agents);
  if (due.length > part.length) next.agents = part.at(-1) as string;
  for (const id of part) await attempt(() => agent(run, id));
  // Those it did not come to: what was noted of them is of use when it does.
  for (const [name, at] of Object.entries(cursor)) {
    const id = agentOfNote(name);
    if (id !== undefined && at !== undefined && holders.includes(id) && !part.includes(id)) next[name] = at;
  }
}

/**
 * A mark that no task answers to yet may be of one that is just being given. Whoever does that has done it, or given up, long
 * before this time is over: a call of the store is tried for ten seconds at most.
 */
const strayMs = 50_000;
const noteOf = (agentId: string, taskId: string, fence: number): string => `stray.${agentId}.${taskId}.${fence}`;
const agentOfNote = (name: string): string | undefined => /^stray\.([^.]+)\./.exec(name)?.[1];

/** Its slots and what it holds have to agree, and what it was given it has to know of. */
async function agent(run: Run, id: string): Promise<void> {
  const { scope, counts } = run;
  const { store, clock } = scope.ports;
  const key = agentKey(scope.tenant, id);
  const row = (await store.get(key)) as AgentRow | undefined;
  if (!row || row.state === "stopped") return;
  const own = await heldTasks(scope, id);
  const late = own.filter(
    ({ status, assignedAt }) => status === "assigned" && (assignedAt ?? 0) < clock.now() - graceMs.undelivered,
  );
  if (row.connectionId !== undefined && row.state !== "lost" && late.length > 0) {
    const assign = await Promise.all(late.map((task) => toAssignment(scope, task, { row })));
    send(scope.ports, row.connectionId, { assign });
    counts.undelivered += late.length;
  }
  const used = own.reduce((sum, task) => sum + task.slots, 0);
  if (used === row.used) return;
  // Read before and after what it holds, and the same: nothing was given or ended meanwhile.
  if (canonical(await store.get(key)) !== canonical(row)) return;
  const ids = new Set(own.map((task) => task.id));
  const strays = heldMarks(row).filter((taskId) => !ids.has(taskId));
  const tasks = await tasksOf(scope, strays);
  if (areGiven(run, row, strays, tasks)) return;
  const stray = strays.slice(0, limits.marks);
  const ended = stray.flatMap((taskId) => tasks.get(taskId) ?? []);
  const result = await store.write({
    update: key,
    kind: "agent",
    // As long as marks are left, the next run has to find that it does not agree.
    set: { used: stray.length < strays.length ? row.used : used, ...endedBy(row, ended) },
    ...(stray.length > 0 && { remove: stray.map(heldMark) }),
    if: {
      equals: {
        rev: row.rev,
        used: row.used,
        completed: row.completed,
        failed: row.failed,
        // Given back meanwhile, and as many taken, it would look the same.
        ...Object.fromEntries(stray.map((taskId) => [heldMark(taskId), markOf(row, taskId)])),
      },
    },
  });
  if (!result.ok) return;
  counts.drifted++;
  await serveAgent(scope, id);
}

/**
 * Whether one of these marks may be of a task that is just being given to the agent, and not of one that went. It is noted then,
 * for a later run to tell.
 */
function areGiven(
  { scope, cursor, next }: Run,
  row: AgentRow,
  stray: readonly string[],
  tasks: ReadonlyMap<string, Task>,
): boolean {
  const now = scope.ports.clock.now();
  let given = false;
  for (const taskId of stray) {
    const fence = markOf(row, taskId);
    const task = tasks.get(taskId);
    // It came between the look at what the agent holds and this one.
    if (task?.fence === fence && task.agentId === row.id && held.has(task.status)) given = true;
    if ((task?.fence ?? 0) >= fence) continue;
    const name = noteOf(row.id, taskId, fence);
    const since = cursor[name] ?? String(now);
    next[name] = since;
    if (Number(since) > now - strayMs) given = true;
  }
  return given;
}

async function tasksOf(scope: Scope, ids: readonly string[]): Promise<ReadonlyMap<string, Task>> {
  const keys = ids.map((id) => taskKey(scope.tenant, id));
  const tasks = (await getAll(scope.ports.store, keys)) as (Task | undefined)[];
  return new Map(tasks.flatMap((task) => (task ? [[task.id, task] as const] : [])));
}

/**
 * The agent's record, with the tasks whose marks were left: whoever ended them died before it was noted. Of an attempt that
 * failed and was tried anew nothing is left to tell of it.
 */
function endedBy(row: AgentRow, tasks: readonly Task[]): Record<string, number> {
  const record = { completed: row.completed, failed: row.failed, busyMs: row.busyMs };
  for (const task of tasks) {
    if (task.agentId !== row.id || markOf(row, task.id) !== task.fence) continue;
    if (task.status !== "completed" && task.status !== "failed") continue;
    record[task.status]++;
    record.busyMs += (task.finishedAt ?? 0) - (task.startedAt ?? task.assignedAt ?? task.finishedAt ?? 0);
  }
  return record;
}

const markOf = (row: AgentRow, taskId: string): number => (row as unknown as Item)[heldMark(taskId)] as number;

async function lanes({ scope, directory, cursor, next, counts, attempt }: Run): Promise<void> {
  await readLanes(scope, directory);
  const after = cursor.lanes ?? "";
  const due = [...directory.lanes.values()].filter(({ id }) => id > after).sort((a, b) => (a.id < b.id ? -1 : 1));
  const part = due.slice(0, limits.lanes);
  if (due.length > part.length) next.lanes = part.at(-1)?.id as string;
  for (const lane of part) {
    await attempt(async () => {
      const { keys } = await headsOf(scope, lane, 1);
      const { agentId } = lane.need;
      if (
        keys.length > 0 &&
        agentId !== undefined &&
        !directory.members.has(agentId) &&
        (await isRemoved(scope, agentId))
      )
        await failBound(scope, agentId);
      else if (keys.length > 0)
        counts.waiting += await serveLaneShared(scope, directory, lane, undefined, limits.laneAgents);
      else if (await dropLane(scope, lane)) counts.dropped++;
    });
  }
}
