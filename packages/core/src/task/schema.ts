import * as z from "zod/mini";
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
  minLevel: z.optional(number(0, 1)),
});

const scalar = z.union([text(256), number()]);
export const Selector = z
  .strictObject({
    key: name(64),
    op: z.enum(["eq", "ne", "in", "exists", "gt", "gte", "lt", "lte"]),
    value: z.optional(
      z.union([text(256), number(), z.boolean(), z.array(scalar).check(z.minLength(1), z.maxLength(50))]),
    ),
    required: z._default(z.boolean(), true),
    weight: z.optional(number(-100, 100)),
  })
  .check(
    z.superRefine((selector, ctx) => {
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
    }),
  );

export const Timeouts = z.strictObject({
  /** Schedule-to-start: from queued to started. Over: `expired`. */
  queueSeconds: z.optional(number(0.1, 30 * day)),
  /** Start-to-close of one attempt. Over: the attempt failed, retried as the policy says. */
  runSeconds: z.optional(number(0.1, 30 * day)),
  /** Schedule-to-close of all attempts. Over: `expired`. */
  totalSeconds: z.optional(number(0.1, 366 * day)),
  /** The longest silence of a running attempt. Over: as runSeconds. */
  heartbeatSeconds: z.optional(number(0.1, day)),
});

export const Retry = z.strictObject({
  /** Attempts in all, the first included. */
  maxAttempts: z._default(integer(1, 100), defaultRetry.maxAttempts),
  initialSeconds: z._default(number(0, day), defaultRetry.initialSeconds),
  factor: z._default(number(1, 10), defaultRetry.factor),
  maxSeconds: z._default(number(0, day), defaultRetry.maxSeconds),
  /** Error codes that end the task at once. */
  nonRetryable: z._default(z.array(name()).check(z.maxLength(50)), []),
});

export const ConcurrencyLimit = z.strictObject({ key: name(256), limit: integer(1, 1_000_000) });
export const RateLimit = z.strictObject({
  key: name(256),
  limit: number(0.001, 1_000_000),
  perSeconds: number(0.001, day),
  weight: z.optional(number(0, 1_000_000)),
});

const fields = {
  type: name(),
  input: z.optional(jsonText()),
  description: z.optional(text(4096)),
  /** 9 first. */
  priority: z._default(integer(0, 9), 5),
  requires: z._default(z.array(Requirement).check(z.maxLength(64)), []),
  labels: z._default(z.array(Selector).check(z.maxLength(64)), []),
  agentId: z.optional(name(64)),
  role: z.optional(name()),
  stickyKey: z.optional(name(256)),
  strategy: z._default(z.enum(strategies), "best_fit"),
  slots: z._default(integer(1, 1000), 1),
  delaySeconds: z.optional(number(0, 366 * day)),
  notBefore: z.optional(
    z.iso
      .datetime({ offset: true, error: "expected an RFC 3339 time with seconds and zone, as 2030-01-31T12:00:00Z" })
      .check(z.refine((text) => !(Date.parse(text) >= yearTenThousand), "expected a time before the year 10000")),
  ),
  dependsOn: z._default(z.array(name()).check(z.maxLength(100)), []),
  parentId: z.optional(name(64)),
  timeouts: z.prefault(Timeouts, {}),
  cancelGraceSeconds: z._default(number(0, 3600), defaultCancelGraceSeconds),
  retry: z.prefault(Retry, {}),
  concurrency: z._default(z.array(ConcurrencyLimit).check(z.maxLength(8)), []),
  rate: z.optional(RateLimit),
  fairKey: z.optional(name(256)),
  tags: z._default(z.array(name()).check(z.maxLength(50)), []),
  metadata: z.optional(jsonText()),
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
    id: z.optional(
      z.string().check(z.refine((id) => isId("tsk", id), "expected tsk_ and 22 characters of 0-9 a-z without i l o u")),
    ),
  })
  .check(z.refine(oneStart, oneStartMessage));
export const BatchEntry = z
  .strictObject({ ...fields, ref: z.optional(name()) })
  .check(z.refine(oneStart, oneStartMessage));
export const tasksOfBatch = 100;
/** `tasks` entries are checked one by one, so that a bad one spoils no other. */
export const CreateBatch = z.strictObject({
  /** An entry that could not be read is the problem it is refused with. */
  tasks: z.array(z.unknown()).check(z.minLength(1), z.maxLength(tasksOfBatch)),
  atomic: z._default(z.boolean(), false),
});
export type Create = z.output<typeof Create>;
export type BatchEntry = z.output<typeof BatchEntry>;
export type Requirement = z.output<typeof Requirement>;
export type Selector = z.output<typeof Selector>;

