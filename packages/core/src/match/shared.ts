import type * as AgentRow from "../agent/row.ts";
import { getAll, pages } from "../page.ts";
import type { Ports, Put } from "../port/index.ts";
import {
  agentKey,
  fairKey,
  laneKey,
  lanePartition,
  lanesVersionKey,
  offerPartition,
  sequenceKey,
  virtualTimeKey,
} from "../rows.ts";
import type { Scope } from "../scope.ts";
import type { Row } from "../task/row.ts";
import { learnRow } from "./cache.ts";
import { type Directory, probeLimit } from "./directory.ts";
import type { Lane } from "./lane.ts";
import { freeSlots, type Member } from "./member.ts";
import { parkedKey, passOf } from "./place.ts";
import { type Need, refusal } from "./requirement.ts";

/*
 * Matching where other processes work on the same store. No wake-up is lost because each side writes before it looks:
 * who parks a task then reads the agents that could take it, and who frees a slot then reads the lanes. With strong reads
 * at least one of the two sees the other. Memory only says where to look:
 * - an agent that comes free reads the version of the lanes' registry, which rises before a task is parked in a new lane;
 * - who parks reads, beside the agents it knows, the offers: rows of agents that came, or offer more, since it read them all.
 */

const tries = 12;
/** Read strongly before a task is parked, so as to park fewer in vain, and after, before nobody is thought to be free. */
export const agentsRead = { before: 10, after: 100 } as const;
/** A lane's registry row is written anew after the one time, and may be dropped when empty after the other. */
const laneMs = { confirm: 30 * 60_000, drop: 60 * 60_000 } as const;
/** Clocks of two processes may differ by this much. */
const skewMs = 10_000;
const offerTtlSeconds = 600;
const readAhead = 16;
export const lanesAtOnce = 16;

/** Tells calls that wait in this process that there may be something. */
export const parkedChannel = (tenant: string): string => `parked/${tenant}`;

/** Lets others go first, a little longer each time. */
export async function yieldTo(ports: Ports, attempt: number): Promise<void> {
  if (attempt < 2) return;
  const delayMs = Math.random() * Math.min(200, 5 * 2 ** attempt);
  await new Promise<void>((resolve) => void ports.clock.after(delayMs, resolve));
}

/** The write that tells others of an agent they may not know, or not as it is; to be in one transaction with its change. */
export function offerWrite(scope: Scope, agentId: string): Put {
  const now = scope.ports.clock.now();
  return {
    put: {
      pk: offerPartition(scope.tenant),
      sk: `${sequenceKey(now)}#${agentId}`,
      kind: "offer",
      agentId,
      ttl: Math.floor(now / 1000) + offerTtlSeconds,
    },
  };
}

/** Whether a change makes the agent fit for tasks that it was not fit for. */
export const offersMore = (before: AgentRow.Row, after: AgentRow.Row): boolean =>
  after.state === "active" &&
  (before.state !== "active" ||
    before.connectionId !== after.connectionId ||
    before.capabilities !== after.capabilities ||
    before.labels !== after.labels ||
    before.role !== after.role ||
    before.delivery !== after.delivery ||
    before.maxConcurrency < after.maxConcurrency);

/** Reads the registry of lanes again, if any was added. */
export async function readLanes(scope: Scope, directory: Directory): Promise<void> {
  const { store, clock } = scope.ports;
  const at = clock.now();
  const version = ((await store.get(lanesVersionKey(scope.tenant)))?.version as number | undefined) ?? 0;
  directory.lanesAt = at;
  if (directory.lanesVersion === version) return;
  const { pk } = laneKey(scope.tenant, "");
  const there = new Set<string>();
  for await (const lanes of pages(store, pk, 1000)) {
    for (const item of lanes) {
      there.add(item.sk);
      const lane = directory.lane(item.sk, item.need as unknown as Need);
      lane.confirmedAt = (item.at as number | undefined) ?? 0;
    }
  }
  directory.keepLanes((lane) => there.has(lane.id));
  directory.lanesVersion = version;
}

