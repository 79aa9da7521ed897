import { emptied } from "../agent/leave.ts";
import { isCalled } from "../delivery/schema.ts";
import { gateKey, gatePartition, lanePartition } from "../rows.ts";
import type { Scope } from "../scope.ts";
import type { Row } from "../task/row.ts";
import { readTask } from "../task/stored.ts";
import { type Terms, tryAssign } from "./assign.ts";
import { cacheOf } from "./cache.ts";
import { type Choice, cameFree, pick, pickShared } from "./choice.ts";
import { type Directory, taken } from "./directory.ts";
import * as Gate from "./gate.ts";
import { claim, giveBack, type Lane, peek, settle } from "./lane.ts";
import { largerBefore, lookAgain, notKept } from "./larger.ts";
import { freeTasks, type Member } from "./member.ts";
import { open, openFor } from "./open.ts";
import { parkAtGate, parkInLane } from "./park.ts";
import { idOfParked } from "./place.ts";
import { push } from "./push.ts";
import { needOf } from "./requirement.ts";
import * as Shared from "./shared.ts";

/** Times a decision is made anew when others changed the rows under it. */
export const tries = 12;

/**
 * Finds an agent for a queued task, or parks it where the next free agent looks.
 * Idempotent: a task that is not queued, or already waits, is left alone.
 * @param rev of the task as it is to be: what asks for this is sent before the change that needs it, and may be quicker
 * @returns whether the task was there, and so far
 */
export async function dispatch(scope: Scope, id: string, rev = 0): Promise<boolean> {
  for (let attempt = 0; attempt < tries; attempt++) {
    if (scope.ports.shared) await Shared.yieldTo(scope.ports, attempt);
    const row = await readTask(scope, id);
    if (!row || row.rev < rev) return false;
    if (row.status !== "queued") return true;
    // Whoever parked it may have died before the look that has to follow.
    if (row.gate !== undefined) await serveGate(scope, row.gate);
    else if (row.parked !== undefined) await serveOwn(scope, row, row.parked);
    else if ((await place(scope, row)) === "again") continue;
    return true;
  }
  // Under this much contention somebody else makes progress; the message comes again.
  throw new Error(`dispatch of ${id} gave up after ${tries} tries`);
}

/**
 * Gives a queued task to an agent; or parks it at a limit that is full, or in its lane. One that waits at a limit leaves it in the
 * same transaction, and keeps its place in the order.
 * @returns `blocked`: it waits at this limit, and has to go on waiting
 */
async function place(scope: Scope, row: Row): Promise<"placed" | "blocked" | "again"> {
  const { ports, tenant } = scope;
  const gate = Gate.gated(row) ? await Gate.enter(ports, tenant, row, ports.clock.now()) : { writes: [] };
  if (gate.blocked && gate.blocked.key === row.gate) {
    const { key, nextAt } = gate.blocked;
    if (nextAt !== undefined) await Gate.wakeAt(ports, tenant, key, nextAt);
    return "blocked";
  }
  const directory = await open(ports, tenant);
  if (gate.blocked) return (await waitAtGate(scope, directory, row, gate.blocked)) ? "placed" : "again";
  const lane = directory.lane(row.lane, needOf(row));
  const head = await headOf(scope, lane);
  if (head === undefined) {
    const choice = await (ports.shared ? pickShared : pick)(scope, directory, row);
    if (choice) {
      const reach = ports.shared ? choice.member.row.connectionId : undefined;
      const next = await assign(scope, directory, row, choice, { gateWrites: gate.writes, connectionId: reach });
      if (!next) return "again";
      await push(scope, choice.member, [next]);
      return "placed";
    }
  }
  const parked = await parkInLane(scope, directory, row, lane, undefined, head);
  if (parked === undefined) return "again";
  // Park, then look again: an agent that came free meanwhile did not see the row.
  await serveOwn(scope, row, parked);
  return "placed";
}

/** The first of those that wait in a lane. */
const headOf = async (scope: Scope, lane: Lane): Promise<string | undefined> =>
  scope.ports.shared
    ? (await Shared.headsOf(scope, lane, 1)).keys[0]
    : ((await peek(scope.ports, scope.tenant, lane)) ?? undefined);

/** Looks for agents for the lane in which a task waits, at this place. */
async function serveOwn(scope: Scope, row: Row, parked: string): Promise<void> {
  const directory = await open(scope.ports, scope.tenant);
  const lane = directory.lane(row.lane, needOf(row));
  if (scope.ports.shared) await serveLaneShared(scope, directory, lane, parked);
  else await serveLane(scope, directory, lane);
}