const fence = integer(1);
const take = z.optional(integer(0, 100));
export const Problem = z.strictObject({
  code: name(),
  message: text(16_384),
  retryable: z.optional(z.boolean()),
});

export const Start = z.strictObject({ fence });
export const Heartbeat = z.strictObject({
  fence,
  progress: z.optional(z.strictObject({ percent: z.optional(number(0, 100)), message: z.optional(text(1024)) })),
  /** Comes back to the next attempt as `task.details`. */
  details: z.optional(jsonText()),
});
/** `usage.units` corrects the weight of the task's rate limit after the call. */
export const Usage = z
  .record(name(64), number(0))
  .check(z.refine((usage) => Object.keys(usage).length <= 32, "at most 32 entries"));
export const Complete = z.strictObject({ fence, result: z.optional(jsonText()), usage: z.optional(Usage), take });
export const Fail = z.strictObject({ fence, error: Problem, usage: z.optional(Usage), take });
export const Release = z.strictObject({ fence, reason: z.optional(text(1024)), take });
export const Cancel = z.strictObject({ reason: z.optional(text(1024)) });
export const ListQuery = z.strictObject({
  limit: pageLimit(50),
  cursor: z.optional(text(1024)),
  status: z.optional(z.enum(statuses)),
  type: z.optional(name()),
  agentId: z.optional(name(64)),
  tag: z.optional(name()),
  parentId: z.optional(name(64)),
});

const time = z.iso.datetime({ precision: 3 });
/** A task as callers see it. */
export const Info = z.object({
  id: z.string(),
  type: z.string(),
  status: z.enum(statuses),
  description: z.optional(z.string()),
  input: z.optional(jsonText()),
  result: z.optional(jsonText()),
  error: z.optional(z.object({ code: z.string(), message: z.string(), retryable: z.optional(z.boolean()) })),
  usage: z.optional(z.record(z.string(), z.number())),
  priority: z.number(),
  requires: z.array(Requirement),
  labels: z.array(z.unknown()),
  role: z.optional(z.string()),
  /** The agent asked for. */
  boundAgentId: z.optional(z.string()),
  stickyKey: z.optional(z.string()),
  strategy: z.enum(strategies),
  slots: z.number(),
  attempt: z.number(),
  maxAttempts: z.number(),
  fence: z.number(),
  /** The agent that has or last had it. */
  agentId: z.optional(z.string()),
  decision: z.optional(z.object({ strategy: z.string(), score: z.number(), reasons: z.array(z.string()) })),
  waiting: z.optional(z.object({ reason: z.string(), since: time })),
  progress: z.optional(z.object({ percent: z.optional(z.number()), message: z.optional(z.string()) })),
  details: z.optional(jsonText()),
  dependsOn: z.array(z.string()),
  parentId: z.optional(z.string()),
  depth: z.number(),
  timeouts: Timeouts,
  /** How long its agent has to stop once it is cancelled. */
  cancelGraceSeconds: z.number(),
  retry: Retry,
  concurrency: z.array(ConcurrencyLimit),
  rate: z.optional(RateLimit),
  fairKey: z.optional(z.string()),
  tags: z.array(z.string()),
  metadata: z.optional(jsonText()),
  traceparent: z.optional(z.string()),
  cancelRequested: z.optional(z.boolean()),
  /** The newest 50 changes of status. */
  history: z.array(
    z.object({
      at: time,
      status: z.enum(statuses),
      attempt: z.number(),
      agentId: z.optional(z.string()),
      reason: z.optional(z.string()),
    }),
  ),
  createdAt: time,
  /** Not before this. */
  scheduledAt: z.optional(time),
  queuedAt: z.optional(time),
  assignedAt: z.optional(time),
  startedAt: z.optional(time),
  finishedAt: z.optional(time),
  /** The nearest time at which something will be done about it. */
  deadlineAt: z.optional(time),
  /** Of one that has ended: it is deleted some time after this. */
  keptUntil: z.optional(time),
});
export type Info = z.output<typeof Info>;

export const Assignment = z.object({
  task: Info,
  fence: z.number(),
  expiresAt: time,
  /** The task is too large for a message of this connection, or too much is unread on it: get it to have its input, metadata, details and labels. */
  inputOmitted: z.optional(z.boolean()),
});
export type Assignment = z.output<typeof Assignment>;
