import type * as AgentRow from "../agent/row.ts";
import { held, type Row, terminal, whole } from "../task/row.ts";
import type { Entry } from "./log.ts";

/** Adds the events that a change of a task is. */
export function taskEvents(events: Entry[], old: Row | undefined, now: Row): void {
  const next = whole(now);
  const { id } = next;
  const agentId = next.agentId ?? "";
  const history = next.history.at(-1);
  const at = history?.[0] ?? next.createdAt;
  const note = history?.[4];
  const say = (type: string, data: Record<string, unknown>, when = at, agent = agentId) =>
    events.push([`task.${type}`, Math.round(when), id, agent, data]);
  if (!old)
    say(
      "created",
      { type: next.type, priority: next.priority, ...(next.parentId !== undefined && { parentId: next.parentId }) },
      next.createdAt,
    );
  // Taken and given to an agent in one go.
  const first = next.history[0];
  if (!old && first?.[1] === "queued" && next.status !== "queued") say("queued", {}, first[0], "");
  if (old?.status !== next.status) {
    const had = old?.agentId ?? agentId;
    const error = next.error && { error: next.error };
    if (next.status === "queued" || next.status === "scheduled") {
      if (old && terminal.has(old.status)) say("retried", { manual: true });
      else if (old && held.has(old.status)) {
        if (note?.startsWith("released")) say("released", { reason: note }, at, had);
        else
          say(
            "retried",
            {
              attempt: old.attempt,
              ...error,
              ...(next.scheduledAt !== undefined && { notBefore: new Date(next.scheduledAt).toISOString() }),
            },
            at,
            had,
          );
      }
      if (next.status === "queued") say("queued", { ...(note && old && { reason: note }) });
      else if (!old)
        say("scheduled", {
          ...(next.scheduledAt !== undefined && { notBefore: new Date(next.scheduledAt).toISOString() }),
        });
    } else if (next.status === "assigned") say("assigned", { fence: next.fence, attempt: next.attempt });
    else if (next.status === "running") say("started", { attempt: next.attempt });
    else {
      if (old?.status === "assigned" && next.startedAt !== undefined)
        say("started", { attempt: next.attempt }, next.startedAt);
      say(
        next.status,
        {
          attempt: next.attempt,
          ...(next.status !== "completed" && error),
          ...(note && { reason: note }),
          ...(next.usage && { usage: next.usage }),
        },
        at,
        had,
      );
    }
  }
  if (next.progress !== undefined && !same(next.progress, old?.progress))
    say("progress", { ...next.progress }, next.beatAt ?? at);
  if (next.cancelAt !== undefined && old?.cancelAt === undefined)
    say("cancel_requested", { reason: next.error?.message });
}

/** Adds the events that a change of an agent is. What leaves its revision as it was is none. */
export function agentEvents(events: Entry[], old: AgentRow.Row | undefined, next: AgentRow.Row): void {
  if (old && old.rev === next.rev) return;
  const say = (type: string, data: Record<string, unknown>) =>
    events.push([`agent.${type}`, next.changedAt as number, "", next.id, { name: next.name, ...data }]);
  if (!old || old.registeredAt !== next.registeredAt)
    say("registered", { role: next.role ?? null, capabilities: next.capabilities.map((own) => own.name) });
  else if (old.state !== next.state) {
    // One that is tried anew is lost until it is reached.
    const again = next.state === "active" || (next.state === old.lostFrom && next.lastSeenAt !== old.lastSeenAt);
    if (old.state === "lost" && again) {
      if (!next.probing) say("back", {});
    } else if (next.state === "lost") {
      if (!old.probing)
        say("lost", { held: next.used, ...(next.missReason !== undefined && { reason: next.missReason }) });
    } else if (next.state === "active") say("resumed", {});
    else say(next.state === "stopped" ? "stopped" : next.state === "paused" ? "paused" : "draining", {});
  } else if (
    !same(old.capabilities, next.capabilities) ||
    !same(old.labels, next.labels) ||
    !same(old.delivery, next.delivery) ||
    old.role !== next.role ||
    old.maxConcurrency !== next.maxConcurrency
  )
    say("updated", {});
  if (old?.probing && !next.probing && old.state === "active" && next.state === "active") say("back", {});
  if (next.drainedAt !== undefined && old?.drainedAt === undefined) say("drained", {});
}

const same = (a: unknown, b: unknown): boolean => a === b || JSON.stringify(a) === JSON.stringify(b);
