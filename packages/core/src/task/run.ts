import type { z } from "zod/mini";
import { commands } from "../agent/commands.ts";
import type * as Agent from "../agent/schema.ts";
import { checkInline, digestOf, isLarge, type JsonText } from "../json.ts";
import { toAssignment } from "../match/push.ts";
import { fractionOf } from "../port/index.ts";
import { payloadKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { type Changed, change, completeUnread, type Decision, failed, goOn, released } from "./change.ts";
import { leaseLost, missing } from "./error.ts";
import { held, type Row, silenceOf, terminal, toInfo, wasWith } from "./row.ts";
import type * as schema from "./schema.ts";
import { readBlob, readTask } from "./stored.ts";

export interface Ended {
  readonly status: schema.Status;
  readonly fence: number;
  /** Made when it is asked for. */
  readonly task: schema.Info;
  /** The agent's next work, when it asked for some. */
  readonly assignments?: schema.Assignment[];
}

/** The agent's own lease on the task, or what it gets instead: not found for a stranger, lease lost for a former holder. */
function mine(scope: Scope, row: Row, fence: number): void {
  if (row.fence === fence && held.has(row.status) && row.agentId === scope.actor.id) return;
  if (!wasWith(row, scope.actor.id) && fence > 0) throw missing(row.id);
  throw leaseLost(`this attempt no longer holds the task; it is ${row.status}`, {
    data: {
      task: {
        id: row.id,
        status: row.status,
        fence: row.fence,
        attempt: row.attempt,
        ...(row.agentId !== undefined && { agentId: row.agentId }),
        ...(row.error !== undefined && { error: row.error }),
        ...(row.finishedAt !== undefined && { finishedAt: new Date(row.finishedAt).toISOString() }),
      },
    },
  });
}

/** The outcome this very attempt recorded before: repeating it is harmless. */
const recorded = (scope: Scope, row: Row, fence: number): boolean =>
  row.fence === fence && terminal.has(row.status) && row.agentId === scope.actor.id;

/** The attempt begins: run and heartbeat timeouts count from here. Repeating it changes nothing. */
export async function start(scope: Scope, id: string, input: z.output<typeof schema.Start>): Promise<schema.Info> {
  const { row } = await change(scope, id, (row, now) => {
    mine(scope, row, input.fence);
    if (row.status !== "assigned") return undefined;
    return { changes: { status: "running", startedAt: now, beatAt: now }, note: true };
  });
  return toInfo(row);
}

/**
 * A sign of life of one attempt, with what it has to say; answers what the agent is to do.
 * @throws `store.item_too_large` for details of more than 64 KiB
 */
export async function heartbeat(
  scope: Scope,
  id: string,
  input: z.output<typeof schema.Heartbeat>,
): Promise<Agent.Commands> {
  checkInline("details", input.details);
  await change(scope, id, (row, now) => {
    mine(scope, row, input.fence);
    const changes: Decision["changes"] = {};
    if (input.progress !== undefined) changes.progress = { ...row.progress, ...defined(input.progress) };
    if (input.details !== undefined) changes.details = input.details;
    const silentMs = now - (row.beatAt ?? row.startedAt ?? now);
    // Written at a quarter of the timeout: each beat is a paid write, and three of them may be lost.
    const silence = silenceOf(row);
    if (silence !== undefined && silentMs >= silence * 250) changes.beatAt = now;
    if (row.status === "assigned")
      return { changes: { ...changes, status: "running", startedAt: now, beatAt: now }, note: true };
    return Object.keys(changes).length > 0
      ? { changes: { ...changes, ...(silence !== undefined && { beatAt: now }) } }
      : undefined;
  });
  return commands(scope, scope.actor.id);
}

/** Records the result. An attempt that never said it started is taken to have started when it was assigned. */
export async function complete(scope: Scope, id: string, input: z.output<typeof schema.Complete>): Promise<Ended> {
  const { result } = input;
  const resultBlob = await keepLarge(scope, id, input.fence, result);
  const resultBytes = resultBlob === undefined ? undefined : Buffer.byteLength(result as JsonText);
  const outcome = { ...(resultBlob === undefined ? { result } : { resultBlob, resultBytes }), usage: input.usage };
  const record = (row: Row): Decision => ({
    changes: { status: "completed", startedAt: row.startedAt ?? row.assignedAt, ...outcome, error: undefined },
    note: true,
    ended: "completed",
    units: input.usage?.units,
  });
  const tried = scope.ports.shared ? await completeUnread(scope, id, input.fence, outcome) : undefined;
  const done = tried?.done
    ? await goOnFrom(scope, tried.done, input.take)
    : await end(scope, id, input, record, tried?.stands);
  if (resultBlob === undefined || done.task.result !== undefined || done.status !== "completed") return done;
  return { ...done, task: { ...done.task, result: result as JsonText } };
}

/**
 * A result too large for the task's row, as a blob that is there before the row names it. Only from whoever holds the task,
 * and under a name that no other result has: a call that is refused, or repeated with another result, must not touch the one
 * recorded.
 * @returns its name; undefined when it is not large, or is not the one that was recorded before
 */
async function keepLarge(
  scope: Scope,
  id: string,
  fence: number,
  result: JsonText | undefined,
): Promise<string | undefined> {
  if (result === undefined || !isLarge(result)) return undefined;
  const row = await readTask(scope, id);
  if (!row) throw missing(id);
  const key = payloadKey(scope.tenant, row, `result-${fence}-${digestOf(result)}`);
  if (recorded(scope, row, fence)) return row.resultBlob === key ? key : undefined;
  mine(scope, row, fence);
  await scope.ports.blobs.put(key, new TextEncoder().encode(result));
  return key;
}

/** The attempt failed: it is tried again as its policy says, or the task has failed. */
export async function fail(scope: Scope, id: string, input: z.output<typeof schema.Fail>): Promise<Ended> {
  const unit = fractionOf(scope.ports.random);
  return end(scope, id, input, (row, now) => {
    const decision = failed(row, input.error, now, { unit });
    // The outcome is this attempt's own: its fence stays, so that a repeated call finds it.
    const changes = terminal.has(decision.changes.status ?? row.status)
      ? { ...decision.changes, fence: row.fence }
      : decision.changes;
    return {
      ...decision,
      changes: { ...changes, ...(input.usage && { usage: input.usage }) },
      units: input.usage?.units,
    };
  });
}

/** Gives the task back for others, at no cost to its attempts. */
export async function release(scope: Scope, id: string, input: z.output<typeof schema.Release>): Promise<Ended> {
  return end(scope, id, input, (row, now) => {
    const decision = released(row, input.reason ?? "given back by its agent", now);
    return decision.changes.status === "cancelled"
      ? { ...decision, changes: { ...decision.changes, fence: row.fence } }
      : decision;
  });
}

/** @param known the task as the store had it just now */
async function end(
  scope: Scope,
  id: string,
  input: { readonly fence: number; readonly take?: number | undefined },
  decide: (row: Row, now: number) => Decision,
  known?: Row,
): Promise<Ended> {
  const decided = (row: Row, now: number) => {
    if (recorded(scope, row, input.fence)) return undefined;
    mine(scope, row, input.fence);
    return decide(row, now);
  };
  const changed = await change(scope, id, decided, { known });
  const ended = await goOnFrom(scope, changed, input.take);
  const { resultBlob } = changed.row;
  if (changed.row !== changed.before || resultBlob === undefined) return ended;
  // What was recorded before is answered whole, whatever came with this call.
  return { ...ended, task: { ...ended.task, result: await readBlob(scope, resultBlob) } };
}

/** What its agent gets next, and what the call answers. */
async function goOnFrom(scope: Scope, { row, before, agent }: Changed, max: number | undefined): Promise<Ended> {
  const next = await goOn(scope, before, max, agent);
  // A getter: a socket's reply names the task's status and has no use for the rest.
  const ended = {
    status: row.status,
    fence: row.fence,
    get task() {
      return toInfo(row);
    },
  };
  if (max === undefined) return ended;
  const assignments = next ? await Promise.all(next.tasks.map((task) => toAssignment(scope, task, next.member))) : [];
  return Object.assign(ended, { assignments });
}

const defined = <T extends object>(value: T): { [K in keyof T]?: NonNullable<T[K]> } =>
  Object.fromEntries(Object.entries(value).filter(([, part]) => part !== undefined)) as never;
