import { type DeliveryInfo, isCalled } from "../delivery/schema.ts";
import type { JsonText } from "../json.ts";
import type { Item, Update, Value } from "../port/index.ts";
import type { Capability, Info, Status } from "./schema.ts";

/** What is stored; `ready`, `busy` and `connecting` follow from the slots in use and from whether it was ever seen. */
export type State = "active" | "draining" | "paused" | "lost" | "stopped";

/** An agent as stored. Times in milliseconds since 1970. */
export interface Row extends Item {
  readonly kind: "agent";
  readonly id: string;
  readonly tenant: string;
  readonly name: string;
  /** Rises with every change but those of the counters. */
  readonly rev: number;
  readonly state: State;
  /** Lost, and this again when it is back. */
  readonly lostFrom?: "paused" | "draining";
  readonly maxConcurrency: number;
  /** Slots in use. */
  readonly used: number;
  readonly capabilities: readonly Capability[] & Value;
  readonly labels: Readonly<Record<string, string | number>>;
  readonly delivery: DeliveryInfo;
  /** Signs what is sent to a webhook; see `seal`. */
  readonly deliverySecret?: string;
  /** Deliveries that failed in a row, when the first did, and why the last did. */
  readonly misses?: number;
  readonly missedAt?: number;
  readonly missReason?: string;
  /** Times it was tried anew since it was last reached. */
  readonly probes?: number;
  /** Lost, and tried anew with one task at this time. */
  readonly probeAt?: number;
  /** Tried anew: one task at a time, until one is delivered. */
  readonly probing?: boolean;
  readonly leaseSeconds: number;
  readonly createdAt: number;
  /** When it was last registered; a name taken over registers again. */
  readonly registeredAt: number;
  readonly changedAt: number;
  readonly drainedAt?: number;
  readonly tokenHash: string;
  readonly completed: number;
  readonly failed: number;
  /** Time spent on ended attempts. */
  readonly busyMs: number;
  readonly role?: string;
  readonly type?: string;
  readonly description?: string;
  readonly metadata?: JsonText;
  readonly lastSeenAt?: number;
  /** When it counts as lost unless it is heard of. */
  readonly expiresAt?: number;
  /** Being removed: stopped once it holds nothing, at this time at the latest. */
  readonly stopAt?: number;
  readonly deadlineAt?: number;
  /**
   * On a shared store: its connection, through which any process reaches it. There the row also has an attribute for each
   * task it holds (`heldMark`), and for each of those that it should stop working on (`cancelMark`).
   */
  readonly connectionId?: string;
  /**
   * A gateway carries this connection, and ends it at this time at the latest. While it stands and the agent holds nothing, that is
   * its lease; what it is given begins one of `leaseSeconds`.
   */
  readonly carriedUntil?: number;
}

const leaseMs = ({ leaseSeconds }: Row): number => leaseSeconds * 1000;

/** Until when an agent heard of now need not be heard of again. */
export const leaseUntil = (row: Row, now: number, carriedUntil: number | undefined): number =>
  Math.max(now + leaseMs(row), row.used === 0 ? (carriedUntil ?? 0) : 0);

/** Whether its lease is that of its connection, now. */
export const isCarried = (row: Row, now: number): boolean =>
  row.carriedUntil !== undefined && (row.expiresAt ?? 0) > now + leaseMs(row);

/** Names of attributes of the agent's row: read with it, strongly, where lists lag behind. */
export const heldMark = (taskId: string): string => `held:${taskId}`;
export const cancelMark = (taskId: string): string => `cancel:${taskId}`;
const marked = (row: Row, prefix: string): string[] =>
  Object.keys(row).flatMap((name) =>
    name.startsWith(prefix) && row[name] !== undefined ? [name.slice(prefix.length)] : [],
  );
export const heldMarks = (row: Row): string[] => marked(row, heldMark(""));
export const cancelMarks = (row: Row): string[] => marked(row, cancelMark(""));

type Mutable = { -readonly [K in keyof Row]?: Row[K] | undefined };

/** A lost agent is afterwards what it was before: nobody but an operator, or itself, ends a pause. */
function leaving({ state }: Row, to: State | undefined): Mutable {
  if (to === undefined || to === state) return {};
  return { lostFrom: to === "lost" && (state === "paused" || state === "draining") ? state : undefined };
}

