import type { Ports } from "../port/index.ts";
import { lanePartition } from "../rows.ts";
import type { Need } from "./requirement.ts";

/** The waiting tasks of one requirement signature, and who is taking which of them in this process. */
export interface Lane {
  readonly id: string;
  readonly need: Need;
  /** Sort keys of the first waiting tasks that nobody is taking, in order, as far as they were read. */
  heads: string[];
  /** `heads` are all there are. */
  whole: boolean;
  /** Counts arrivals, so that a read knows whether one came meanwhile. */
  arrivals: number;
  /** Being taken now: without this, all agents that come free together would fight for the first. */
  readonly taking: Set<string>;
  /** Its registry row is written. */
  registered: boolean;
  /** On a shared store: when the registry row was last confirmed; an old one may be gone. */
  confirmedAt: number;
  /** On a shared store: when those that could serve it, if they are few, were last read. */
  fewReadAt: number;
  /** On a shared store: when nobody was last found free for it, though looked for. */
  noneAt: number;
  /** Why tasks wait in it, as last worked out. */
  reason: { readonly text: string; readonly at: number } | undefined;
}

const readAhead = 32;
const keptHeads = 256;

export const createLane = (id: string, need: Need): Lane => ({
  id,
  need,
  heads: [],
  whole: false,
  arrivals: 0,
  taking: new Set(),
  registered: false,
  confirmedAt: 0,
  fewReadAt: Number.NEGATIVE_INFINITY,
  noneAt: Number.NEGATIVE_INFINITY,
  reason: undefined,
});

/** Without a read: a task may wait in it. */
export const mayWait = (lane: Lane): boolean => !lane.whole || lane.heads.length > 0;

/** The first waiting task that nobody is taking; null when there is none. */
export async function peek(ports: Ports, tenant: string, lane: Lane): Promise<string | null> {
  while (lane.heads.length === 0) {
    if (lane.whole) return null;
    const { arrivals } = lane;
    const limit = Math.min(1000, readAhead + lane.taking.size);
    const page = await ports.store.query({ pk: lanePartition(tenant, lane.id), limit });
    if (lane.heads.length > 0) break;
    lane.heads = page.items.map((item) => item.sk).filter((key) => !lane.taking.has(key));
    lane.whole = page.last === undefined && arrivals === lane.arrivals;
    // All that was read is being taken, and more may lie behind: what is taken leaves soon.
    if (lane.heads.length === 0 && !lane.whole && page.last !== undefined && limit === 1000) return null;
  }
  return lane.heads[0] as string;
}

/** Takes the first; `settle` or `giveBack` must follow. */
export function claim(lane: Lane): string | undefined {
  const key = lane.heads.shift();
  if (key !== undefined) lane.taking.add(key);
  return key;
}

/** It is no longer in the lane. */
export const settle = (lane: Lane, key: string): boolean => lane.taking.delete(key);

/** It could not be taken and waits on. */
export function giveBack(lane: Lane, key: string): void {
  lane.taking.delete(key);
  insert(lane, key);
}

/** A task ended, or went elsewhere, that nobody was taking. */
export function left(lane: Lane, key: string): void {
  const at = lane.heads.indexOf(key);
  if (at >= 0) lane.heads.splice(at, 1);
}

/** A task was parked in it. */
export function arrived(lane: Lane, key: string): void {
  lane.arrivals++;
  if (lane.whole || key < (lane.heads.at(-1) ?? "")) insert(lane, key);
}

function insert(lane: Lane, key: string): void {
  const { heads } = lane;
  let at = heads.length;
  while (at > 0 && (heads[at - 1] as string) > key) at--;
  if (heads[at - 1] === key) return;
  heads.splice(at, 0, key);
  if (heads.length <= keptHeads) return;
  heads.length = keptHeads / 2;
  lane.whole = false;
}