/**
 * What a process read so long ago is good enough to choose by. What is missed by it puts nothing in the wrong: agents that came
 * are given work a moment later, and a task that comes may pass one that was parked in a new lane just before.
 */
export const knownMs = 1_000;

/** Whether tasks wait in the lane, so that one that comes has to wait behind them. */
export async function isWaitedIn(scope: Scope, directory: Directory, id: string): Promise<boolean> {
  if (directory.lanesAt + knownMs < scope.ports.clock.now()) await readLanes(scope, directory);
  const lane = directory.lanes.get(id);
  return lane !== undefined && lane.confirmedAt > 0 && (await headsOf(scope, lane, 1)).keys.length > 0;
}

/** Before a task is parked in the lane: agents must find it. */
export async function registerLane(scope: Scope, lane: Lane): Promise<void> {
  const { store, clock } = scope.ports;
  const now = clock.now();
  if (now - lane.confirmedAt < laneMs.confirm) return;
  for (let attempt = 0; ; attempt++) {
    const result = await store.transact([
      { put: { ...laneKey(scope.tenant, lane.id), kind: "lane", need: lane.need as never, at: now } },
      { update: lanesVersionKey(scope.tenant), kind: "lanes", add: { version: 1 } },
    ]);
    if (result.ok) break;
    if (attempt >= tries) throw new Error(`lane ${lane.id} could not be registered`);
    await yieldTo(scope.ports, attempt);
  }
  lane.confirmedAt = now;
}

/** Forgets a lane that is empty and that nobody confirmed for long. @returns whether it was so */
export async function dropLane(scope: Scope, lane: Lane): Promise<boolean> {
  const { store, clock } = scope.ports;
  if (clock.now() - lane.confirmedAt < laneMs.drop) return false;
  const row = laneKey(scope.tenant, lane.id);
  return (await store.write({ delete: row, if: { exists: true, equals: { at: lane.confirmedAt } } })).ok;
}

export const headsOf = async (
  scope: Scope,
  lane: Lane,
  limit = readAhead,
): Promise<{ keys: string[]; whole: boolean }> => {
  const page = await scope.ports.store.query({ pk: lanePartition(scope.tenant, lane.id), limit });
  return { keys: page.items.map((item) => item.sk), whole: page.last === undefined };
};

/** Work can be sent to it. One that asks for work is not given any: it takes it. */
const reachable = ({ row }: Member): boolean =>
  row.connectionId !== undefined || (row.delivery.type as string) !== "pull";

const fits = (need: Need, member: Member): boolean => reachable(member) && refusal(need, member) === undefined;

/**
 * Where a few could serve the need, reads those strongly: a strategy then decides by what they are, and not by what this process
 * knew of them, if that is older than a moment. Of many the best is good enough among those known to be free.
 */
export async function freshenFew(scope: Scope, directory: Directory, lane: Lane): Promise<void> {
  const { need } = lane;
  const now = scope.ports.clock.now();
  if (need.agentId !== undefined || directory.members.size > probeLimit || lane.fewReadAt + knownMs >= now) return;
  let few = 0;
  for (const member of directory.members.values()) if (fits(need, member) && ++few > agentsRead.before) return;
  if (few > 1) await freshen(scope, directory, need, few, { free: true, since: sampledSince(directory) });
  lane.fewReadAt = now;
}

/**
 * Reads strongly what may be out of date among the agents that could serve the need: those thought to have no room, up to
 * `limit`, and those that came or offer more since all were read.
 * @param options `free`: those thought to have room, too; `since`: those that came or offer more since then will do
 */
export async function freshen(
  scope: Scope,
  directory: Directory,
  need: Need,
  limit: number,
  { free = false, since = directory.readAt } = {},
): Promise<void> {
  const ids = new Set<string>();
  if (need.agentId !== undefined) ids.add(need.agentId);
  else {
    for (const id of await offered(scope, since)) ids.add(id);
    const { size } = directory.members;
    let skip = size > probeLimit ? Math.floor(Math.random() * (size - probeLimit)) : 0;
    let looked = 0;
    let wanted = limit;
    for (const member of directory.members.values()) {
      if (skip-- > 0) continue;
      if (++looked > probeLimit || wanted === 0) break;
      if ((!free && freeSlots(member) >= need.slots) || !fits(need, member)) continue;
      ids.add(member.id);
      wanted--;
    }
  }
  await readThese(scope, directory, [...ids]);
}

