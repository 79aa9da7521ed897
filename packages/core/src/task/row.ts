import type { JsonText } from "../json.ts";
import { why } from "../match/strategy.ts";
import type { Item, Update, Value } from "../port/index.ts";
import { defaultCancelGraceSeconds, defaultRetry, limits } from "./defaults.ts";
import type { Assignment, Info, Requirement, Selector, Status, Strategy } from "./schema.ts";

/** `[at, status, attempt, agentId | "", reason | ""]` */
export type HistoryEntry = readonly [number, Status, number, string, string];

/** A task as stored. Times in milliseconds since 1970. */
export interface Row extends Item {
  readonly kind: "task";
  readonly id: string;
  readonly tenant: string;
  /** Rises with every change; each change is conditional on it. */
  readonly rev: number;
  readonly type: string;
  readonly status: Status;
  readonly priority: number;
  readonly attempt: number;
  readonly fence: number;
  readonly slots: number;
  readonly depth: number;
  readonly strategy: Strategy;
  /** The waiting lane it belongs to. */
  readonly lane: string;
  readonly createdAt: number;
  readonly history: readonly HistoryEntry[];
  readonly input?: JsonText;
  readonly inputBlob?: string;
  readonly result?: JsonText;
  readonly resultBlob?: string;
  /** Of what is kept as blobs. */
  readonly inputBytes?: number;
  readonly resultBytes?: number;
  readonly metadata?: JsonText;
  readonly details?: JsonText;
  readonly description?: string;
  readonly requires?: readonly Requirement[] & Value;
  readonly labels?: readonly Selector[] & Value;
  readonly boundAgentId?: string;
  readonly role?: string;
  readonly stickyKey?: string;
  readonly dependsOn?: readonly string[];
  /** Dependencies that have not ended yet. */
  readonly unmet?: readonly string[];
  /** Somebody depends on it. */
  readonly dependants?: boolean;
  readonly parentId?: string;
  readonly timeouts?: {
    readonly queueSeconds?: number;
    readonly runSeconds?: number;
    readonly totalSeconds?: number;
    readonly heartbeatSeconds?: number;
  };
  readonly retry?: {
    readonly maxAttempts: number;
    readonly initialSeconds: number;
    readonly factor: number;
    readonly maxSeconds: number;
    readonly nonRetryable: readonly string[];
  };
  readonly cancelGraceSeconds?: number;
  readonly concurrency?: readonly { readonly key: string; readonly limit: number }[];
  readonly rate?: {
    readonly key: string;
    readonly limit: number;
    readonly perSeconds: number;
    readonly weight?: number;
  };
  readonly fairKey?: string;
  readonly tags?: readonly string[];
  readonly traceparent?: string;
  /** Caused by an event, which may have been caused by a task: how many times so far. */
  readonly hops?: number;
  readonly agentId?: string;
  /** `[strategy, score, looked at, free, used, max, reason]` */
  readonly decision?: readonly [string, number, number, number, number, number, string];
  /** Sort key of its row among the waiting; `gate` is set while it waits for a limit. */
  readonly parked?: string;
  readonly gate?: string;
  readonly waitingReason?: string;
  readonly waitingSince?: number;
  readonly progress?: { readonly percent?: number; readonly message?: string };
  readonly cancelAt?: number;
  readonly error?: { readonly code: string; readonly message: string; readonly retryable?: boolean };
  readonly usage?: Readonly<Record<string, number>>;
  readonly scheduledAt?: number;
  readonly queuedAt?: number;
  readonly assignedAt?: number;
  readonly startedAt?: number;
  readonly beatAt?: number;
  /**
   * Its agent is called (`isCalled`), and this is that agent's lease: without a time limit of its own, the attempt may be
   * silent so long once it was accepted. A called agent has no heartbeat that would end it.
   */
  readonly silenceSeconds?: number;
  readonly finishedAt?: number;
  readonly deadlineAt?: number;
  /** Of one that has ended: deleted some time after this. */
  readonly expiresAt?: number;
}

export const retryOf = (row: Row) => row.retry ?? defaultRetry;

export const terminal: ReadonlySet<Status> = new Set<Status>(["completed", "failed", "cancelled", "expired"]);
/** An agent holds it. */
export const held: ReadonlySet<Status> = new Set<Status>(["assigned", "running", "input_required"]);

/** The agent has it, or had it as far back as its history goes. */
export const wasWith = (row: Row, agentId: string): boolean =>
  row.agentId === agentId || row.history.some(([, , , had]) => had === agentId);

