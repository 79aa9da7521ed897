import * as z from "zod/mini";
import type * as AgentRow from "../agent/row.ts";
import * as agent from "../agent/schema.ts";
import { DeliveryInfo } from "../delivery/schema.ts";
import { integer, name, number, text } from "../fields.ts";
import { isId } from "../id.ts";
import type { JsonText } from "../json.ts";
import * as key from "../key/schema.ts";
import * as limit from "../limit/schema.ts";
import { cursorCharacters } from "../page.ts";
import { limits } from "../task/defaults.ts";
import { held, payloads, type Row, terminal } from "../task/row.ts";
import * as task from "../task/schema.ts";
import { toPayload } from "./payload.ts";
import { importRecords } from "./request.ts";

/** What a tenant consists of, as it is written to a file and read from one. See docs/export-format.md. */
export const format = "waggle-export";
/** Rises when an older reader would misunderstand a file. */
export const version = 1;

export const transferLimits = {
  /** Records of one import. */
  records: importRecords,
  /** A payload longer than this, as text, goes in pieces before its task. */
  inlineCharacters: 64 * 1024,
  /** At most three bytes each, or two where they need an escape, so that a piece fits into a body of 1 MiB. */
  pieceCharacters: 256 * 1024,
  pieces: 16,
} as const;

/** Exact JSON text, carried as a string: whatever reads or writes the file in between cannot alter it. */
const Payload = z.string().check(
  z.superRefine((text, ctx) => {
    try {
      toPayload(text);
    } catch (error) {
      ctx.addIssue({ code: "custom", message: `expected JSON as text, ${(error as Error).message}` });
    }
  }),
) as unknown as z.ZodMiniType<JsonText>;

const idOf = (prefix: "tsk" | "agt" | "key") =>
  z
    .string()
    .check(z.refine((id) => isId(prefix, id), `expected ${prefix}_ and 22 characters of 0-9 a-z without i l o u`));
/** Milliseconds since 1970. */
const time = number(0, 8_640_000_000_000_000);
const count = integer(0);
/** SHA-256 as base64url. */
const bearerHash = z.string().check(z.regex(/^[A-Za-z0-9_-]{43}$/, "expected a SHA-256 as base64url"));
const digest = z.string().check(z.regex(/^[0-9a-f]{64}$/, "expected a SHA-256 in hexadecimal"));

const LimitFields = z.strictObject({
  kind: z.literal("limit"),
  key: limit.Key,
  ...limit.Put.shape,
});
export const LimitRecord = LimitFields.check(
  z.refine((record) => record.concurrency !== undefined || record.rate !== undefined, "expected concurrency or rate"),
);
export type LimitRecord = z.output<typeof LimitRecord>;

export const AgentRecord = z.strictObject({
  kind: z.literal("agent"),
  id: idOf("agt"),
  name: name(),
  state: z.enum(["active", "draining", "paused", "lost", "stopped"]),
  lostFrom: z.optional(z.enum(["paused", "draining"])),
  capabilities: agent.Capabilities,
  labels: agent.Labels,
  maxConcurrency: integer(1, 1000),
  delivery: DeliveryInfo,
  leaseSeconds: number(3, 3600),
  tokenHash: bearerHash,
  completed: count,
  failed: count,
  busyMs: number(0),
  createdAt: time,
  registeredAt: time,
  changedAt: time,
  role: z.optional(name()),
  type: z.optional(name()),
  description: z.optional(text(4096)),
  metadata: z.optional(Payload),
  lastSeenAt: z.optional(time),
  expiresAt: z.optional(time),
  stopAt: z.optional(time),
  drainedAt: z.optional(time),
});
export type AgentRecord = z.output<typeof AgentRecord>;

export const KeyRecord = z.strictObject({
  kind: z.literal("key"),
  id: idOf("key"),
  role: z.enum(key.roles),
  hash: bearerHash,
  hint: text(16),
  createdAt: time,
  name: z.optional(text(128)),
});
export type KeyRecord = z.output<typeof KeyRecord>;

export const payloadFields = payloads;
export type PayloadField = (typeof payloadFields)[number];

/** A piece of a payload that is too long for its task's own line; the pieces come before it, in order. */
export const BlobRecord = z
  .strictObject({
    kind: z.literal("blob"),
    /** Of the task. */
    id: idOf("tsk"),
    field: z.enum(payloadFields),
    /** Of the whole payload, as UTF-8. */
    sha256: digest,
    index: count.check(z.lte(transferLimits.pieces - 1)),
    of: integer(1, transferLimits.pieces),
    text: z.string().check(z.minLength(1), z.maxLength(transferLimits.pieceCharacters)),
  })
  .check(z.refine((record) => record.index < record.of, { path: ["index"], message: "expected less than of" }));
export type BlobRecord = z.output<typeof BlobRecord>;

const Pieces = z.optional(z.strictObject({ sha256: digest, of: BlobRecord.shape.of }));
const status = z.enum(task.statuses);

