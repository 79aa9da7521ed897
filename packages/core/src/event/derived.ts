import type * as AgentRow from "../agent/row.ts";
import { held, type Row, terminal, whole } from "../task/row.ts";
import type { Entry } from "./log.ts";

type Say = (type: string, data: Record<string, unknown>, when?: number, agent?: string) => void;

/** Adds the events that a change of a task is. */
export function taskEvents(events: Entry[], old: Row | undefined, now: Row): void {
  const next = whole(now);
  const { id, agentId = "" } = next;
  const at = next.history.at(-1)?.[0] ?? next.createdAt;
  const say: Say = (type, data, when = at, agent = agentId) =>
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
  if (old?.status !== next.status) statusEvents(say, old, next);
  if (next.progress !== undefined && !same(next.progress, old?.progress))
    say("progress", { ...next.progress }, next.beatAt ?? at);
  if (next.cancelAt !== undefined && old?.cancelAt === undefined)
    say("cancel_requested", { reason: next.error?.message });
}

function statusEvents(say: Say, old: Row | undefined, next: Row): void {
  const { status, attempt, error, usage } = next;
  const note = next.history.at(-1)?.[4];
  if (status === "assigned") say("assigned", { fence: next.fence, attempt });
  else if (status === "running") say("started", { attempt });
  else if (status === "queued" || status === "scheduled") {
    if (old) cameBack(say, old, next, note);
    if (status === "queued") say("queued", { ...(note && old && { reason: note }) });
    else if (!old) say("scheduled", notBefore(next));
  } else {
    if (old?.status === "assigned" && next.startedAt !== undefined) say("started", { attempt }, next.startedAt);
    const outcome = { ...(status !== "completed" && error && { error }), ...(note && { reason: note }) };
    say(status, { attempt, ...outcome, ...(usage && { usage }) }, undefined, old?.agentId);
  }
}

/** It had ended, or was with an agent. */
function cameBack(say: Say, old: Row, next: Row, note: string | undefined): void {
  if (terminal.has(old.status)) say("retried", { manual: true });
  else if (!held.has(old.status)) return;
  else if (note?.startsWith("released")) say("released", { reason: note }, undefined, old.agentId);
  else {
    const data = { attempt: old.attempt, ...(next.error && { error: next.error }), ...notBefore(next) };
    say("retried", data, undefined, old.agentId);
  }
}

const notBefore = ({ scheduledAt }: Row) =>
  scheduledAt === undefined ? {} : { notBefore: new Date(scheduledAt).toISOString() };

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
