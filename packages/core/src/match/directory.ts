import type * as AgentRow from "../agent/row.ts";
import { createLane, type Lane, mayWait } from "./lane.ts";
import { freeSlots, type Member } from "./member.ts";
import { passOf } from "./place.ts";
import { type Need, refusal } from "./requirement.ts";
import { createTally, recount, type Tally, uncount } from "./tally.ts";

/** Candidates looked at for one task: all of a small fleet, a sample of a large one, so that the cost stays flat. */
const sampleSize = 32;
/** Agents looked through, of a large fleet, for those that could serve a task. */
export const probeLimit = 2048;

/**
 * What matching knows of one tenant's agents and lanes, in memory, so that a match costs no reads. Rebuilt from the
 * store on first use; every writer of agents and lanes in this process tells it. It only proposes: the transaction decides.
 * On a shared store others write too: it is a cache that is read again by age, see `cache.ts` and `shared.ts`.
 */
export interface Directory {
  readonly members: Map<string, Member>;
  readonly tally: Tally;
  readonly lanes: Map<string, Lane>;
  /** Lanes without a named agent, in the order they were made. */
  readonly registry: Lane[];
  /** Lanes of tasks that need more than one slot. */
  readonly larger: Set<Lane>;
  /** Lanes of tasks that name their agent, by its id. */
  readonly bound: Map<string, Lane[]>;
  /** The highest pass taken so far: a fair key that comes new starts here. */
  virtualTime: number;
  readonly passes: Map<string, number>;
  /** Remembers the pass given to a fair key; those the virtual time has passed are forgotten. */
  setPass(key: string, pass: number): void;
  assignments: number;
  /** On a shared store: when the agents were last read, all and at least some of them, and those that came since. */
  readAt: number;
  sampledAt: number;
  offersAt: number;
  /** On a shared store: when, and at which version, the lanes were last read, and the virtual time last written. */
  lanesAt: number;
  reading: Promise<void> | undefined;
  lanesVersion: number | undefined;
  virtualTimeStored: number;
  set(row: AgentRow.Row): Member;
  remove(id: string): void;
  /** Call after any change of the agent's row, slots or connection. */
  refresh(member: Member): void;
  lane(id: string, need: Need): Lane;
  /** Forgets all other lanes. */
  keepLanes(wanted: (lane: Lane) => boolean): void;
  /** Lanes with waiting tasks that the agent may serve. */
  lanesOf(member: Member): Lane[];
  /** Free agents that may serve the need, a sample of them in a large fleet. @param only `wanted` ones, and so many at `most` */
  candidates(
    need: Need,
    only?: { readonly wanted?: ((member: Member) => boolean) | undefined; readonly most?: number },
  ): { found: Member[]; free: number };
}

/** A taken task moves the virtual time on. */
export function taken(directory: Directory, key: string): void {
  const pass = passOf(key);
  if (pass > directory.virtualTime) directory.virtualTime = pass;
}

/** Lanes of one agent, beyond which the empty ones are dropped. */
const boundKept = 64;

const inUse = (lane: Lane): boolean => mayWait(lane) || lane.taking.size > 0;