/** From each status, the ones that may follow. */
export const transitions: Readonly<Record<Status, readonly Status[]>> = {
  scheduled: ["queued", "failed", "cancelled", "expired"],
  queued: ["assigned", "cancelled", "expired", "failed"],
  assigned: ["running", "completed", "failed", "cancelled", "expired", "queued", "scheduled"],
  running: ["input_required", "completed", "failed", "cancelled", "expired", "queued", "scheduled"],
  input_required: ["running", "completed", "failed", "cancelled", "expired", "queued", "scheduled"],
  completed: [],
  failed: ["queued", "scheduled"],
  cancelled: ["queued", "scheduled"],
  expired: ["queued", "scheduled"],
};

/**
 * An assignment that could not be delivered within this time has failed; tries are over long before, unless their messages were lost.
 * One that an agent asked for and did not begin goes to others.
 */
export const deliverySeconds = 900;

/** The longest silence of a running attempt. */
export const silenceOf = ({ timeouts, silenceSeconds }: Row): number | undefined =>
  timeouts?.heartbeatSeconds ?? (timeouts?.runSeconds === undefined ? silenceSeconds : undefined);

/** What is asked of an agent, beside the input. It never changes. */
export const askedFields = [
  ...(["type", "description", "priority", "requires", "labels", "boundAgentId", "role", "stickyKey"] as const),
  ...(["strategy", "slots", "dependsOn", "parentId", "timeouts", "retry", "concurrency", "rate"] as const),
  ...(["fairKey", "tags"] as const),
];

type Mutable = { -readonly [K in keyof Row]?: Row[K] | undefined };

/** The next row and the conditional write that makes it so. A field set to undefined is removed. */
export function advance(
  row: Row,
  changes: Mutable,
  entry?: { at: number; reason?: string },
): { next: Row; write: Update } {
  const status = changes.status ?? row.status;
  if (status !== row.status && !transitions[row.status].includes(status))
    throw new Error(`no way from ${row.status} to ${status}`);
  const merged: Record<string, unknown> = { ...row };
  const set: Record<string, Value> = {};
  const remove: string[] = [];
  const put = (name: string, value: unknown) => {
    if (value === undefined) {
      if (merged[name] === undefined) return;
      remove.push(name);
    } else set[name] = value as Value;
    merged[name] = value;
  };
  for (const name in changes) put(name, changes[name]);
  put("rev", row.rev + 1);
  if (entry) {
    const next = merged as Row;
    put("history", continued(row.history, [entry.at, status, next.attempt, next.agentId ?? "", entry.reason ?? ""]));
  }
  put("deadlineAt", deadlineOf(merged as Row));
  const write: Update = {
    update: { pk: row.pk, sk: row.sk },
    kind: "task",
    set,
    ...(remove.length > 0 && { remove }),
    if: { equals: { rev: row.rev } },
  };
  return { next: merged as Row, write };
}

/**
 * The row with all that its completion says. Where it was completed unread (`completeUnread`), the last entry of the history and the
 * start of an attempt that told of none are not stored: both follow from what is.
 */
export function whole(row: Row): Row {
  const { status, history, finishedAt, attempt, agentId = "" } = row;
  if (status !== "completed" || history.at(-1)?.[1] === "completed") return row;
  return {
    ...row,
    startedAt: row.startedAt ?? row.assignedAt,
    history: continued(history, [finishedAt as number, status, attempt, agentId, ""]),
  } as Row;
}

const continued = (history: Row["history"], entry: HistoryEntry): HistoryEntry[] => [
  ...(history.length >= limits.history ? history.slice(1 - limits.history) : history),
  entry,
];

/** The nearest time at which something is due, or undefined. */
export function deadlineOf(row: Row): number | undefined {
  if (terminal.has(row.status)) return undefined;
  const { timeouts } = row;
  let at = Number.POSITIVE_INFINITY;
  if (timeouts?.totalSeconds !== undefined) at = Math.min(at, row.createdAt + timeouts.totalSeconds * 1000);
  if (row.cancelAt !== undefined) at = Math.min(at, row.cancelAt);
  if (row.status === "scheduled") {
    if (row.scheduledAt !== undefined && !row.unmet?.length) at = Math.min(at, row.scheduledAt);
  } else if (row.status === "queued" || row.status === "assigned") {
    if (timeouts?.queueSeconds !== undefined && row.queuedAt !== undefined)
      at = Math.min(at, row.queuedAt + timeouts.queueSeconds * 1000);
    if (row.status === "assigned" && row.silenceSeconds !== undefined && row.assignedAt !== undefined)
      at = Math.min(at, row.assignedAt + deliverySeconds * 1000);
  } else if (row.startedAt !== undefined) {
    if (timeouts?.runSeconds !== undefined) at = Math.min(at, row.startedAt + timeouts.runSeconds * 1000);
    const silence = silenceOf(row);
    if (silence !== undefined) at = Math.min(at, (row.beatAt ?? row.startedAt) + silence * 1000);
  }
  return at === Number.POSITIVE_INFINITY ? undefined : Math.ceil(at);
}