const TaskFields = z.strictObject({
  kind: z.literal("task"),
  id: idOf("tsk"),
  type: name(),
  status,
  priority: integer(0, 9),
  attempt: count,
  fence: count,
  slots: integer(1, 1000),
  depth: count.check(z.lte(limits.depth)),
  strategy: z.enum(task.strategies),
  createdAt: time,
  /** `[at, status, attempt, agentId or "", reason or ""]` */
  history: z
    .array(z.tuple([time, status, count, text(64), text(4096)]))
    .check(z.minLength(1), z.maxLength(limits.history)),
  input: z.optional(Payload),
  result: z.optional(Payload),
  metadata: z.optional(Payload),
  details: z.optional(Payload),
  /** Payloads that came in pieces. */
  pieces: z.optional(z.strictObject({ input: Pieces, result: Pieces, metadata: Pieces, details: Pieces })),
  description: z.optional(text(4096)),
  requires: z.optional(z.array(task.Requirement).check(z.maxLength(64))),
  labels: z.optional(z.array(task.Selector).check(z.maxLength(64))),
  boundAgentId: z.optional(text(64)),
  role: z.optional(name()),
  stickyKey: z.optional(name(256)),
  dependsOn: z.optional(z.array(idOf("tsk")).check(z.minLength(1), z.maxLength(100))),
  unmet: z.optional(z.array(idOf("tsk")).check(z.maxLength(100))),
  dependants: z.optional(z.boolean()),
  parentId: z.optional(text(64)),
  timeouts: z.optional(task.Timeouts),
  retry: z.optional(task.Retry),
  cancelGraceSeconds: z.optional(number(0, 3600)),
  concurrency: z.optional(z.array(task.ConcurrencyLimit).check(z.maxLength(8))),
  rate: z.optional(task.RateLimit),
  fairKey: z.optional(name(256)),
  tags: z.optional(z.array(name()).check(z.maxLength(50))),
  traceparent: z.optional(text(64)),
  hops: z.optional(count),
  agentId: z.optional(text(64)),
  /** `[strategy, score, looked at, free, used, max, reason]` */
  decision: z.optional(z.tuple([z.enum(task.strategies), number(), number(), number(), number(), number(), text(256)])),
  progress: task.Heartbeat.shape.progress,
  cancelAt: z.optional(time),
  error: z.optional(task.Problem),
  usage: z.optional(task.Usage),
  scheduledAt: z.optional(time),
  queuedAt: z.optional(time),
  assignedAt: z.optional(time),
  startedAt: z.optional(time),
  beatAt: z.optional(time),
  finishedAt: z.optional(time),
});

export const TaskRecord = TaskFields.check(
  z.superRefine((record, ctx) => {
    const wrong = (path: string, message: string) => ctx.addIssue({ code: "custom", path: [path], message });
    if (held.has(record.status) && record.agentId === undefined)
      wrong("agentId", `required of a task ${record.status}`);
    if (terminal.has(record.status) && record.finishedAt === undefined)
      wrong("finishedAt", `required of a task ${record.status}`);
    if (record.status === "scheduled" && record.scheduledAt === undefined && !record.unmet?.length)
      wrong("scheduledAt", "required of a scheduled task that waits for no other");
    if (record.unmet?.some((on) => !record.dependsOn?.includes(on))) wrong("unmet", "expected some of dependsOn");
    for (const field of payloadFields)
      if (record[field] !== undefined && record.pieces?.[field] !== undefined)
        wrong(field, "is there, and in pieces besides");
  }),
);
export type TaskRecord = z.output<typeof TaskRecord>;

export const Record = z.discriminatedUnion("kind", [LimitRecord, AgentRecord, KeyRecord, BlobRecord, TaskRecord]);
export type Record = z.output<typeof Record>;
export const kinds = ["limit", "agent", "key", "blob", "task"] as const;
export type Kind = (typeof kinds)[number];

/** The names of what is moved as it is stored. */
export const agentFields = Object.keys(AgentRecord.shape) as (keyof AgentRecord)[];
export const taskFields = (Object.keys(TaskFields.shape) as (keyof TaskRecord)[]).filter((name) => name !== "pieces");

type Named<T> = keyof { [K in keyof T as string extends K ? never : number extends K ? never : K]: T[K] };
/** Made anew where the row comes to: its place among others, and what follows from that. */
type Anew =
  | ("pk" | "sk" | "tenant" | "rev" | "deadlineAt" | "used" | "deliverySecret" | "silenceSeconds")
  | ("connectionId" | "carriedUntil")
  | (
      | "lane"
      | "parked"
      | "gate"
      | "waitingReason"
      | "waitingSince"
      | "inputBlob"
      | "resultBlob"
      | "inputBytes"
      | "resultBytes"
    )
  | "expiresAt"
  | ("misses" | "missedAt" | "missReason" | "probes" | "probeAt" | "probing");
type Forgotten<Row, Moved> = Exclude<Named<Row>, keyof Moved | Anew>;
/** A field that is new in a row has to be named in its record, or above: else moving would lose it. */
export const nothingForgotten: [Forgotten<Row, TaskRecord>, Forgotten<AgentRow.Row, AgentRecord>] extends [never, never]
  ? true
  : never = true;

export const Counts = z.strictObject(
  Object.fromEntries(kinds.map((kind) => [kind, count])) as { [K in Kind]: typeof count },
);
export type Counts = z.output<typeof Counts>;

export const Header = z.strictObject({
  kind: z.literal("header"),
  format: z.literal(format),
  version: z.literal(version),
  tenant: key.tenantName,
  at: z.iso.datetime({ precision: 3 }),
  /** Version of the server that it comes from. */
  server: text(64),
});
export type Header = z.output<typeof Header>;
/** `sha256` is of all bytes of the file before this line, `counts` of all records there. */
const sums = { counts: Counts, sha256: digest };
export const Checkpoint = z.strictObject({
  kind: z.literal("checkpoint"),
  cursor: text(cursorCharacters),
  ...sums,
});
export const End = z.strictObject({ kind: z.literal("end"), ...sums });

export const ExportPage = z.object({
  format: z.literal(format),
  version: number(),
  tenant: z.string(),
  /** Version of the server. */
  server: z.string(),
  items: z.array(Record),
  nextCursor: z.optional(z.string()),
});
export type ExportPage = z.output<typeof ExportPage>;
