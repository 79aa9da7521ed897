import { emptied } from "../agent/leave.ts";
import { heldMark } from "../agent/row.ts";
import { isCalled } from "../delivery/schema.ts";
import type { Item, Put, Refusal, TransactResult, Update, Write } from "../port/index.ts";
import { fairKey, gateKey, gatePartition, laneKey, lanePartition, stickyKey, taskKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { advance, held, type Row } from "../task/row.ts";
import { placeOf, push, readTask, unpark } from "./assignment.ts";
import { cacheOf } from "./cache.ts";
import { type Choice, pick, pickShared } from "./choice.ts";
import { type Directory, taken } from "./directory.ts";
import * as Gate from "./gate.ts";
import { arrived, claim, giveBack, type Lane, peek, settle } from "./lane.ts";
import { largerBefore, lookAgain, notKept, placeInOrder } from "./larger.ts";
import { freeTasks, type Member } from "./member.ts";
import { open, openFor } from "./open.ts";
import { idOfParked } from "./place.ts";
import { needOf, refusal } from "./requirement.ts";
import * as Shared from "./shared.ts";
import { giveSlotsBack, hold, learn, reserve, slotsWrite, takeHeld } from "./slots.ts";

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
  if (gate.blocked) return (await parkAtGate(scope, directory, row, gate.blocked)) ? "placed" : "again";
  const lane = directory.lane(row.lane, needOf(row));
  const head = await headOf(scope, lane);
  if (head === undefined) {
    const choice = await (ports.shared ? pickShared : pick)(scope, directory, row);
    if (choice) {
      const reach = ports.shared ? choice.member.row.connectionId : undefined;
      const next = await assign(scope, directory, row, choice, gate.writes, undefined, reach);
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

/** What else goes into the transaction that stores a task that is new. */
export interface Fresh {
  readonly others: readonly Write[];
  /** One of `others` was refused. */
  refused?: true;
}

/** The task as it is once it has its agent, and the write that makes it so. */
export function assigned(scope: Scope, row: Row, { member, decision }: Choice): { next: Row; write: Update } {
  const now = scope.ports.clock.now();
  return advance(
    row,
    {
      status: "assigned",
      agentId: member.id,
      fence: row.fence + 1,
      attempt: row.attempt + 1,
      assignedAt: now,
      startedAt: undefined,
      beatAt: undefined,
      decision,
      waitingReason: undefined,
      waitingSince: undefined,
      parked: undefined,
      gate: undefined,
      silenceSeconds: isCalled(member.row) ? member.row.leaseSeconds : undefined,
    },
    { at: now },
  );
}

/**
 * The agent's slots taken, the task assigned, its fence one up, its place in limits and lists settled: one transaction, or
 * on a shared store two writes, where the task and its agent are all there is to change.
 * @param connectionId on a shared store: it will be pushed there, so the agent must still have this connection
 */
export async function assign(
  scope: Scope,
  directory: Directory,
  row: Row,
  choice: Choice,
  gateWrites: readonly Write[],
  fresh?: Fresh,
  connectionId?: string,
): Promise<Row | undefined> {
  const { member } = choice;
  const { next, write } = assigned(scope, row, choice);
  const task: Put | Update = fresh ? { put: next, if: { exists: false } } : write;
  const others: Write[] = [...gateWrites];
  // That one fewer waits at its limit is part of its entering there.
  if (row.parked !== undefined) others.push({ delete: placeOf(scope.tenant, row, row.parked) });
  if (row.stickyKey !== undefined && choice.stickyAgentId !== member.id) {
    others.push({ put: { ...stickyKey(scope.tenant, row.stickyKey), kind: "sticky", agentId: member.id } });
  }
  if (fresh) others.push(...fresh.others);
  hold(directory, member, row.slots);
  const result = await takeHeld<TransactResult & { readonly agent?: Item }>(directory, member, [row], () =>
    scope.ports.shared && others.length === 0
      ? assignApart(scope, member, next, task, connectionId)
      : scope.ports.store.transact([task, slotsWrite(scope, member, [next], connectionId), ...others]),
  );
  if (result.agent) directory.set(result.agent as unknown as Member["row"]);
  if (result.ok) return next;
  const [, agentRefusal] = result.reasons;
  if (agentRefusal) learn(directory, member, agentRefusal);
  const left = agentRefusal?.winner?.[heldMark(row.id)];
  if (typeof left === "number" && left < next.fence) await giveSlotsBack(scope, member, row, left);
  directory.refresh(member);
  if (fresh) noteRefusal(fresh, result.reasons);
  return undefined;
}

/**
 * By themselves, one after the other, the two writes cost half of a transaction. The agent's comes first: what it cannot take
 * leaves no trace on the task. The mark it makes is for this task and fence alone, so that after a crash between the two
 * whoever gives the task to the same agent goes on from there; if nobody does, the reconciler takes it for stray.
 */
async function assignApart(
  scope: Scope,
  member: Member,
  next: Row,
  task: Put | Update,
  connectionId: string | undefined,
): Promise<TransactResult & { readonly agent?: Item }> {
  const { store } = scope.ports;
  const slots = await reserve(scope, member, [next], connectionId);
  if (!slots.ok) {
    const there = slots.winner as Member["row"] | undefined;
    const begun =
      slots.winner?.[heldMark(next.id)] === next.fence &&
      there?.state === "active" &&
      (connectionId === undefined || there.connectionId === connectionId);
    if (!begun) return { ok: false, reasons: [undefined, slots] };
  }
  const written = await store.write(task);
  if (written.ok) return { ok: true, ...(slots.ok && slots.item && { agent: slots.item }) };
  const now = (written.winner ?? (await store.get(taskKey(scope.tenant, next.id)))) as Row | undefined;
  // Whoever else gave it to the same agent has it by the same mark.
  const shares = now?.agentId === member.id && now.fence === next.fence && held.has(now.status);
  if (slots.ok && !shares) {
    await giveSlotsBack(scope, member, next, next.fence);
    await serveAgent(scope, member.id);
  }
  return { ok: false, reasons: [written, undefined] };
}

function noteRefusal(fresh: Fresh, reasons: readonly (Refusal | undefined)[]): void {
  const others = reasons.slice(reasons.length - fresh.others.length);
  if (reasons[0] || others.some((reason) => reason !== undefined)) fresh.refused = true;
}

async function passFor(
  scope: Scope,
  directory: Directory,
  row: Row,
  head?: string,
): Promise<{ key: string; write?: Put }> {
  if (row.parked !== undefined) return { key: row.parked };
  if (scope.ports.shared) return { key: await Shared.passFor(scope, row, head) };
  const { name, pass, key } = await placeInOrder(scope, directory, row);
  directory.setPass(name, pass);
  return {
    key,
    write: { put: { ...fairKey(scope.tenant, name), kind: "fair", pass } },
  };
}

/** @returns where it waits, or nothing when others changed the task meanwhile */
export async function parkInLane(
  scope: Scope,
  directory: Directory,
  row: Row,
  lane: Lane,
  fresh?: Fresh,
  head?: string,
): Promise<string | undefined> {
  const { store, clock, shared } = scope.ports;
  if (shared) await Shared.registerLane(scope, lane);
  else if (!lane.registered) {
    await store.write({ put: { ...laneKey(scope.tenant, lane.id), kind: "lane", need: lane.need as never } });
    lane.registered = true;
  }
  const { key, write: passWrite } = await passFor(scope, directory, row, head);
  const now = clock.now();
  const { next, write } = advance(row, {
    parked: key,
    gate: undefined,
    waitingReason: waitingReason(directory, lane, now),
    waitingSince: row.waitingSince ?? now,
  });
  const parked: Item = { pk: lanePartition(scope.tenant, lane.id), sk: key, kind: "parked", taskId: row.id };
  const writes: Write[] = [
    fresh ? { put: next, if: { exists: false } } : write,
    { put: parked },
    ...unpark(scope, row),
  ];
  if (passWrite) writes.push(passWrite);
  if (fresh) writes.push(...fresh.others);
  const result = await store.transact(writes);
  if (!result.ok) {
    if (fresh) noteRefusal(fresh, result.reasons);
    return undefined;
  }
  if (shared) scope.ports.live.publish(Shared.parkedChannel(scope.tenant), {});
  // Empty ones may have been dropped since it was looked up: agents know of those alone that the directory has.
  else arrived(directory.lane(lane.id, lane.need), key);
  return key;
}

async function parkAtGate(scope: Scope, directory: Directory, row: Row, blocked: Gate.Blocked): Promise<boolean> {
  const { store, clock } = scope.ports;
  const { key, write: passWrite } = await passFor(scope, directory, row);
  const now = clock.now();
  const gate = gateKey(scope.tenant, blocked.key);
  const { write } = advance(row, {
    parked: key,
    gate: blocked.key,
    waitingReason: blocked.reason,
    waitingSince: row.waitingSince ?? now,
  });
  const parked: Item = { pk: gatePartition(scope.tenant, blocked.key), sk: key, kind: "parked", taskId: row.id };
  const result = await store.transact([
    write,
    { put: parked },
    Gate.waitingWrite(gate, blocked.key, 1),
    ...(passWrite ? [passWrite] : []),
    ...unpark(scope, row),
  ]);
  if (!result.ok) return false;
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
 * @param connectionId see `assign`
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
  if (gate.blocked) return (await parkAtGate(scope, directory, row, gate.blocked)) ? "gone" : "refused";
  const choice: Choice | undefined = only
    ? {
        member: only,
        decision: [row.strategy, 1, 1, 1, only.used, only.maxConcurrency, "it came free while the task waited"],
      }
    : await pick(scope, directory, row);
  const reach = shared && choice && !only ? choice.member.row.connectionId : connectionId;
  const task = choice && (await assign(scope, directory, row, choice, gate.writes, undefined, reach));
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

function waitingReason(directory: Directory, lane: Lane, now: number): string {
  if (lane.reason && now - lane.reason.at < 1000) return lane.reason.text;
  let eligible = 0;
  let near: string | undefined;
  let looked = 0;
  for (const member of directory.members.values()) {
    if (++looked > 2048) break;
    if (member.row.state === "lost") continue;
    const why = refusal(lane.need, member);
    if (why === undefined) eligible++;
    else near ??= `${member.row.name} ${why}`;
  }
  const text =
    eligible > 0
      ? `${eligible} eligible agent${eligible === 1 ? " is" : "s are"} busy or away`
      : directory.members.size === 0
        ? "no agent is registered"
        : `no eligible agent${near ? `: ${near}` : ""}`;
  lane.reason = { text, at: now };
  return text;
}
