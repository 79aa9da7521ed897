import * as z from "zod";
import { Delivery, DeliveryInfo } from "../delivery/schema.ts";
import { integer, name, number, pageLimit, text } from "../fields.ts";
import { jsonText } from "../json.ts";

export const statuses = ["connecting", "ready", "busy", "draining", "paused", "lost", "stopped"] as const;
export type Status = (typeof statuses)[number];

export const Capability = z.strictObject({
  name: name(),
  level: number(0, 1).optional(),
  /** Per task, in the tenant's own unit. */
  cost: number(0, 1_000_000).optional(),
});
export type Capability = z.output<typeof Capability>;

const unique = (list: readonly { name: string }[]) => new Set(list.map((entry) => entry.name)).size === list.length;
export const Capabilities = z.array(Capability).max(64).refine(unique, "each capability name once");
export const Labels = z
  .record(name(64), z.union([text(256), number()]))
  .refine((labels) => Object.keys(labels).length <= 64, "at most 64 labels");

const settable = {
  role: name().optional(),
  type: name().optional(),
  description: text(4096).optional(),
  capabilities: Capabilities,
  labels: Labels.default({}),
  maxConcurrency: integer(1, 1000).default(1),
  metadata: jsonText().optional(),
};
export const Register = z.strictObject({
  name: name(),
  ...settable,
  delivery: Delivery.default({ type: "pull" }),
  leaseSeconds: number(3, 3600).default(60),
  onConflict: z.enum(["reject", "replace"]).default("reject"),
});
export type Register = z.output<typeof Register>;
/** What is left out stays as it is; `null` takes away what there was. */
export const Patch = z
  .strictObject({
    role: name().nullable().optional(),
    type: name().nullable().optional(),
    description: text(4096).nullable().optional(),
    capabilities: Capabilities.optional(),
    labels: Labels.optional(),
    maxConcurrency: integer(1, 1000).optional(),
    metadata: jsonText().optional(),
    /** By operators only. A webhook without a secret keeps the one it has. */
    delivery: Delivery.optional(),
  })
  .refine((patch) => Object.values(patch).some((value) => value !== undefined), "give at least one field to change");
export type Patch = z.output<typeof Patch>;

const holding = z
  .array(z.strictObject({ taskId: name(64), fence: integer(1) }))
  .max(1000)
  .optional();
export const Lease = z.strictObject({
  max: integer(1, 100).default(1),
  waitSeconds: number(0, 20).default(0),
  /** What the agent holds; with it, a task it was given and does not name is given to it once more: its answer was lost. */
  holding,
});
export const Heartbeat = z.strictObject({
  /** What the agent holds; with it, a task it should hold but does not is given to another. */
  holding,
});
export type Holding = z.output<typeof holding>;
export const RemoveQuery = z.strictObject({
  mode: z.enum(["graceful", "force"]).default("graceful"),
  graceSeconds: z.coerce.number().min(0).max(86_400).default(300),
});
export const ListQuery = z.strictObject({
  limit: pageLimit(50),
  cursor: text(1024).optional(),
  status: z.enum(statuses).optional(),
  role: name().optional(),
  type: name().optional(),
  capability: name().optional(),
  /** `key:value` */
  label: z
    .string()
    .max(400)
    .regex(/^[^:]+:.*$/s, "expected key:value")
    .optional(),
});

const time = z.iso.datetime({ precision: 3 });
export const Info = z.object({
  id: z.string(),
  name: z.string(),
  role: z.string().optional(),
  type: z.string().optional(),
  description: z.string().optional(),
  status: z.enum(statuses),
  capabilities: z.array(Capability),
  labels: z.record(z.string(), z.union([z.string(), z.number()])),
  maxConcurrency: z.number(),
  running: z.number(),
  freeSlots: z.number(),
  delivery: DeliveryInfo,
  /** Deliveries that failed in a row, when the last one did. */
  deliveryFailures: z.object({ count: z.number(), lastError: z.string() }).optional(),
  leaseSeconds: z.number(),
  metadata: jsonText().optional(),
  stats: z.object({ completed: z.number(), failed: z.number(), successRate: z.number(), averageSeconds: z.number() }),
  createdAt: time,
  lastSeenAt: time.optional(),
  leaseExpiresAt: time.optional(),
});
export type Info = z.output<typeof Info>;

/** What an agent is told on a heartbeat or over its socket. */
export const Commands = z.object({ cancel: z.array(z.string()), pause: z.boolean(), drain: z.boolean() });
export type Commands = z.output<typeof Commands>;