/** `tryAssign`; an agent that has room again is looked for work for. */
export async function assign(
  scope: Scope,
  directory: Directory,
  row: Row,
  choice: Choice,
  terms: Terms,
): Promise<Row | undefined> {
  const next = await tryAssign(scope, directory, row, choice, terms);
  if (next !== "freed") return next;
  await serveAgent(scope, choice.member.id);
  return undefined;
}

/** Parks it at the limit that holds it up. @returns nothing was changed by others meanwhile */
async function waitAtGate(scope: Scope, directory: Directory, row: Row, blocked: Gate.Blocked): Promise<boolean> {
  if (!(await parkAtGate(scope, directory, row, blocked))) return false;
  if (blocked.nextAt !== undefined) await Gate.wakeAt(scope.ports, scope.tenant, blocked.key, blocked.nextAt);
  else {
    // Park, then look again: the last holder may have left meanwhile.
    await serveGate(scope, blocked.key);
  }
  return true;
}

/** Lets tasks that wait for a limit go on, as far as it has room now. */
export async function serveGate(scope: Scope, key: string): Promise<void> {
  const { store, queues } = scope.ports;
  const row = (await store.get(gateKey(scope.tenant, key))) as Gate.Row | undefined;
  if (!row || (row.waiting ?? 0) <= 0) return;
  for (let served = 0, missed = 0; served < 100; served++) {
    const page = await store.query({ pk: gatePartition(scope.tenant, key), limit: 1 });
    const first = page.items[0];
    if (!first) return;
    const task = await readTask(scope, first.taskId as string);
    if (!task || task.gate !== key || task.parked !== first.sk) {
      await store.transact([
        { delete: { pk: first.pk, sk: first.sk }, if: { exists: true } },
        Gate.waitingWrite(gateKey(scope.tenant, key), key, -1),
      ]);
      continue;
    }
    const placed = await place(scope, task);
    if (placed === "blocked") return;
    if (placed === "placed") missed = 0;
    else if (scope.ports.shared) await Shared.yieldTo(scope.ports, missed++);
  }
  await queues.timers.send([{ body: { gates: [[scope.tenant, key]] } }]);
}

/** Tasks passed by one call: many may have ended, or have to go to a limit that is full. They must not hide those behind them. */
const passedAtOnce = 500;

/** An agent that has room is looked for work for again, apart from this call. */
const goOnApart = ({ ports, tenant }: Scope, { id }: Member, delaySeconds = 0): Promise<void> =>
  ports.queues.dispatch.send([{ body: { tenant, agentId: id }, delaySeconds }]);
/** Others were quicker each time. There may be more than they took. */
const retrySeconds = 1;

/** Gives the waiting tasks of a lane to the agents that are free for it. */
export async function serveLane(scope: Scope, directory: Directory, lane: Lane): Promise<void> {
  for (let passed = 0, refused = 0; ; ) {
    const head = await peek(scope.ports, scope.tenant, lane);
    if (head === null) return;
    const wanted = notKept(await largerBefore(scope, directory, head));
    const [free] = directory.candidates(lane.need, { wanted, most: 1 }).found;
    if (!free) return;
    if (passed === passedAtOnce) return goOnApart(scope, free);
    if (refused === tries) return goOnApart(scope, free, retrySeconds);
    const next = await takeHead(scope, directory, lane);
    if (next === "gone") passed++;
    else if (next === "refused") refused++;
    else await push(scope, next.member, [next.task]);
  }
}

/** Assigns the first task of a lane, as `takeTask` does: to `only`, or to the best of those free. */
async function takeHead(
  scope: Scope,
  directory: Directory,
  lane: Lane,
  only?: Member,
): Promise<Awaited<ReturnType<typeof takeTask>>> {
  const head = claim(lane);
  // Others took all that was known of it: there may be more.
  if (head === undefined) return "gone";
  let stays = true;
  try {
    const took = await takeTask(scope, directory, lane, head, only);
    stays = took === "refused";
    return took;
  } finally {
    if (stays) giveBack(lane, head);
    else {
      settle(lane, head);
      await lookAgain(scope, directory, lane);
    }
  }
}

/**
 * Assigns one task that waits in a lane. `gone`: it no longer waits there; `refused`: it does, but could not be assigned now.
 * @param connectionId see `Terms`
 */
