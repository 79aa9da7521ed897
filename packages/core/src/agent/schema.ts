import * as z from "zod/mini";
import { Delivery, DeliveryInfo } from "../delivery/schema.ts";
import { integer, name, number, pageLimit, text } from "../fields.ts";
import { jsonText } from "../json.ts";

export const statuses = ["connecting", "ready", "busy", "draining", "paused", "lost", "stopped"] as const;
export type Status = (typeof statuses)[number];

export const Capability = z.strictObject({
  name: name(),
  level: z.optional(number(0, 1)),
  /** Per task, in the tenant's own unit. */
  cost: z.optional(number(0, 1_000_000)),
});
export type Capability = z.output<typeof Capability>;

const unique = (list: readonly { name: string }[]) => new Set(list.map((entry) => entry.name)).size === list.length;
export const Capabilities = z.array(Capability).check(z.maxLength(64), z.refine(unique, "each capability name once"));
export const Labels = z
  .record(name(64), z.union([text(256), number()]))
  .check(z.refine((labels) => Object.keys(labels).length <= 64, "at most 64 labels"));

const settable = {
  role: z.optional(name()),
  type: z.optional(name()),
  description: z.optional(text(4096)),
  capabilities: Capabilities,
  labels: z._default(Labels, {}),
  maxConcurrency: z._default(integer(1, 1000), 1),
  metadata: z.optional(jsonText()),
};
export const Register = z.strictObject({
  name: name(),
  ...settable,
  delivery: z._default(Delivery, { type: "pull" }),
  leaseSeconds: z._default(number(3, 3600), 60),
  onConflict: z._default(z.enum(["reject", "replace"]), "reject"),
});
export type Register = z.output<typeof Register>;
/** What is left out stays as it is; `null` takes away what there was. */
export const Patch = z
  .strictObject({
    role: z.optional(z.nullable(name())),
    type: z.optional(z.nullable(name())),
    description: z.optional(z.nullable(text(4096))),
    capabilities: z.optional(Capabilities),
    labels: z.optional(Labels),
    maxConcurrency: z.optional(integer(1, 1000)),
    metadata: z.optional(jsonText()),
    /** By operators only. A webhook without a secret keeps the one it has. */
    delivery: z.optional(Delivery),
  })
  .check(
    z.refine((patch) => Object.values(patch).some((value) => value !== undefined), "give at least one field to change"),
  );
export type Patch = z.output<typeof Patch>;

const holding = z.optional(z.array(z.strictObject({ taskId: name(64), fence: integer(1) })).check(z.maxLength(1000)));
export const Lease = z.strictObject({
  max: z._default(integer(1, 100), 1),
  waitSeconds: z._default(number(0, 20), 0),
  /** What the agent holds; with it, a task it was given and does not name is given to it once more: its answer was lost. */
  holding,
});
export const Heartbeat = z.strictObject({
  /** What the agent holds; with it, a task it should hold but does not is given to another. */
  holding,
});
export type Holding = z.output<typeof holding>;
export const RemoveQuery = z.strictObject({
  mode: z._default(z.enum(["graceful", "force"]), "graceful"),
  graceSeconds: z._default(z.coerce.number().check(z.gte(0), z.lte(86_400)), 300),
});
export const ListQuery = z.strictObject({
  limit: pageLimit(50),
  cursor: z.optional(text(1024)),
  status: z.optional(z.enum(statuses)),
  role: z.optional(name()),
  type: z.optional(name()),
  capability: z.optional(name()),
  /** `key:value` */
  label: z.optional(z.string().check(z.maxLength(400), z.regex(/^[^:]+:.*$/s, "expected key:value"))),
});

const time = z.iso.datetime({ precision: 3 });
export const Info = z.object({
  id: z.string(),
  name: z.string(),
  role: z.optional(z.string()),
  type: z.optional(z.string()),
  description: z.optional(z.string()),
  status: z.enum(statuses),
  capabilities: z.array(Capability),
  labels: z.record(z.string(), z.union([z.string(), z.number()])),
  maxConcurrency: z.number(),
  running: z.number(),
  freeSlots: z.number(),
  delivery: DeliveryInfo,
  /** Deliveries that failed in a row, when the last one did. */
  deliveryFailures: z.optional(z.object({ count: z.number(), lastError: z.string() })),
  leaseSeconds: z.number(),
  metadata: z.optional(jsonText()),
  stats: z.object({ completed: z.number(), failed: z.number(), successRate: z.number(), averageSeconds: z.number() }),
  createdAt: time,
  lastSeenAt: z.optional(time),
  leaseExpiresAt: z.optional(time),
});
export type Info = z.output<typeof Info>;

/** What an agent is told on a heartbeat or over its socket. */
export const Commands = z.object({ cancel: z.array(z.string()), pause: z.boolean(), drain: z.boolean() });
export type Commands = z.output<typeof Commands>;