/** @param shared others change the agents, too: what is known of one is what its row says */
export function createDirectory(isConnected: (id: string) => boolean, shared = false): Directory {
  let passesKept = 10_000;
  let lanesKept = 4096;
  const dropLane = (lane: Lane) => {
    directory.lanes.delete(lane.id);
    directory.larger.delete(lane);
  };
  /** Signatures people make up as they go must not pile up: empty lanes are dropped, and made again when needed. */
  const dropEmptyLanes = () => {
    const kept = directory.registry.filter(inUse);
    for (const lane of directory.registry) if (!inUse(lane)) dropLane(lane);
    directory.registry.splice(0, directory.registry.length, ...kept);
    sortOutLanes();
    lanesKept = Math.max(4096, kept.length * 2);
  };
  /** The same for the lanes of tasks that name this agent. */
  const boundTo = (agentId: string): Lane[] => {
    const lanes = directory.bound.get(agentId) ?? [];
    if (lanes.length < boundKept) return lanes;
    for (const lane of lanes) if (!inUse(lane)) dropLane(lane);
    return lanes.filter(inUse);
  };
  /** Every agent works out anew which lanes it may serve. */
  const sortOutLanes = () => {
    for (const member of directory.members.values()) {
      member.lanes = [];
      member.laneCount = 0;
    }
  };
  const byCapability = new Map<string, Member[]>();
  const everybody: Member[] = [];
  const listsOf = (member: Member): Member[][] => {
    const lists = [everybody];
    for (const name of member.capabilities.keys()) {
      const list = byCapability.get(name) ?? [];
      byCapability.set(name, list);
      lists.push(list);
    }
    return lists;
  };
  const leave = (member: Member) => {
    for (const [list, place] of member.places) {
      const last = list.pop() as Member;
      if (last !== member) {
        list[place] = last;
        last.places.set(list, place);
      }
    }
    member.places.clear();
  };

  const directory: Directory = {
    members: new Map(),
    tally: createTally(),
    lanes: new Map(),
    registry: [],
    larger: new Set(),
    bound: new Map(),
    virtualTime: 0,
    passes: new Map(),
    setPass(key, pass) {
      directory.passes.set(key, pass);
      if (directory.passes.size < passesKept) return;
      for (const [other, at] of directory.passes) if (at <= directory.virtualTime) directory.passes.delete(other);
      passesKept = Math.max(10_000, directory.passes.size * 2);
    },
    assignments: 0,
    readAt: Number.NEGATIVE_INFINITY,
    sampledAt: Number.NEGATIVE_INFINITY,
    offersAt: Number.NEGATIVE_INFINITY,
    lanesAt: Number.NEGATIVE_INFINITY,
    reading: undefined,
    lanesVersion: undefined,
    virtualTimeStored: 0,
    set(row) {
      const known = directory.members.get(row.id);
      if (known && known.row.rev > row.rev) return known;
      const offerChanged =
        !known ||
        (shared
          ? known.row.rev !== row.rev
          : known.row.capabilities !== row.capabilities ||
            known.row.labels !== row.labels ||
            known.row.role !== row.role ||
            known.maxConcurrency !== row.maxConcurrency);
      if (known && offerChanged) leave(known);
      const member: Member = Object.assign(known ?? ({ places: new Map() } as Member), {
        id: row.id,
        row,
        ...(offerChanged && {
          capabilities: new Map(
            row.capabilities.map((own) => [own.name, { level: own.level ?? 1, cost: own.cost ?? 0 }]),
          ),
          labels: row.labels,
          role: row.role,
          maxConcurrency: row.maxConcurrency,
          lanes: [],
          laneCount: 0,
        }),
        ...(!known && {
          used: row.used,
          completed: row.completed,
          failed: row.failed,
          busyMs: row.busyMs,
          lastAssigned: 0,
          assigned: row.completed + row.failed,
          lastSeenAt: row.lastSeenAt ?? 0,
          lookedAt: 0,
          connected: isConnected(row.id),
          asked: 0,
          reserved: 0,
          pending: 0,
          mailbox: [],
          waiters: new Set(),
          serving: false,
          again: false,
          cancels: undefined,
          counted: undefined,
        }),
      });
      if (shared) {
        member.connected = row.connectionId !== undefined;
        // While it is being given something here, its row is a moment behind.
        member.used = row.used + member.pending;
        member.completed = row.completed;
        member.failed = row.failed;
        member.busyMs = row.busyMs;
      }
      directory.members.set(row.id, member);
      directory.refresh(member);
      return member;
    },
    remove(id) {
      const member = directory.members.get(id);
      if (!member) return;
      leave(member);
      uncount(directory.tally, member);
      directory.members.delete(id);
    },
    refresh(member) {
      // What was proposed of it may end after it has gone.
      if (directory.members.get(member.id) !== member) return;
      recount(directory.tally, member);
      const free = freeSlots(member) > 0;
      if (free === member.places.size > 0) return;
      if (!free) return leave(member);
      for (const list of listsOf(member)) member.places.set(list, list.push(member) - 1);
    },
    lane(id, need) {
      let lane = directory.lanes.get(id);
      if (!lane) {
        if (directory.registry.length >= lanesKept) dropEmptyLanes();
        lane = createLane(id, need);
        directory.lanes.set(id, lane);
        if (need.slots > 1) directory.larger.add(lane);
        if (need.agentId === undefined) directory.registry.push(lane);
        else directory.bound.set(need.agentId, [...boundTo(need.agentId), lane]);
      }
      return lane;
    },
    keepLanes(wanted) {
      for (const lane of directory.lanes.values()) if (!wanted(lane)) dropLane(lane);
      const kept = [...directory.lanes.values()];
      directory.registry.splice(
        0,
        directory.registry.length,
        ...kept.filter((lane) => lane.need.agentId === undefined),
      );
      directory.bound.clear();
      for (const lane of kept) {
        if (lane.need.agentId === undefined) continue;
        directory.bound.set(lane.need.agentId, [...(directory.bound.get(lane.need.agentId) ?? []), lane]);
      }
      sortOutLanes();
    },
    lanesOf(member) {
      for (; member.laneCount < directory.registry.length; member.laneCount++) {
        const lane = directory.registry[member.laneCount] as Lane;
        if (refusal(lane.need, member) === undefined) member.lanes.push(lane);
      }
      const waiting = member.lanes.filter(mayWait);
      for (const lane of directory.bound.get(member.id) ?? [])
        if (mayWait(lane) && refusal(lane.need, member) === undefined) waiting.push(lane);
      return waiting;
    },
    candidates(need, { wanted, most = sampleSize } = {}) {
      const fits = (member: Member) =>
        freeSlots(member) >= need.slots && refusal(need, member) === undefined && (wanted?.(member) ?? true);
      if (need.agentId !== undefined) {
        const member = directory.members.get(need.agentId);
        const found = member && fits(member) ? [member] : [];
        return { found, free: found.length };
      }
      let pool = everybody;
      for (const { capability } of need.requires) {
        const list = byCapability.get(capability);
        if (!list) return { found: [], free: 0 };
        if (list.length < pool.length) pool = list;
      }
      const found: Member[] = [];
      const { length } = pool;
      // A random start spreads the choice over a large fleet; a small one is looked at whole.
      const start = length > sampleSize ? Math.floor(Math.random() * length) : 0;
      for (let i = 0; i < length && i < probeLimit && found.length < most; i++) {
        const member = pool[(start + i) % length] as Member;
        if (fits(member)) found.push(member);
      }
      return { found, free: length };
    },
  };
  return directory;
}
