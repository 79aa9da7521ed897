import { heldTasks } from "../agent/commands.ts";
import { tell } from "../agent/message.ts";
import { cancelMark } from "../agent/row.ts";
import { backSince } from "../away.ts";
import { deliveryOutcome } from "../delivery/error.ts";
import { isError } from "../error.ts";
import { open } from "../match/open.ts";
import { fractionOf } from "../port/index.ts";
import { agentKey, taskKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { isRemoved } from "./bound.ts";
import { change, type Decision, failed, goOn, released, takeAway, whereIs } from "./change.ts";
import { defaultCancelGraceSeconds } from "./defaults.ts";
import { catchUp, link } from "./dependency.ts";
import { missing, notFound, notRetryable, outcome } from "./error.ts";
import { withPayloads } from "./read.ts";
import { deliverySeconds, held, type Row, silenceOf, terminal } from "./row.ts";
import type { Info } from "./schema.ts";
import { readTask } from "./stored.ts";

/**
 * Ends a task from any state. One that waits is cancelled at once; the agent of one that runs is told and has
 * `cancelGraceSeconds` before it is fenced off. One that has ended keeps its outcome.
 */
export async function cancel(scope: Scope, id: string, input: { reason?: string | undefined }): Promise<Info> {
  const reason = input.reason ?? "cancelled by request";
  const { row, before } = await takeAway(scope, id, (row, now) => {
    if (terminal.has(row.status) || row.cancelAt !== undefined) return undefined;
    const error = { code: outcome.cancelled, message: reason };
    if (!held.has(row.status)) return { changes: { status: "cancelled", error }, note: reason };
    const graceMs = (row.cancelGraceSeconds ?? defaultCancelGraceSeconds) * 1000;
    if (graceMs === 0) return { changes: { status: "cancelled", error, fence: row.fence + 1 }, note: reason };
    return {
      changes: { cancelAt: now + graceMs, error },
      ...(scope.ports.shared && {
        extra: [
          {
            update: agentKey(scope.tenant, row.agentId as string),
            kind: "agent",
            set: { [cancelMark(id)]: true },
            if: { exists: true },
          },
        ],
      }),
    };
  });
  if (row === before) return withPayloads(scope, row);
  if (row.cancelAt !== undefined && row.agentId !== undefined) {
    if (!scope.ports.shared) (await open(scope.ports, scope.tenant)).members.get(row.agentId)?.cancels?.add(id);
    tell(scope, await whereIs(scope, row.agentId), { cancel: [id] });
  } else if (held.has(before.status)) {
    await goOn(scope, before);
  }
  return withPayloads(scope, row);
}

/** A task that failed, was cancelled or expired, again: same id, fresh attempts. */
export async function retry(scope: Scope, id: string, delayMs = 0): Promise<Info> {
  const current = await readTask(scope, id);
  if (!current) throw missing(id);
  // What it waited for when it ended it waits for again.
  const dependencies = current.dependsOn
    ? await scope.ports.store.batchGet(current.dependsOn.map((on) => taskKey(scope.tenant, on)))
    : [];
  const waited = current.error?.code === outcome.dependencyFailed || current.unmet !== undefined;
  const unmet = waited
    ? dependencies.flatMap((dependency) =>
        dependency && (dependency as Row).status !== "completed" ? [dependency.id as string] : [],
      )
    : [];
  const ended = await link(scope, unmet.length > 0 ? [{ id, unmet }] : []);
  // One of them has been deleted since it was read.
  if (!ended) return retry(scope, id, delayMs);
  if (current.boundAgentId !== undefined && (await isRemoved(scope, current.boundAgentId)))
    throw notRetryable(`agent ${current.boundAgentId}, which alone may do the task, was removed`);
  const { row } = await change(scope, id, (row, now) => {
    if (row.status !== "failed" && row.status !== "cancelled" && row.status !== "expired") {
      throw notRetryable(`the task is ${row.status}; only a failed, cancelled or expired one can be tried again`);
    }
    const broken =
      waited &&
      dependencies.find(
        (dependency) =>
          dependency && (dependency as Row).status !== "completed" && terminal.has((dependency as Row).status),
      );
    if (broken) throw notRetryable(`its dependency ${broken.id} is ${broken.status}; retry that one first`);
    const fresh: Decision["changes"] = {
      attempt: 0,
      createdAt: row.timeouts?.totalSeconds === undefined ? row.createdAt : now,
      error: undefined,
      result: undefined,
      resultBlob: undefined,
      resultBytes: undefined,
      usage: undefined,
      agentId: undefined,
      decision: undefined,
      progress: undefined,
      assignedAt: undefined,
      startedAt: undefined,
      beatAt: undefined,
      finishedAt: undefined,
      unmet: undefined,
    };
    if (unmet.length > 0) return { changes: { ...fresh, status: "scheduled", unmet }, note: "retried by hand" };
    if (delayMs > 0)
      return { changes: { ...fresh, status: "scheduled", scheduledAt: now + delayMs }, note: "retried by hand" };
    return { changes: { ...fresh, status: "queued", queuedAt: now }, note: "retried by hand" };
  });
  if (unmet.length === 0) return withPayloads(scope, row);
  await catchUp(scope, row, ended);
  return withPayloads(scope, (await readTask(scope, id)) ?? row);
}

/**
 * Does what is due on a task at this time. Idempotent; a call that comes early or late does no harm.
 * @returns when to look again, if the deadline lies ahead
 */
export async function timeUp(scope: Scope, id: string): Promise<number | undefined> {
  const unit = fractionOf(scope.ports.random);
  try {
    const { row, before } = await takeAway(scope, id, (row, now) => due(row, now, unit, backSince(scope.ports)));
    if (row === before) {
      const now = scope.ports.clock.now();
      // A deadline that is past and was spared (the server was away) is looked at again soon.
      return row.deadlineAt !== undefined && row.deadlineAt <= now ? now + 1000 : row.deadlineAt;
    }
    if (held.has(before.status) && !held.has(row.status)) {
      await goOn(scope, before);
    }
    // The timer that fired is spent, and the outbox arms none for a deadline later than the one it knew.
    return row.deadlineAt;
  } catch (error) {
    if (isError(error, notFound)) return undefined;
    throw error;
  }
}

function due(row: Row, now: number, unit: number, awayUntil: number): Decision | undefined {
  if (row.deadlineAt === undefined || row.deadlineAt > now) return undefined;
  const { timeouts } = row;
  const over = (from: number | undefined, seconds: number | undefined) =>
    from !== undefined && seconds !== undefined && from + seconds * 1000 <= now;
  const expire = (code: string, message: string): Decision => ({
    changes: { status: "expired", error: { code, message }, fence: row.fence + 1 },
    note: message,
    ...(held.has(row.status) && { ended: "failed" as const }),
  });
  if (over(row.createdAt, timeouts?.totalSeconds))
    return expire(outcome.totalTimeout, `not finished within ${timeouts?.totalSeconds} s`);
  if (row.cancelAt !== undefined && row.cancelAt <= now) {
    return {
      changes: { status: "cancelled", fence: row.fence + 1 },
      note: "its agent did not stop within the grace time",
      ended: "failed",
    };
  }
  switch (row.status) {
    case "scheduled":
      if (row.scheduledAt === undefined || row.scheduledAt > now || row.unmet?.length) return undefined;
      return { changes: { status: "queued", queuedAt: now, scheduledAt: undefined }, note: true };
    case "queued":
    case "assigned":
      if (over(row.queuedAt, timeouts?.queueSeconds))
        return expire(outcome.queueTimeout, `not started within ${timeouts?.queueSeconds} s`);
      if (row.status === "assigned" && row.silenceSeconds !== undefined) {
        if (over(Math.max(row.assignedAt ?? now, awayUntil), deliverySeconds))
          return failed(row, unreachable(`not delivered within ${deliverySeconds} s`), now, { unit });
      }
      return undefined;
    default:
      if (over(row.startedAt, timeouts?.runSeconds)) {
        return failed(
          row,
          { code: outcome.runTimeout, message: `the attempt ran longer than ${timeouts?.runSeconds} s` },
          now,
          { unit },
        );
      }
      if (over(Math.max(row.beatAt ?? row.startedAt ?? now, awayUntil), silenceOf(row))) {
        return failed(
          row,
          {
            code: outcome.heartbeatTimeout,
            message: `nothing was heard of the attempt for ${silenceOf(row)} s`,
          },
          now,
          { unit },
        );
      }
      return undefined;
  }
}

const unreachable = (message: string) => ({ code: deliveryOutcome.unreachable, message, retryable: true });

/** An attempt that could not be delivered has failed; its agent never had it. */
export async function undelivered(scope: Scope, id: string, fence: number, message: string): Promise<void> {
  const unit = fractionOf(scope.ports.random);
  const { row, before } = await change(scope, id, (row, now) =>
    row.status === "assigned" && row.fence === fence ? failed(row, unreachable(message), now, { unit }) : undefined,
  );
  if (row !== before) await goOn(scope, before);
}

/**
 * Its agent will not take it now. It goes back unharmed, and is matched again a little later each time, since the same
 * agent may be the only one there is.
 */
export async function refused(scope: Scope, id: string, fence: number, reason: string): Promise<void> {
  const { row, before } = await change(scope, id, (row, now) => {
    if (row.status !== "assigned" || row.fence !== fence) return undefined;
    const decision = released(row, reason, now);
    if (decision.changes.status !== "queued") return decision;
    const times = row.history.filter(([, , , , note]) => note === decision.note).length;
    const scheduledAt = now + Math.min(60, 2 ** times) * 1000;
    return { ...decision, changes: { ...decision.changes, status: "scheduled", queuedAt: undefined, scheduledAt } };
  });
  if (row !== before) await goOn(scope, before);
}

/**
 * Takes all an agent holds away from it. `lost`: attempts that had begun count as failed; else they are given back unharmed.
 * `keep`: tasks the agent says it still works on, by fence.
 */
export async function takeBack(
  scope: Scope,
  agentId: string,
  how: "lost" | "released",
  reason: string,
  keep?: (task: Row) => boolean,
): Promise<number> {
  let count = 0;
  for (const task of await heldTasks(scope, agentId)) {
    if (keep?.(task)) continue;
    const { row, before } = await takeAway(scope, task.id, (row, now) => {
      if (row.agentId !== agentId || !held.has(row.status) || keep?.(row)) return undefined;
      if (how === "released" || row.status === "assigned") return released(row, reason, now);
      return failed(row, { code: outcome.agentLost, message: reason }, now, { unit: 0, immediate: true });
    });
    if (row === before) continue;
    count++;
    await goOn(scope, before);
  }
  return count;
}
