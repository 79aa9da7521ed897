import * as z from "zod";
import { integer, name, number, pageLimit, text } from "../fields.ts";
import { isId } from "../id.ts";
import { jsonText } from "../json.ts";
import { defaultCancelGraceSeconds, defaultRetry } from "./defaults.ts";

export const statuses = [
  "scheduled",
  "queued",
  "assigned",
  "running",
  "input_required",
  "completed",
  "failed",
  "cancelled",
  "expired",
] as const;
export type Status = (typeof statuses)[number];

export const strategies = [
  "best_fit",
  "least_loaded",
  "round_robin",
  "weighted",
  "sticky",
  "cheapest",
  "fastest",
  "random_two",
] as const;
export type Strategy = (typeof strategies)[number];

const day = 86_400;
/** RFC 3339 has no way to write it. */
const yearTenThousand = Date.UTC(10_000, 0);

export const Requirement = z.strictObject({
  capability: name(),
  minLevel: number(0, 1).optional(),
});

const scalar = z.union([text(256), number()]);
export const Selector = z
  .strictObject({
    key: name(64),
    op: z.enum(["eq", "ne", "in", "exists", "gt", "gte", "lt", "lte"]),
    value: z.union([text(256), number(), z.boolean(), z.array(scalar).min(1).max(50)]).optional(),
    required: z.boolean().default(true),
    weight: number(-100, 100).optional(),
  })
  .superRefine((selector, ctx) => {
    const wrong = (message: string) => ctx.addIssue({ code: "custom", path: ["value"], message });
    if (selector.op === "in") {
      if (!Array.isArray(selector.value)) wrong("expected a list of strings or numbers with op in");
    } else if (selector.op === "exists") {
      if (selector.value !== undefined && typeof selector.value !== "boolean")
        wrong("expected true, false or nothing with op exists");
    } else if (selector.op === "eq" || selector.op === "ne") {
      if (typeof selector.value !== "string" && typeof selector.value !== "number")
        wrong(`expected a string or number with op ${selector.op}`);
    } else if (typeof selector.value !== "number") wrong(`expected a number with op ${selector.op}`);
  });

export const Timeouts = z.strictObject({
  /** Schedule-to-start: from queued to started. Over: `expired`. */
  queueSeconds: number(0.1, 30 * day).optional(),
  /** Start-to-close of one attempt. Over: the attempt failed, retried as the policy says. */
  runSeconds: number(0.1, 30 * day).optional(),
  /** Schedule-to-close of all attempts. Over: `expired`. */
  totalSeconds: number(0.1, 366 * day).optional(),
  /** The longest silence of a running attempt. Over: as runSeconds. */
  heartbeatSeconds: number(0.1, day).optional(),
});

export const Retry = z.strictObject({
  /** Attempts in all, the first included. */
  maxAttempts: integer(1, 100).default(defaultRetry.maxAttempts),
  initialSeconds: number(0, day).default(defaultRetry.initialSeconds),
  factor: number(1, 10).default(defaultRetry.factor),
  maxSeconds: number(0, day).default(defaultRetry.maxSeconds),
  /** Error codes that end the task at once. */
  nonRetryable: z.array(name()).max(50).default([]),
});

export const ConcurrencyLimit = z.strictObject({ key: name(256), limit: integer(1, 1_000_000) });
export const RateLimit = z.strictObject({
  key: name(256),
  limit: number(0.001, 1_000_000),
  perSeconds: number(0.001, day),
  weight: number(0, 1_000_000).optional(),
});

const fields = {
  type: name(),
  input: jsonText().optional(),
  description: text(4096).optional(),
  /** 9 first. */
  priority: integer(0, 9).default(5),
  requires: z.array(Requirement).max(64).default([]),
  labels: z.array(Selector).max(64).default([]),
  agentId: name(64).optional(),
  role: name().optional(),
  stickyKey: name(256).optional(),
  strategy: z.enum(strategies).default("best_fit"),
  slots: integer(1, 1000).default(1),
  delaySeconds: number(0, 366 * day).optional(),
  notBefore: z.iso
    .datetime({ offset: true, error: "expected an RFC 3339 time with seconds and zone, as 2030-01-31T12:00:00Z" })
    .refine((text) => !(Date.parse(text) >= yearTenThousand), "expected a time before the year 10000")
    .optional(),
  dependsOn: z.array(name()).max(100).default([]),
  parentId: name(64).optional(),
  timeouts: Timeouts.prefault({}),
  cancelGraceSeconds: number(0, 3600).default(defaultCancelGraceSeconds),
  retry: Retry.prefault({}),
  concurrency: z.array(ConcurrencyLimit).max(8).default([]),
  rate: RateLimit.optional(),
  fairKey: name(256).optional(),
  tags: z.array(name()).max(50).default([]),
  metadata: jsonText().optional(),
} as const;

const oneStart = (task: { delaySeconds?: number | undefined; notBefore?: string | undefined }) =>
  task.delaySeconds === undefined || task.notBefore === undefined;
const oneStartMessage = { path: ["notBefore"], message: "give delaySeconds or notBefore, not both" };

