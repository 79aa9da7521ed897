import { requestErrors, storeErrors } from "../error.ts";
import { createId } from "../id.ts";
import { digestOf, isLarge, type JsonText } from "../json.ts";
import { openFor } from "../match/open.ts";
import { laneOf } from "../match/requirement.ts";
import { itemBytes, storeLimits } from "../port/index.ts";
import { payloadKey, taskKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { defaultCancelGraceSeconds, defaultRetry, limits } from "./defaults.ts";
import { dependencyNotFound, parentNotFound, tooDeep } from "./error.ts";
import { deadlineOf, held, payloadBytes, type Row, toInfo } from "./row.ts";
import type { Create, Info } from "./schema.ts";
import { readTask } from "./stored.ts";

/* What a new task is made of: its row, its large input, and the check of what it names. */

export const newId = (scope: Scope) => createId("tsk", scope.ports.clock.now(), scope.ports.random);

/** @param how `stored`: it was taken before, and is not checked again */
export async function build(
  scope: Scope,
  input: Create,
  id: string,
  now: number,
  { hops, stored }: { hops?: number | undefined; stored?: Row | undefined } = {},
): Promise<Row> {
  const depth = stored ? stored.depth : await depthOf(scope, input.parentId);
  const startAt =
    input.delaySeconds !== undefined
      ? now + input.delaySeconds * 1000
      : input.notBefore !== undefined
        ? Date.parse(input.notBefore)
        : now;
  const waits = input.dependsOn.length > 0 || startAt > now;
  const blob = input.input !== undefined && isLarge(input.input);
  const key = taskKey(scope.tenant, id);
  const dependsOn = input.dependsOn.length > 0 ? [...new Set(input.dependsOn)] : undefined;
  // One literal with every field that most tasks get in their life: all rows have one shape, and copying one is cheap.
  // What was not asked for is not stored: a row is read and logged more often than it is shown.
  const row: Draft = {
    pk: key.pk,
    sk: key.sk,
    kind: "task",
    id,
    tenant: scope.tenant,
    rev: 1,
    type: input.type,
    status: waits ? "scheduled" : "queued",
    priority: input.priority,
    attempt: 0,
    fence: 0,
    slots: input.slots,
    depth,
    strategy: input.strategy,
    lane: laneOf({ ...input, boundAgentId: input.agentId }),
    createdAt: now,
    history: [[now, waits ? "scheduled" : "queued", 0, "", ""]],
    input: blob ? undefined : input.input,
    requires: input.requires.length > 0 ? (input.requires as Row["requires"]) : undefined,
    agentId: undefined,
    decision: undefined,
    queuedAt: waits ? undefined : now,
    assignedAt: undefined,
    startedAt: undefined,
    finishedAt: undefined,
    result: undefined,
    deadlineAt: undefined,
    expiresAt: undefined,
  };
  if (blob) {
    // An id the caller chose may come again with another input, which must not take the place of the first.
    const name = input.id === undefined ? "input" : `input-${digestOf(input.input as JsonText)}`;
    // The time of one that was retried by hand may be another than that which its blob is named by.
    row.inputBlob = stored?.inputBlob?.endsWith(`-${name}`)
      ? stored.inputBlob
      : payloadKey(scope.tenant, { id, createdAt: now }, name);
    row.inputBytes = payloadBytes(input.input);
  }
  if (input.metadata !== undefined) row.metadata = input.metadata;
  if (input.description !== undefined) row.description = input.description;
  if (input.labels.length > 0) row.labels = input.labels as Row["labels"];
  if (input.agentId !== undefined) row.boundAgentId = input.agentId;
  if (input.role !== undefined) row.role = input.role;
  if (input.stickyKey !== undefined) row.stickyKey = input.stickyKey;
  if (dependsOn) {
    row.dependsOn = dependsOn;
    row.unmet = dependsOn;
  }
  if (input.parentId !== undefined) row.parentId = input.parentId;
  if (hasAny(input.timeouts)) row.timeouts = input.timeouts as Row["timeouts"];
  if (!isDefault(input.retry)) row.retry = input.retry;
  if (input.cancelGraceSeconds !== defaultCancelGraceSeconds) row.cancelGraceSeconds = input.cancelGraceSeconds;
  if (input.concurrency.length > 0) row.concurrency = input.concurrency;
  if (input.rate !== undefined) row.rate = input.rate as Row["rate"];
  if (input.fairKey !== undefined) row.fairKey = input.fairKey;
  if (input.tags.length > 0) row.tags = [...new Set(input.tags)];
  const { traceparent } = stored ?? scope;
  if (traceparent !== undefined) row.traceparent = traceparent;
  if (hops !== undefined) row.hops = hops;
  if (startAt > now) row.scheduledAt = startAt;
  row.deadlineAt = deadlineOf(row as Row);
  if (!stored) checkSize(row as Row, input);
  return row as Row;
}

/** What a row may come to have beside what it is made of: a result and details of 64 KiB each, an error, its history. */
const growthBytes = 200 * 1024;
const freshBytes = storeLimits.itemBytes - growthBytes;

/**
 * Metadata and the lists of selectors can make a row too large. The store would say so in the midst of a batch; and of one that is
 * nearly so, when it is given to an agent or done.
 */
function checkSize(row: Row, { metadata, labels }: Create): void {
  // All else that a caller can give comes to less than 150 KB, a selector to less than 40 KB.
  if ((metadata?.length ?? 0) * 3 + labels.length * 40_000 < freshBytes - 150_000) return;
  const bytes = itemBytes(row);
  if (bytes <= freshBytes) return;
  const path = (metadata?.length ?? 0) * 3 > bytes / 2 ? "metadata" : "labels";
  throw storeErrors.itemTooLarge(`the task is ${bytes} bytes; at most ${freshBytes}`, {
    errors: [{ path, message: `the task takes ${bytes} bytes; at most ${freshBytes}, beside an input above 64 KiB` }],
  });
}

type Draft = { -readonly [Field in keyof Row]: Row[Field] | undefined };

const hasAny = (fields: object): boolean => {
  for (const name in fields) if (fields[name as never] !== undefined) return true;
  return false;
};

const isDefault = (retry: Create["retry"]) =>
  retry.maxAttempts === defaultRetry.maxAttempts &&
  retry.initialSeconds === defaultRetry.initialSeconds &&
  retry.factor === defaultRetry.factor &&
  retry.maxSeconds === defaultRetry.maxSeconds &&
  retry.nonRetryable.length === 0;

/** What a task that is new names has to be there. One that was taken goes on without. */
export async function checkNamed(scope: Scope, row: Row, siblings: ReadonlySet<string> = new Set()): Promise<void> {
  const { boundAgentId } = row;
  if (boundAgentId !== undefined) {
    const { members } = await openFor(scope.ports, scope.tenant, boundAgentId);
    if (!members.has(boundAgentId))
      throw requestErrors.invalid(`there is no agent ${boundAgentId}`, {
        errors: [{ path: "agentId", message: "no such agent, or it is stopped" }],
      });
  }
  const others = (row.dependsOn ?? []).filter((id) => !siblings.has(id));
  if (others.length === 0) return;
  const found = await scope.ports.store.batchGet(others.map((id) => taskKey(scope.tenant, id)));
  const errors = others.flatMap((id, i) =>
    found[i]
      ? []
      : [
          {
            path: `dependsOn.${row.dependsOn?.indexOf(id)}`,
            message: `there is no task ${id}, or it is past its retention`,
          },
        ],
  );
  if (errors.length > 0) throw dependencyNotFound("a task can only depend on tasks that exist", { errors });
}

/**
 * How many generations a new task has above it. An agent may only make children of a task it holds.
 * @throws `task.parent_not_found`, `task.too_deep`, `auth.forbidden`
 */
async function depthOf(scope: Scope, parentId: string | undefined): Promise<number> {
  const isAgent = scope.actor.role === "agent";
  if (parentId === undefined) {
    if (!isAgent) return 0;
    throw requestErrors.forbidden("an agent may only make children of a task it holds: give its id as parentId");
  }
  const parent = await readTask(scope, parentId);
  if (isAgent && !(parent && held.has(parent.status) && parent.agentId === scope.actor.id))
    throw parentNotFound(`this agent holds no task ${parentId}`, {
      errors: [{ path: "parentId", message: "not a task this agent holds" }],
    });
  if (!parent)
    throw parentNotFound(`there is no task ${parentId}`, { errors: [{ path: "parentId", message: "no such task" }] });
  if (parent.depth >= limits.depth)
    throw tooDeep(`a task may have at most ${limits.depth} generations above it`, {
      errors: [{ path: "parentId", message: "its parent is too deep" }],
    });
  return parent.depth + 1;
}

/** Puts a large input where its row will name it: only once nothing stands in the way of the task. */
export async function keepInput({ ports }: Scope, row: Row, input: { input?: JsonText | undefined }): Promise<void> {
  if (row.inputBlob !== undefined) await ports.blobs.put(row.inputBlob, new TextEncoder().encode(input.input));
}

/** The answer shows the input even where it is kept as a blob. */
export function infoOf(row: Row, input: { input?: JsonText | undefined }): Info {
  const info = toInfo(row);
  return input.input === undefined ? info : { ...info, input: input.input };
}