async function takeTask(
  scope: Scope,
  directory: Directory,
  lane: Lane,
  head: string,
  only?: Member,
  connectionId?: string,
): Promise<{ task: Row; member: Member } | "gone" | "refused"> {
  const { store, clock, shared } = scope.ports;
  const row = await readTask(scope, idOfParked(head));
  if (!row || row.parked !== head || row.gate !== undefined || row.status !== "queued") {
    const key = { pk: lanePartition(scope.tenant, lane.id), sk: head };
    // Where others take too, it has as a rule gone with its task, and a read is cheaper than a write.
    if (!shared || (await store.get(key))) await store.write({ delete: key });
    return "gone";
  }
  const gate = Gate.gated(row) ? await Gate.enter(scope.ports, scope.tenant, row, clock.now()) : { writes: [] };
  if (gate.blocked) return (await waitAtGate(scope, directory, row, gate.blocked)) ? "gone" : "refused";
  const choice = only ? cameFree(row, only) : await pick(scope, directory, row);
  const reach = shared && choice && !only ? choice.member.row.connectionId : connectionId;
  const task =
    choice && (await assign(scope, directory, row, choice, { gateWrites: gate.writes, connectionId: reach }));
  if (!task) return "refused";
  taken(directory, head);
  if (shared) await Shared.passTaken(scope, directory);
  return { task, member: choice.member };
}

/**
 * The next waiting tasks for one agent, at most `max` and as many as its slots hold: the best of all lanes it may serve,
 * by priority, then fair share, then age. A task that needs more slots than are free is waited for, not passed over.
 */
export async function take(scope: Scope, directory: Directory, member: Member, max: number): Promise<Row[]> {
  if (scope.ports.shared) return takeShared(scope, directory, member, max);
  const got: Row[] = [];
  for (let passed = 0, refused = 0; got.length < max; ) {
    if (member.row.state !== "active" || member.used >= member.maxConcurrency) break;
    let best: Lane | undefined;
    let bestHead = "";
    for (const lane of directory.lanesOf(member)) {
      const head = lane.heads[0] ?? (await peek(scope.ports, scope.tenant, lane));
      if (head !== null && (best === undefined || head < bestHead)) {
        best = lane;
        bestHead = head;
      }
    }
    if (!best || best.need.slots > member.maxConcurrency - member.used) break;
    if (passed === passedAtOnce || refused === tries) {
      await goOnApart(scope, member, refused === tries ? retrySeconds : 0);
      break;
    }
    const next = await takeHead(scope, directory, best, member);
    if (next === "gone") passed++;
    else if (next === "refused") refused++;
    else got.push(next.task);
  }
  return got;
}

/**
 * Whether the agent, on a shared store, has to be looked for work for now: there are lanes it may serve, as far as is known, or
 * it is to leave. If one was made a moment ago, the outbox sees to it: it looks for every agent that came to have room.
 */
export function mayServe(scope: Scope, row: Member["row"]): boolean {
  const directory = cacheOf(scope.ports, scope.tenant);
  const member = directory.members.get(row.id);
  if (row.state === "draining" || !member || directory.lanesAt + lanesKnownMs < scope.ports.clock.now()) return true;
  return registeredLanes(directory, member).length > 0;
}

/** On a shared store a process knows lanes, too, that nobody waited in yet. */
const registeredLanes = (directory: Directory, member: Member): Lane[] =>
  directory.lanesOf(member).filter((lane) => lane.confirmedAt > 0);

const lanesKnownMs = 2_000;

/** Agents came to have room: those that may serve a lane get what waits there. For the outbox of a shared store. */
export async function serveRoomy(scope: Scope, rows: readonly Member["row"][]): Promise<void> {
  const directory = cacheOf(scope.ports, scope.tenant);
  await Shared.readLanes(scope, directory);
  for (const row of rows) {
    directory.set(row);
    if (mayServe(scope, row)) await serveAgent(scope, row.id);
  }
}

/**
 * An agent has room: it is pushed what waits for it. Room that comes while this runs is filled by the same run.
 * @param enough as for `openFor`
 */
