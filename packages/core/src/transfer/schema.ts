import * as z from "zod";
import type * as AgentRow from "../agent/row.ts";
import * as agent from "../agent/schema.ts";
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
const Payload = z.string().superRefine((text, ctx) => {
  try {
    toPayload(text);
  } catch (error) {
    ctx.addIssue({ code: "custom", message: `expected JSON as text, ${(error as Error).message}` });
  }
}) as unknown as z.ZodType<JsonText>;

const idOf = (prefix: "tsk" | "agt" | "key") =>
  z.string().refine((id) => isId(prefix, id), `expected ${prefix}_ and 22 characters of 0-9 a-z without i l o u`);
/** Milliseconds since 1970. */
const time = number(0, 8_640_000_000_000_000);
const count = integer(0);
/** SHA-256 as base64url. */
const bearerHash = z.string().regex(/^[A-Za-z0-9_-]{43}$/, "expected a SHA-256 as base64url");
const digest = z.string().regex(/^[0-9a-f]{64}$/, "expected a SHA-256 in hexadecimal");

const LimitFields = z.strictObject({
  kind: z.literal("limit"),
  key: limit.Key,
  ...limit.Put.shape,
});
export const LimitRecord = LimitFields.refine(
  (record) => record.concurrency !== undefined || record.rate !== undefined,
  "expected concurrency or rate",
);
export type LimitRecord = z.output<typeof LimitRecord>;

export const AgentRecord = z.strictObject({
  kind: z.literal("agent"),
  id: idOf("agt"),
  name: name(),
  state: z.enum(["active", "draining", "paused", "lost", "stopped"]),
  lostFrom: z.enum(["paused", "draining"]).optional(),
  capabilities: agent.Capabilities,
  labels: agent.Register.shape.labels.unwrap(),
  maxConcurrency: integer(1, 1000),
  delivery: agent.Info.shape.delivery,
  leaseSeconds: number(3, 3600),
  tokenHash: bearerHash,
  completed: count,
  failed: count,
  busyMs: number(0),
  createdAt: time,
  registeredAt: time,
  changedAt: time,
  role: name().optional(),
  type: name().optional(),
  description: text(4096).optional(),
  metadata: Payload.optional(),
  lastSeenAt: time.optional(),
  expiresAt: time.optional(),
  stopAt: time.optional(),
  drainedAt: time.optional(),
});
export type AgentRecord = z.output<typeof AgentRecord>;

export const KeyRecord = z.strictObject({
  kind: z.literal("key"),
  id: idOf("key"),
  role: z.enum(key.roles),
  hash: bearerHash,
  hint: text(16),
  createdAt: time,
  name: text(128).optional(),
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
    index: count.max(transferLimits.pieces - 1),
    of: integer(1, transferLimits.pieces),
    text: z.string().min(1).max(transferLimits.pieceCharacters),
  })
  .refine((record) => record.index < record.of, { path: ["index"], message: "expected less than of" });
export type BlobRecord = z.output<typeof BlobRecord>;

const Pieces = z.strictObject({ sha256: digest, of: BlobRecord.shape.of }).optional();
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
  depth: count.max(limits.depth),
  strategy: z.enum(task.strategies),
  createdAt: time,
  /** `[at, status, attempt, agentId or "", reason or ""]` */
  history: z
    .array(z.tuple([time, status, count, text(64), text(4096)]))
    .min(1)
    .max(limits.history),
  input: Payload.optional(),
  result: Payload.optional(),
  metadata: Payload.optional(),
  details: Payload.optional(),
  /** Payloads that came in pieces. */
  pieces: z.strictObject({ input: Pieces, result: Pieces, metadata: Pieces, details: Pieces }).optional(),
  description: text(4096).optional(),
  requires: z.array(task.Requirement).max(64).optional(),
  labels: z.array(task.Selector).max(64).optional(),
  boundAgentId: text(64).optional(),
  role: name().optional(),
  stickyKey: name(256).optional(),
  dependsOn: z.array(idOf("tsk")).min(1).max(100).optional(),
  unmet: z.array(idOf("tsk")).max(100).optional(),
  dependants: z.boolean().optional(),
  parentId: text(64).optional(),
  timeouts: task.Timeouts.optional(),
  retry: task.Retry.optional(),
  cancelGraceSeconds: number(0, 3600).optional(),
  concurrency: z.array(task.ConcurrencyLimit).max(8).optional(),
  rate: task.RateLimit.optional(),
  fairKey: name(256).optional(),
  tags: z.array(name()).max(50).optional(),
  traceparent: text(64).optional(),
  hops: count.optional(),
  agentId: text(64).optional(),
  /** `[strategy, score, looked at, free, used, max, reason]` */
  decision: z.tuple([z.enum(task.strategies), number(), number(), number(), number(), number(), text(256)]).optional(),
  progress: task.Heartbeat.shape.progress,
  cancelAt: time.optional(),
  error: task.Problem.optional(),
  usage: task.Usage.optional(),
  scheduledAt: time.optional(),
  queuedAt: time.optional(),
  assignedAt: time.optional(),
  startedAt: time.optional(),
  beatAt: time.optional(),
  finishedAt: time.optional(),
});

export const TaskRecord = TaskFields.superRefine((record, ctx) => {
  const wrong = (path: string, message: string) => ctx.addIssue({ code: "custom", path: [path], message });
  if (held.has(record.status) && record.agentId === undefined) wrong("agentId", `required of a task ${record.status}`);
  if (terminal.has(record.status) && record.finishedAt === undefined)
    wrong("finishedAt", `required of a task ${record.status}`);
  if (record.status === "scheduled" && record.scheduledAt === undefined && !record.unmet?.length)
    wrong("scheduledAt", "required of a scheduled task that waits for no other");
  if (record.unmet?.some((on) => !record.dependsOn?.includes(on))) wrong("unmet", "expected some of dependsOn");
  for (const field of payloadFields)
    if (record[field] !== undefined && record.pieces?.[field] !== undefined)
      wrong(field, "is there, and in pieces besides");
});
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
  nextCursor: z.string().optional(),
});
export type ExportPage = z.output<typeof ExportPage>;