export const Create = z
  .strictObject({
    ...fields,
    /**
     * Chosen by the caller, which makes asking again harmless and costs no write of its own, as an Idempotency-Key does:
     * the same task again is answered as it stands, another one under the same id is refused.
     */
    id: z
      .string()
      .refine((id) => isId("tsk", id), "expected tsk_ and 22 characters of 0-9 a-z without i l o u")
      .optional(),
  })
  .refine(oneStart, oneStartMessage);
export const BatchEntry = z.strictObject({ ...fields, ref: name().optional() }).refine(oneStart, oneStartMessage);
export const tasksOfBatch = 100;
/** `tasks` entries are checked one by one, so that a bad one spoils no other. */
export const CreateBatch = z.strictObject({
  /** An entry that could not be read is the problem it is refused with. */
  tasks: z.array(z.unknown()).min(1).max(tasksOfBatch),
  atomic: z.boolean().default(false),
});
export type Create = z.output<typeof Create>;
export type BatchEntry = z.output<typeof BatchEntry>;
export type Requirement = z.output<typeof Requirement>;
export type Selector = z.output<typeof Selector>;

const fence = integer(1);
const take = integer(0, 100).optional();
export const Problem = z.strictObject({
  code: name(),
  message: text(16_384),
  retryable: z.boolean().optional(),
});

export const Start = z.strictObject({ fence });
export const Heartbeat = z.strictObject({
  fence,
  progress: z.strictObject({ percent: number(0, 100).optional(), message: text(1024).optional() }).optional(),
  /** Comes back to the next attempt as `task.details`. */
  details: jsonText().optional(),
});
/** `usage.units` corrects the weight of the task's rate limit after the call. */
export const Usage = z
  .record(name(64), number(0))
  .refine((usage) => Object.keys(usage).length <= 32, "at most 32 entries");
export const Complete = z.strictObject({ fence, result: jsonText().optional(), usage: Usage.optional(), take });
export const Fail = z.strictObject({ fence, error: Problem, usage: Usage.optional(), take });
export const Release = z.strictObject({ fence, reason: text(1024).optional(), take });
export const Cancel = z.strictObject({ reason: text(1024).optional() });
export const ListQuery = z.strictObject({
  limit: pageLimit(50),
  cursor: text(1024).optional(),
  status: z.enum(statuses).optional(),
  type: name().optional(),
  agentId: name(64).optional(),
  tag: name().optional(),
  parentId: name(64).optional(),
});

const time = z.iso.datetime({ precision: 3 });
/** A task as callers see it. */
export const Info = z.object({
  id: z.string(),
  type: z.string(),
  status: z.enum(statuses),
  description: z.string().optional(),
  input: jsonText().optional(),
  result: jsonText().optional(),
  error: z.object({ code: z.string(), message: z.string(), retryable: z.boolean().optional() }).optional(),
  usage: z.record(z.string(), z.number()).optional(),
  priority: z.number(),
  requires: z.array(Requirement),
  labels: z.array(z.unknown()),
  role: z.string().optional(),
  /** The agent asked for. */
  boundAgentId: z.string().optional(),
  stickyKey: z.string().optional(),
  strategy: z.enum(strategies),
  slots: z.number(),
  attempt: z.number(),
  maxAttempts: z.number(),
  fence: z.number(),
  /** The agent that has or last had it. */
  agentId: z.string().optional(),
  decision: z.object({ strategy: z.string(), score: z.number(), reasons: z.array(z.string()) }).optional(),
  waiting: z.object({ reason: z.string(), since: time }).optional(),
  progress: z.object({ percent: z.number().optional(), message: z.string().optional() }).optional(),
  details: jsonText().optional(),
  dependsOn: z.array(z.string()),
  parentId: z.string().optional(),
  depth: z.number(),
  timeouts: Timeouts,
  /** How long its agent has to stop once it is cancelled. */
  cancelGraceSeconds: z.number(),
  retry: Retry,
  concurrency: z.array(ConcurrencyLimit),
  rate: RateLimit.optional(),
  fairKey: z.string().optional(),
  tags: z.array(z.string()),
  metadata: jsonText().optional(),
  traceparent: z.string().optional(),
  cancelRequested: z.boolean().optional(),
  /** The newest 50 changes of status. */
  history: z.array(
    z.object({
      at: time,
      status: z.enum(statuses),
      attempt: z.number(),
      agentId: z.string().optional(),
      reason: z.string().optional(),
    }),
  ),
  createdAt: time,
  /** Not before this. */
  scheduledAt: time.optional(),
  queuedAt: time.optional(),
  assignedAt: time.optional(),
  startedAt: time.optional(),
  finishedAt: time.optional(),
  /** The nearest time at which something will be done about it. */
  deadlineAt: time.optional(),
  /** Of one that has ended: it is deleted some time after this. */
  keptUntil: time.optional(),
});
export type Info = z.output<typeof Info>;

export const Assignment = z.object({
  task: Info,
  fence: z.number(),
  expiresAt: time,
  /** The task is too large for a message of this connection, or too much is unread on it: get it to have its input, metadata, details and labels. */
  inputOmitted: z.boolean().optional(),
});
export type Assignment = z.output<typeof Assignment>;