/** The next row and the conditional write that makes it so. A field set to undefined is removed. */
export function advance(row: Row, asked: Mutable, now: number): { next: Row; write: Update } {
  const changes = { ...asked, ...leaving(row, asked.state) };
  const merged: Record<string, unknown> = { ...row, ...changes, rev: row.rev + 1, changedAt: now };
  merged.deadlineAt = deadlineOf(merged as Row);
  const set: Record<string, Value> = {};
  const remove: string[] = [];
  for (const name of [...Object.keys(changes), "rev", "changedAt", "deadlineAt"]) {
    if (merged[name] === undefined) {
      delete merged[name];
      if (row[name] !== undefined) remove.push(name);
    } else set[name] = merged[name] as Value;
  }
  const write: Update = {
    update: { pk: row.pk, sk: row.sk },
    kind: "agent",
    set,
    ...(remove.length > 0 && { remove }),
    // What it was given meanwhile did not raise `rev`, and needs a lease of its own.
    if: {
      equals: { rev: row.rev, ...(changes.expiresAt !== undefined && isCarried(merged as Row, now) && { used: 0 }) },
    },
  };
  return { next: merged as Row, write };
}

/** A sign of life: a lost agent is back, and a called one may be called with all it has room for. */
export const heard = (row: Row, now: number): Mutable => ({
  lastSeenAt: now,
  ...(isCalled(row) ? reachable : { expiresAt: leaseUntil(row, now, row.carriedUntil) }),
  ...back(row, now),
});

/** What a lost agent is once it is heard of. */
export const back = ({ state, lostFrom, used, drainedAt }: Row, now: number): Mutable =>
  state !== "lost"
    ? {}
    : {
        state: lostFrom ?? "active",
        ...(lostFrom === "draining" && used === 0 && { drainedAt: drainedAt ?? now }),
      };

/** Nothing is held against it. */
export const reachable: Mutable = {
  misses: undefined,
  missedAt: undefined,
  missReason: undefined,
  probes: undefined,
  probeAt: undefined,
  probing: undefined,
};

export function deadlineOf(row: Row): number | undefined {
  if (row.state === "stopped") return undefined;
  const lease = row.state === "lost" ? row.probeAt : row.expiresAt;
  if (row.stopAt === undefined) return lease;
  return lease === undefined ? row.stopAt : Math.min(lease, row.stopAt);
}

/** @param used slots in use, where that is known better than by the row */
export function statusOf(row: Row, used = row.used): Status {
  if (row.state !== "active") return row.state;
  if (row.probing) return "lost";
  if (row.lastSeenAt === undefined && !isCalled(row)) return "connecting";
  return used >= row.maxConcurrency ? "busy" : "ready";
}

const iso = (at: number) => new Date(at).toISOString();

/** The agent as callers see it. */
export function toInfo(row: Row): Info {
  const ended = row.completed + row.failed;
  return {
    id: row.id,
    name: row.name,
    ...(row.role !== undefined && { role: row.role }),
    ...(row.type !== undefined && { type: row.type }),
    ...(row.description !== undefined && { description: row.description }),
    status: statusOf(row),
    capabilities: [...row.capabilities],
    labels: { ...row.labels },
    maxConcurrency: row.maxConcurrency,
    running: row.used,
    freeSlots: row.state === "active" ? Math.max(0, row.maxConcurrency - row.used) : 0,
    delivery: row.delivery,
    ...(row.misses !== undefined && { deliveryFailures: { count: row.misses, lastError: row.missReason ?? "" } }),
    leaseSeconds: row.leaseSeconds,
    ...(row.metadata !== undefined && { metadata: row.metadata }),
    stats: {
      completed: row.completed,
      failed: row.failed,
      successRate: ended === 0 ? 1 : row.completed / ended,
      averageSeconds: ended === 0 ? 0 : row.busyMs / ended / 1000,
    },
    createdAt: iso(row.createdAt),
    ...(row.lastSeenAt !== undefined && { lastSeenAt: iso(row.lastSeenAt) }),
    ...(row.expiresAt !== undefined && row.state !== "stopped" && { leaseExpiresAt: iso(row.expiresAt) }),
  };
}

/** JSON text of an agent, its metadata exactly as it came. */
export function toJson(info: Info): string {
  const text = JSON.stringify({ ...info, metadata: undefined });
  return info.metadata === undefined ? text : `${text.slice(0, -1)},"metadata":${info.metadata}}`;
}
