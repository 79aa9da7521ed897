import type * as AgentRow from "../agent/row.ts";
import { isCalled } from "../delivery/schema.ts";
import type * as TaskRow from "../task/row.ts";
import type { Lane } from "./lane.ts";
import type { Candidate } from "./strategy.ts";
import type { Counted } from "./tally.ts";

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
