import type {
  Agent as AgentSchema,
  AuditReport as AuditReportSchema,
  DeadLetter as DeadLetterSchema,
  Disk,
  EventLog,
  JsonText,
  Key as KeySchema,
  Limit as LimitSchema,
  Quota as QuotaSchema,
  Retention as RetentionSchema,
  Status as StatusReport,
  Task as TaskSchema,
} from "@waggle/core";
import type { Transfer } from "@waggle/core/transfer";
import type { z } from "zod/mini";

/** A schema's type as a caller writes and reads it: payload text becomes any JSON value. */
type Plain<T> = T extends JsonText
  ? unknown
  : T extends readonly (infer Entry)[]
    ? Plain<Entry>[]
    : T extends object
      ? { [Name in keyof T]: Plain<T[Name]> }
      : T;
type Input<Schema extends z.ZodMiniType> = Plain<z.input<Schema>>;
type Output<Schema extends z.ZodMiniType> = Plain<z.output<Schema>>;

export type Task = Output<typeof TaskSchema.Info>;
export type TaskStatus = TaskSchema.Status;
export type CreateTask = Input<typeof TaskSchema.Create>;
export type BatchEntry = Input<typeof TaskSchema.BatchEntry>;
export type TaskQuery = Partial<Output<typeof TaskSchema.ListQuery>>;
export type TaskProblem = { code: string; message: string; retryable?: boolean | undefined };
export type Usage = Record<string, number>;
export type Progress = { percent?: number | undefined; message?: string | undefined };
export type Requirement = Input<typeof TaskSchema.Requirement>;
export type Assignment = Output<typeof TaskSchema.Assignment>;

export type Agent = Output<typeof AgentSchema.Info>;
export type AgentStatus = AgentSchema.Status;
export type Capability = Input<typeof AgentSchema.Capability>;
export type Delivery = Input<typeof AgentSchema.Delivery>;
export type RegisterAgent = Input<typeof AgentSchema.Register>;
export type PatchAgent = Input<typeof AgentSchema.Patch>;
export type AgentQuery = Partial<Output<typeof AgentSchema.ListQuery>>;
export type Commands = Output<typeof AgentSchema.Commands>;

export type WaggleEvent = Output<typeof EventLog.Info>;
export type Limit = Output<typeof LimitSchema.Info>;
export type PutLimit = Input<typeof LimitSchema.Put>;
export type Retention = Output<typeof RetentionSchema.Info>;
export type PutRetention = Input<typeof RetentionSchema.Put>;
export type Quotas = Input<typeof QuotaSchema.Quotas>;
export type Quota = Output<typeof QuotaSchema.Info>;
export type Redrive = Input<typeof DeadLetterSchema.Redrive>;
export type Key = Output<typeof KeySchema.Info>;
export type CreateKey = Input<typeof KeySchema.Create>;

/** Payloads in records are JSON as text. */
export type TransferRecord = Transfer.Record;
export type ExportPage = Transfer.ExportPage;
export interface ImportRecords {
  version: number;
  records: readonly TransferRecord[];
}
export interface ImportAnswer {
  results: { outcome: Transfer.Outcome; problem?: { code: string; detail: string } }[];
}

export interface Page<Item> {
  items: Item[];
  /** Pass as `cursor` for the next page; absent on the last. */
  nextCursor?: string;
}

export interface Health {
  status: "healthy" | "degraded" | "unhealthy" | "no_agents";
  version: string;
  uptimeSeconds: number;
  components?: Record<string, unknown>;
}

export type AuditReport = Output<typeof AuditReportSchema>;

/** `GET /v1/status`: the fleet and the queue in numbers. */
export type Status = Awaited<ReturnType<typeof StatusReport.read>> & {
  rates: Awaited<ReturnType<typeof StatusReport.rates>>;
  version: string;
  uptimeSeconds: number;
  disk?: Disk;
};
