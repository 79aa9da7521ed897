import type * as AgentRow from "../agent/row.ts";
import { isCalled } from "../delivery/schema.ts";
import { createMemory } from "../memory.ts";
import { pages } from "../page.ts";
import { forgetPolicies } from "../policy.ts";
import type { Item, Ports } from "../port/index.ts";
import { agentKey, agentPartition, agentShards, laneKey, lanePartition } from "../rows.ts";
import type * as TaskRow from "../task/row.ts";
import { forgetWakes } from "./gate.ts";
import { createLane, type Lane, mayWait } from "./lane.ts";
import { type Need, refusal } from "./requirement.ts";
import type { Candidate } from "./strategy.ts";
import { type Counted, createTally, recount, type Tally, uncount } from "./tally.ts";

/** Candidates looked at for one task: all of a small fleet, a sample of a large one, so that the cost stays flat. */
const sampleSize = 32;
/** Agents probed for eligibility before a lane is thought to have nobody free. */
export const probeLimit = 2048;

/** One agent as the directory knows it. */
export interface Member extends Candidate {
  row: AgentRow.Row;
  used: number;
  lastAssigned: number;
  assigned: number;
  lastSeenAt: number;
  /** When it was last looked whether it began what it was given. */
  lookedAt: number;
  /** A live connection takes pushes. */
  connected: boolean;
  /** Tasks asked for by waiting lease calls. */
  asked: number;
  /** Of those, being assigned now. */
  reserved: number;
  /** Slots of what is being assigned now. */
  pending: number;
  /** Given to an agent that asks, until a call of it takes them along: a call that just ends must not lose them. */
  mailbox: TaskRow.Row[];
  /** Waiting lease calls, to be woken when the mailbox has something. */
  readonly waiters: Set<() => void>;
  /** Tasks it should stop working on; undefined until read from the store. */
  cancels: Set<string> | undefined;
  completed: number;
  failed: number;
  busyMs: number;
  /** Its waiting work is being taken; `again`: more room came meanwhile. */
  serving: boolean;
  again: boolean;
  /** Lanes it may serve, as far as `laneCount` of the registry was looked at. */
  lanes: Lane[];
  laneCount: number;
  /** Where it stands in the lists of free agents. */
  readonly places: Map<Member[], number>;
  counted: Counted | undefined;
}

/**
 * What matching knows of one tenant's agents and lanes, in memory, so that a match costs no reads. Rebuilt from the
 * store on first use; every writer of agents and lanes in this process tells it. It only proposes: the transaction decides.
 * On a shared store others write too: it is a cache that is read again by age, see `match/shared.ts`.
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

/** Slots it can be given now: none unless somebody is there to receive a task. */
export function freeSlots(member: Member): number {
  if (member.row.state !== "active") return 0;
  const free = member.maxConcurrency - member.used;
  if (free <= 0) return 0;
  if (isCalled(member.row)) return member.row.probing && member.used > 0 ? 0 : free;
  // Its first sign of life may have been taken back by a write that failed: without a lease nobody would see it go.
  if (member.row.expiresAt === undefined) return 0;
  return member.connected || askedFor(member) > 0 ? free : 0;
}

/** Tasks it can be given now, if each needs one slot: as many as calls that wait asked for; one, to see whether it can be reached. */
export function freeTasks(member: Member): number {
  const free = freeSlots(member);
  if (isCalled(member.row)) return member.row.probing ? Math.min(1, free) : free;
  return member.connected ? free : Math.max(0, Math.min(free, askedFor(member)));
}

const askedFor = ({ asked, reserved, mailbox }: Member): number => asked - reserved - mailbox.length;

const directories = createMemory<Promise<Directory>>();
/** Agents with a live connection to this process: known apart from the directory, which may be made anew under them. */
const connections = createMemory<string>();