let second = Number.NaN;
let secondText = "";
/** RFC 3339 with milliseconds. Times of tasks come in bursts of the same second, whose text is made once. */
function iso(at: number): string {
  const whole = Math.floor(at / 1000);
  if (whole !== second) {
    secondText = new Date(whole * 1000).toISOString().slice(0, 20);
    second = whole;
  }
  const ms = Math.floor(at) - whole * 1000;
  return `${secondText}${ms < 10 ? "00" : ms < 100 ? "0" : ""}${ms}Z`;
}

/** The task as callers see it. */
export function toInfo(stored: Row): Info {
  const row = whole(stored);
  const info: Record<string, unknown> = {
    id: row.id,
    type: row.type,
    status: row.status,
    description: row.description,
    input: row.input,
    result: row.result,
    error: row.error,
    usage: row.usage,
    priority: row.priority,
    requires: row.requires ?? [],
    labels: row.labels ?? [],
    role: row.role,
    boundAgentId: row.boundAgentId,
    stickyKey: row.stickyKey,
    strategy: row.strategy,
    slots: row.slots,
    attempt: row.attempt,
    maxAttempts: retryOf(row).maxAttempts,
    fence: row.fence,
    agentId: row.agentId,
    progress: row.progress,
    details: row.details,
    dependsOn: row.dependsOn ?? [],
    parentId: row.parentId,
    depth: row.depth,
    timeouts: row.timeouts ?? {},
    cancelGraceSeconds: row.cancelGraceSeconds ?? defaultCancelGraceSeconds,
    retry: retryOf(row),
    concurrency: row.concurrency ?? [],
    rate: row.rate,
    fairKey: row.fairKey,
    tags: row.tags ?? [],
    metadata: row.metadata,
    traceparent: row.traceparent,
    history: row.history.map(([at, status, attempt, agentId, reason]) => ({
      at: iso(at),
      status,
      attempt,
      ...(agentId && { agentId }),
      ...(reason && { reason }),
    })),
    createdAt: iso(row.createdAt),
  };
  if (row.cancelAt !== undefined) info.cancelRequested = true;
  if (row.decision) {
    const [strategy, score, seen, free, used, max, reason] = row.decision;
    info.decision = {
      strategy,
      score,
      reasons: [
        `${seen} of ${free} free agents looked at`,
        `${used} of its ${max} slots were in use`,
        reason || why[strategy as Strategy](score),
      ],
    };
  }
  if (row.waitingReason !== undefined && !terminal.has(row.status)) {
    info.waiting = { reason: row.waitingReason, since: iso(row.waitingSince ?? row.createdAt) };
  }
  for (const name of ["scheduledAt", "queuedAt", "assignedAt", "startedAt", "finishedAt", "deadlineAt"] as const) {
    const at = row[name];
    if (at !== undefined) info[name] = iso(at);
  }
  if (row.expiresAt !== undefined) info.keptUntil = iso(row.expiresAt);
  return info as Info;
}

/** What a task counts for beside its payloads, in bytes. */
export const taskBytes = 1024;
/** Of a payload, in UTF-8. */
export const payloadBytes = (text: string | undefined): number => (text === undefined ? 0 : Buffer.byteLength(text));
export const payloads = ["input", "result", "metadata", "details"] as const;

/** JSON text of a task, its payloads exactly as they came. */
export function toJson(info: Info): string {
  let text = JSON.stringify({
    ...info,
    input: undefined,
    result: undefined,
    metadata: undefined,
    details: undefined,
  }).slice(0, -1);
  for (const name of payloads) {
    const payload = info[name];
    if (payload !== undefined) text += `,"${name}":${payload}`;
  }
  return `${text}}`;
}

export const assignmentJson = (assignment: Assignment): string =>
  `{"task":${toJson(assignment.task)},"fence":${assignment.fence},"expiresAt":"${assignment.expiresAt}"${assignment.inputOmitted ? ',"inputOmitted":true' : ""}}`;

/** Why an attempt that ended so may not be tried again; undefined when it may. */
export function exhausted(row: Row, error: { code: string; retryable?: boolean | undefined }): string | undefined {
  const retry = retryOf(row);
  if (error.retryable === false) return "the error is not retryable";
  if (retry.nonRetryable.includes(error.code)) return `code ${error.code} is not retried`;
  if (row.attempt >= retry.maxAttempts) return `attempt ${row.attempt} of ${retry.maxAttempts} was the last`;
  return undefined;
}

/**
 * Full jitter: a random time up to the capped exponential.
 * Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
 * @param unit a random number in [0, 1)
 */
export function backoffSeconds(row: Row, unit: number): number {
  const { initialSeconds, factor, maxSeconds } = retryOf(row);
  return Math.min(maxSeconds, initialSeconds * factor ** Math.max(0, row.attempt - 1)) * unit;
}