export async function serveAgent(
  scope: Scope,
  agentId: string,
  enough?: (row: Member["row"]) => boolean,
): Promise<void> {
  const directory = await openFor(scope.ports, scope.tenant, agentId, enough);
  const member = directory.members.get(agentId);
  if (!member) return;
  if (scope.ports.shared && member.row.state === "draining") return emptied(scope, directory, agentId);
  member.again = true;
  if (member.serving) return;
  member.serving = true;
  try {
    while (member.again) {
      member.again = false;
      const most = freeTasks(member);
      if (most <= 0) continue;
      const tasks = scope.ports.shared
        ? await takeShared(scope, directory, member, most, member.row.connectionId)
        : await take(scope, directory, member, most);
      await push(scope, member, tasks);
    }
  } finally {
    member.serving = false;
  }
}

/** A task waits: agents that are called and are free for it ask for nothing. Whoever parked it looked for them, or died before. */
export async function serveCalled(scope: Scope, task: Row): Promise<void> {
  const { found } = (await open(scope.ports, scope.tenant)).candidates(needOf(task));
  for (const { id, row } of found) if (isCalled(row)) await serveAgent(scope, id);
}

/**
 * Gives the waiting tasks of a lane to the agents that are free for it.
 * @param own the task that was just parked: if another waits before it, whoever parked that one looks for both. The first of
 *   all that wait is always somebody's own, so that after it was parked one has looked
 * @returns how many were given
 */
export async function serveLaneShared(
  scope: Scope,
  directory: Directory,
  lane: Lane,
  own?: string,
  read: number = Shared.agentsRead.after,
): Promise<number> {
  let given = 0;
  let fresh = false;
  for (let attempt = 0, missed = 0; attempt < 100; attempt++) {
    const [head] = (await Shared.headsOf(scope, lane, 1)).keys;
    if (head === undefined || (!fresh && own !== undefined && head < own)) return given;
    if (!fresh) {
      await Shared.freshen(scope, directory, lane.need, read);
      fresh = true;
    }
    if (directory.candidates(lane.need).found.length === 0) return given;
    const took = await takeTask(scope, directory, lane, head);
    if (typeof took === "object") {
      await push(scope, took.member, [took.task]);
      given++;
      missed = 0;
    } else if (took === "refused") await Shared.yieldTo(scope.ports, missed++);
  }
  return given;
}

/** `take` where others take too: see `shared.ts`. @param connectionId the agent has it, and what it is given is pushed there */
async function takeShared(
  scope: Scope,
  directory: Directory,
  member: Member,
  max: number,
  connectionId?: string,
): Promise<Row[]> {
  await Shared.readLanes(scope, directory);
  const lanes = registeredLanes(directory, member);
  const heads = new Map<Lane, { keys: string[]; whole: boolean }>();
  for (let i = 0; i < lanes.length; i += Shared.lanesAtOnce) {
    const part = lanes.slice(i, i + Shared.lanesAtOnce);
    const read = await Promise.all(part.map((lane) => Shared.headsOf(scope, lane)));
    for (const [at, lane] of part.entries()) heads.set(lane, read[at] as { keys: string[]; whole: boolean });
  }
  const got: Row[] = [];
  /** Lanes of which a task that was read has gone, to this agent or another. */
  const thinned = new Set<Lane>();
  let missed = 0;
  for (let attempt = 0; got.length < max; attempt++) {
    if (member.row.state !== "active" || member.used >= member.maxConcurrency) return got;
    let best: Lane | undefined;
    for (const [lane, { keys }] of heads) {
      if (keys.length > 0 && (best === undefined || (keys[0] as string) < (heads.get(best)?.keys[0] as string)))
        best = lane;
    }
    if (!best || best.need.slots > member.maxConcurrency - member.used) return got;
    if (attempt >= max + tries) break;
    const list = heads.get(best) as { keys: string[]; whole: boolean };
    const [key] = list.keys.splice(missed === 0 ? 0 : Shared.anyOf(list.keys, missed), 1) as [string];
    const took = await takeTask(scope, directory, best, key, member, connectionId);
    if (typeof took === "object") {
      got.push(took.task);
      thinned.add(best);
      missed = 0;
    } else {
      if (took === "gone") thinned.add(best);
      else {
        list.keys.splice(list.keys.findIndex((other) => other > key) >>> 0, 0, key);
        await Shared.yieldTo(scope.ports, missed);
      }
      missed++;
    }
    // Whoever parks a task behind another leaves the look to those who look for that one: they have to look again.
    if (list.keys.length === 0 && (!list.whole || thinned.has(best))) {
      thinned.delete(best);
      heads.set(best, await Shared.headsOf(scope, best));
    }
  }
  if (got.length < max) await goOnApart(scope, member, retrySeconds);
  return got;
}