/** The agent's connection opened or closed. One that was replaced closes nothing; no id closes whichever there is. */
export async function setConnection(
  ports: Ports,
  tenant: string,
  agentId: string,
  connectionId: string | undefined,
  open_: boolean,
): Promise<void> {
  // Its row says which connection it has.
  if (ports.shared) return;
  const own = connections.of(ports);
  const key = `${tenant}/${agentId}`;
  if (open_) own.set(key, connectionId ?? "");
  else if (connectionId === undefined || own.get(key) === connectionId) own.delete(key);
  else return;
  const directory = await open(ports, tenant);
  const member = directory.members.get(agentId);
  if (!member) return;
  member.connected = own.has(key);
  directory.refresh(member);
}

/** Whether this is the connection that the agent has to this process. */
export const hasConnection = (ports: Ports, tenant: string, agentId: string, connectionId: string): boolean =>
  connections.of(ports).get(`${tenant}/${agentId}`) === connectionId;

const starts = new WeakMap<Ports, number>();
/** The server was away until now: agents get a whole lease to be heard of again, attempts a whole heartbeat time. */
export const wasAway = (ports: Ports): void => void starts.set(ports, ports.clock.now());
/** Where others share the store, a process that starts says nothing about whether anybody was away. */
export const backSince = (ports: Ports): number => (ports.shared ? 0 : (starts.get(ports) ?? 0));

/** @param ageMs on a shared store: the agents may have been read so long ago */
export function open(ports: Ports, tenant: string, ageMs?: number): Promise<Directory> {
  if (ports.shared) return openCache(ports, tenant, ageMs);
  const tenants = directories.of(ports);
  let directory = tenants.get(tenant);
  if (!directory) {
    directory = load(ports, tenant);
    tenants.set(tenant, directory);
    directory.catch(() => tenants.delete(tenant));
  }
  return directory;
}

/**
 * The directory, in which this one agent is as the store has it.
 * @param enough what is remembered of the agent will do if this holds; nothing is read then
 */
export function openFor(
  ports: Ports,
  tenant: string,
  agentId: string,
  enough?: (row: AgentRow.Row) => boolean,
): Promise<Directory> {
  return ports.shared ? lookAt(ports, tenant, agentId, enough) : open(ports, tenant);
}

async function lookAt(
  ports: Ports,
  tenant: string,
  agentId: string,
  enough?: (row: AgentRow.Row) => boolean,
): Promise<Directory> {
  const directory = cacheOf(ports, tenant);
  const known = directory.members.get(agentId);
  if (!known || !enough?.(known.row)) learn(directory, agentId, await ports.store.get(agentKey(tenant, agentId)));
  return directory;
}

/** The agent is as this row says, or gone. */
export function learn(directory: Directory, agentId: string, item: Item | undefined): void {
  const row = item as AgentRow.Row | undefined;
  if (row && row.state !== "stopped") directory.set(row);
  else directory.remove(agentId);
}

/** Directories on shared stores. */
const caches = createMemory<Directory>();

export function cacheOf(ports: Ports, tenant: string): Directory {
  const tenants = caches.of(ports);
  let directory = tenants.get(tenant);
  if (!directory) {
    directory = create(() => false, true);
    tenants.set(tenant, directory);
  }
  return directory;
}

/** The directory as this process knows it: nothing is read for one of a shared store. */
export const openKnown = async (ports: Ports, tenant: string): Promise<Directory> =>
  ports.shared ? cacheOf(ports, tenant) : open(ports, tenant);

/**
 * How old the directory of a shared store may be: reading a large fleet costs more, so it is read less often. It proposes and does
 * not decide, and those that come are read apart.
 */
const maxAgeMs = (members: number): number => Math.min(300_000, Math.max(10_000, members * 100));

async function openCache(ports: Ports, tenant: string, ageMs?: number): Promise<Directory> {
  const directory = cacheOf(ports, tenant);
  if (ports.clock.now() - directory.readAt < (ageMs ?? maxAgeMs(directory.members.size))) return directory;
  return readOnce(directory, () => readAgain(ports, tenant, directory));
}

/** Agents of each shard that a sample has: the newest, as among the oldest most have gone. */
const sampledPerShard = 64;