/** Agents that came, or offer more, since then. */
async function offered(scope: Scope, since: number): Promise<string[]> {
  const pk = offerPartition(scope.tenant);
  const ids = new Set<string>();
  for (let from = sequenceKey(Math.max(0, since - skewMs)); ; ) {
    const page = await scope.ports.store.query({ pk, from, limit: 1000 });
    for (const { agentId } of page.items) ids.add(agentId as string);
    if (page.last === undefined) return [...ids];
    from = `${page.last}!`;
  }
}

async function readThese(scope: Scope, directory: Directory, ids: readonly string[]): Promise<void> {
  const keys = ids.map((id) => agentKey(scope.tenant, id));
  const rows = await getAll(scope.ports.store, keys);
  for (const [at, id] of ids.entries()) learnRow(directory, id, rows[at]);
}

/** When the agents were last read, or some of them. */
export const sampledSince = ({ readAt, sampledAt }: Directory): number => Math.max(readAt, sampledAt);

/** Reads the agents that came, unless that was done a moment ago. Those that are known are not read: they are as they were then. */
export async function meetNewcomers(scope: Scope, directory: Directory): Promise<void> {
  const now = scope.ports.clock.now();
  if (directory.offersAt + knownMs >= now) return;
  const came = await offered(scope, sampledSince(directory));
  await readThese(
    scope,
    directory,
    came.filter((id) => !directory.members.has(id)),
  );
  directory.offersAt = now;
}

/** Many come free together and want the first: those who lost try one a little behind it, of the same priority. */
export function anyOf(keys: readonly string[], missed: number): number {
  const window = Math.min(keys.length, 2 ** missed, readAhead);
  const at = Math.floor(Math.random() * window);
  return keys[at]?.[0] === keys[0]?.[0] ? at : 0;
}

/**
 * The next pass of the task's fair key, counted by the store. The virtual time is not counted, since every task would write
 * it: it is what was noted last, and not less than what is first in the lane.
 */
export async function passFor(scope: Scope, row: Row, head: string | undefined): Promise<string> {
  const { store } = scope.ports;
  const key = fairKey(scope.tenant, row.fairKey ?? "");
  const first = head !== undefined && head[0] === String(9 - row.priority) ? passOf(head) - 1 : 0;
  const [noted, counted] = await Promise.all([
    store.get(virtualTimeKey(scope.tenant)),
    store.write({ update: key, kind: "fair", add: { pass: 1 } }),
  ]);
  const floor = Math.max(first, (noted?.pass as number | undefined) ?? 0);
  let pass = (counted.ok && (counted.item?.pass as number | undefined)) || 1;
  if (pass <= floor) {
    const raised = await store.write({
      update: key,
      kind: "fair",
      set: { pass: floor + 1 },
      if: { lessThan: { pass: floor + 1 } },
    });
    if (raised.ok) pass = floor + 1;
    else {
      const next = await store.write({ update: key, kind: "fair", add: { pass: 1 } });
      pass = (next.ok && (next.item?.pass as number | undefined)) || floor + 1;
    }
  }
  return parkedKey(row.priority, pass, row.id);
}

const virtualTimeStep = 8;

/** Notes the virtual time, now and then. */
export async function passTaken(scope: Scope, directory: Directory): Promise<void> {
  const pass = directory.virtualTime;
  if (pass < directory.virtualTimeStored + virtualTimeStep) return;
  directory.virtualTimeStored = pass;
  const key = virtualTimeKey(scope.tenant);
  const { store } = scope.ports;
  const noted = await store.write({ update: key, kind: "virtual-time", set: { pass }, if: { lessThan: { pass } } });
  if (noted.ok) return;
  if (noted.winner) directory.virtualTimeStored = Math.max(pass, noted.winner.pass as number);
  else await store.write({ put: { ...key, kind: "virtual-time", pass }, if: { exists: false } });
}
