import { defineError } from "../error.ts";

export const notFound = defineError("task.not_found", { status: 404, title: "Task not found", retry: "never" });
/** For whoever names a task that is not there. */
export const missing = (id: string) =>
  notFound(`there is no task ${id}: it never was, or it ended and is past its retention`);
export const gone = defineError("task.gone", { status: 410, title: "Task past its retention", retry: "never" });
export const leaseLost = defineError("task.lease_lost", {
  status: 409,
  title: "The lease on this task was lost",
  retry: "never",
});
export const notRetryable = defineError("task.not_retryable", {
  status: 409,
  title: "Task cannot be retried",
  retry: "never",
});
export const conflict = defineError("task.conflict", {
  status: 409,
  title: "Task is being changed by others",
  retry: "later",
});
export const dependencyCycle = defineError("task.dependency_cycle", {
  status: 400,
  title: "Dependencies form a cycle",
  retry: "never",
});
export const dependencyNotFound = defineError("task.dependency_not_found", {
  status: 400,
  title: "Dependency not found",
  retry: "never",
});
export const parentNotFound = defineError("task.parent_not_found", {
  status: 400,
  title: "Parent task not found",
  retry: "never",
});
export const tooDeep = defineError("task.too_deep", {
  status: 400,
  title: "Too many generations of tasks",
  retry: "never",
});
export const notInBatch = defineError("task.batch_refused", {
  status: 400,
  title: "Refused with its batch",
  retry: "never",
});

/** Codes found in `task.error`, made by Waggle and not by an agent. */
export const outcome = {
  dependencyFailed: "task.dependency_failed",
  runTimeout: "task.run_timeout",
  heartbeatTimeout: "task.heartbeat_timeout",
  queueTimeout: "task.queue_timeout",
  totalTimeout: "task.total_timeout",
  agentLost: "agent.lost",
  agentRemoved: "task.agent_removed",
  cancelled: "task.cancelled",
} as const;