/** The directory of a shared store with a part of a large fleet: for who waits while it is read, and needs only somebody. */
export async function openSample(ports: Ports, tenant: string): Promise<Directory> {
  const directory = cacheOf(ports, tenant);
  const readAt = Math.max(directory.readAt, directory.sampledAt);
  if (ports.clock.now() - readAt < maxAgeMs(directory.members.size)) return directory;
  return readOnce(directory, () => readSample(ports, tenant, directory));
}

async function readOnce(directory: Directory, read: () => Promise<void>): Promise<Directory> {
  directory.reading ??= read().finally(() => {
    directory.reading = undefined;
  });
  await directory.reading;
  return directory;
}

async function readSample(ports: Ports, tenant: string, directory: Directory): Promise<void> {
  const at = ports.clock.now();
  const samples = await Promise.all(
    Array.from({ length: agentShards }, (_, shard) =>
      ports.store.query({ pk: agentPartition(tenant, shard), reverse: true, limit: sampledPerShard }),
    ),
  );
  for (const { items } of samples) for (const item of items) learn(directory, item.sk, item);
  directory.sampledAt = at;
  if (samples.every(({ last }) => last === undefined)) directory.readAt = at;
}

async function readAgain(ports: Ports, tenant: string, directory: Directory): Promise<void> {
  const at = ports.clock.now();
  const gone = new Set(directory.members.keys());
  await Promise.all(
    Array.from({ length: agentShards }, (_, shard) =>
      readAgents(ports, tenant, shard, (row) => {
        directory.set(row);
        gone.delete(row.id);
      }),
    ),
  );
  for (const id of gone) directory.remove(id);
  directory.readAt = at;
}

async function readAgents(
  ports: Ports,
  tenant: string,
  shard: number,
  each: (row: AgentRow.Row) => void,
): Promise<void> {
  for await (const rows of pages(ports.store, agentPartition(tenant, shard), 1000)) {
    for (const row of rows as readonly AgentRow.Row[]) if (row.state !== "stopped") each(row);
  }
}

/** Forgets everything: after the store went back to its durable state. */
export function forget(ports: Ports): void {
  directories.forget(ports);
  caches.forget(ports);
  forgetWakes(ports);
  forgetPolicies(ports);
}

/** The tenants this process works for. */
export const opened = (ports: Ports): string[] => [...(ports.shared ? caches : directories).of(ports).keys()];

async function load(ports: Ports, tenant: string): Promise<Directory> {
  const directory = create((id) => connections.of(ports).has(`${tenant}/${id}`));
  for (let shard = 0; shard < agentShards; shard++)
    await readAgents(ports, tenant, shard, (row) => void directory.set(row));
  const { pk } = laneKey(tenant, "");
  let floor = Number.POSITIVE_INFINITY;
  for await (const lanes of pages(ports.store, pk, 1000)) {
    for (const item of lanes) {
      const page = await ports.store.query({ pk: lanePartition(tenant, item.sk), limit: 1 });
      const head = page.items[0]?.sk;
      if (head === undefined) {
        await ports.store.write({ delete: { pk, sk: item.sk } });
        continue;
      }
      const lane = directory.lane(item.sk, item.need as unknown as Need);
      lane.registered = true;
      floor = Math.min(floor, passOf(head));
    }
  }
  if (floor !== Number.POSITIVE_INFINITY) directory.virtualTime = floor;
  return directory;
}

/** Priority 9 sorts first, then the fair-share pass, then the id. */
export const parkedKey = (priority: number, pass: number, id: string): string =>
  `${9 - priority}#${String(Math.round(pass)).padStart(15, "0")}#${id}`;
export const passOf = (key: string): number => Number(key.slice(2, 17));

export const idOfParked = (key: string): string => key.slice(key.lastIndexOf("#") + 1);

/** A taken task moves the virtual time on. */
export function taken(directory: Directory, key: string): void {
  const pass = passOf(key);
  if (pass > directory.virtualTime) directory.virtualTime = pass;
}

/** Lanes of one agent, beyond which the empty ones are dropped. */
const boundKept = 64;

const inUse = (lane: Lane): boolean => mayWait(lane) || lane.taking.size > 0;

function create(isConnected: (id: string) => boolean, shared = false): Directory {
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
