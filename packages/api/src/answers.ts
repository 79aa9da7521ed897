import { Agent, EventLog, Key, Limit, Quota, Retention, Task, TransferRequest } from "@waggle/core";
import * as z from "zod/mini";

export const AgentAnswer = z.object({ agent: Agent.Info });
export const RegisteredAnswer = z.object({
  agent: Agent.Info,
  /** Shown here and never again. */
  token: z.string(),
  /** Of a webhook for which none was given; shown here and never again. */
  secret: z.optional(z.string()),
});
export const UpdatedAnswer = z.object({
  agent: Agent.Info,
  /** Of a webhook that has had none before; shown here and never again. */
  secret: z.optional(z.string()),
});
export const AgentList = z.object({ items: z.array(Agent.Info), nextCursor: z.optional(z.string()) });
export const AssignmentsAnswer = z.object({ assignments: z.array(Task.Assignment) });
export const CommandsAnswer = z.object({ commands: Agent.Commands });

export const TaskAnswer = z.object({ task: Task.Info });
export const TaskList = z.object({ items: z.array(Task.Info), nextCursor: z.optional(z.string()) });
export const EndedAnswer = z.object({
  task: Task.Info,
  /** With `take` in the request: the agent's next work. */
  assignments: z.optional(z.array(Task.Assignment)),
});
export const BatchAnswer = z.object({
  /** In the order of the request. */
  results: z.array(z.union([TaskAnswer, z.object({ problem: z.record(z.string(), z.unknown()) })])),
});
export const EventList = z.object({ items: z.array(EventLog.Info), nextAfter: z.number() });
export const Explanation = z.record(z.string(), z.unknown());
export const RedriveAnswer = z.object({
  redriven: z.number(),
  skipped: z.array(z.object({ taskId: z.string(), code: z.string() })),
  nextCursor: z.optional(z.string()),
});

export const Health = z.object({
  status: z.enum(["healthy", "degraded", "unhealthy", "no_agents"]),
  version: z.string(),
  uptimeSeconds: z.number(),
  components: z.record(
    z.string(),
    z.object({ status: z.enum(["healthy", "degraded", "unhealthy"]), detail: z.optional(z.string()) }),
  ),
});
export type Health = z.output<typeof Health>;
const counts = z.record(z.string(), z.number());
export const FleetStatus = z.object({
  version: z.string(),
  uptimeSeconds: z.number(),
  at: z.string(),
  agents: z.object({ total: z.number(), byStatus: counts, byRole: counts, slots: z.number(), slotsInUse: z.number() }),
  tasks: z.object({ byStatus: counts }),
  queues: z.array(z.object({ capability: z.string(), waiting: z.number(), oldestSeconds: z.number() })),
  totals: counts,
  /** Tasks a second by what became of them, over the last `seconds`: a minute, less where much goes on. */
  rates: z.object({ seconds: z.number(), perSecond: counts }),
  /** Of all tenants, where the server keeps its data itself. The table does not shrink; `freeBytes` of it are used next. */
  disk: z.optional(z.object({ tableBytes: z.number(), freeBytes: z.number(), logBytes: z.number() })),
});
export const KeyAnswer = z.object({
  ...Key.Info.shape,
  /** Shown here and never again. */
  key: z.string(),
});
export const KeyList = z.object({ items: z.array(Key.Info), nextCursor: z.optional(z.string()) });
export const LimitAnswer = z.object({ limit: Limit.Info });
export const LimitList = z.object({ items: z.array(Limit.Info), nextCursor: z.optional(z.string()) });
export const RetentionAnswer = z.object({ retention: Retention.Info });
export const QuotaAnswer = z.object({ quota: Quota.Info });
export const ImportAnswer = z.object({
  /** In the order of the records. `differs`: something else is there and stays; `problem` says what, and what to do. */
  results: z.array(
    z.object({ outcome: z.enum(TransferRequest.outcomes), problem: z.optional(z.record(z.string(), z.unknown())) }),
  ),
});
export const ExportAnswer = z.object({
  format: z.string(),
  version: z.number(),
  tenant: z.string(),
  /** Version of the server. */
  server: z.string(),
  /** Each is a `TransferRecord`. */
  items: z.array(z.record(z.string(), z.unknown())),
  nextCursor: z.optional(z.string()),
});
