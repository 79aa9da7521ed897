import type { z } from "zod";
import { isError, requestErrors, storeErrors, type WaggleError } from "../error.ts";
import { createId } from "../id.ts";
import { digestOf, isLarge, type JsonText } from "../json.ts";
import { admissible, admit, admitEach } from "../match/admit.ts";
import { readTask } from "../match/assignment.ts";
import { openFor } from "../match/directory.ts";
import { laneOf } from "../match/requirement.ts";
import { policyOf } from "../policy.ts";
import { itemBytes, type Put, storeLimits, type Write } from "../port/index.ts";
import { type Room, reserve } from "../quota/reserve.ts";
import { isRetired } from "../retention/retention.ts";
import { idempotencyKey, taskKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { catchUp, type Ended, link } from "./dependency.ts";
import { dependencyCycle, dependencyNotFound, gone, limits, notInBatch, parentNotFound, tooDeep } from "./error.ts";
import { deadlineOf, defaultRetry, held, payloadBytes, type Row, taskBytes, toInfo, wasWith } from "./row.ts";
import { BatchEntry, type Create, type Info } from "./schema.ts";

export interface CreateOptions {
  /** `key`: as the caller gave it; `hash`: of the whole request. Kept for 24 h. */
  readonly idempotency?: { readonly key: string; readonly hash: string };
  /** How many tasks caused one another by their events before this one, itself included. */
  readonly hops?: number;
}
const keptMs = 24 * 3600 * 1000;

/** What makes the same request make the same tasks again. */
interface Seed {
  readonly ids: readonly string[];
  readonly at: number;
}

/**
 * Takes a task. It is `queued`, or `scheduled` while it has to wait for a time or for other tasks.
 * Asked for again under the same `id`, it answers the task as it stands; under the same key, as it was first answered. What it was
 * checked for then may have changed since.
 * @throws `idempotency.mismatch`, `task.dependency_not_found`, `task.parent_not_found`, `task.too_deep`, `task.gone`, `request.invalid`,
 *   and `auth.forbidden` to an agent that names no parent
 */
export async function create(
  scope: Scope,
  input: Create,
  { idempotency, hops }: CreateOptions = {},
): Promise<{ task: Info; replayed: boolean }> {
  for (;;) {
    const { seed: known, remember } = await recall(scope, idempotency);
    if (known) return { task: infoOf(await makeAgain(scope, input, known, hops), input), replayed: true };
    const id = input.id ?? newId(scope);
    const at = scope.ports.clock.now();
    const room = await roomFor(scope, [input]);
    try {
      let row: Row;
      try {
        row = await build(scope, input, id, at, { hops });
        await checkNamed(scope, row);
      } catch (error) {
        const taken = await madeBefore(scope, input, at);
        if (taken) return taken;
        throw error;
      }
      if (row.inputBlob !== undefined) {
        const taken = await madeBefore(scope, input, at);
        if (taken) return taken;
        await keepInput(scope, row, input);
      }
      // Where a transaction costs twice its writes, the key goes first: a repeated call then makes the very task it names.
      const keyFirst = scope.ports.shared && input.id === undefined;
      if (await store(scope, [row], { remembered: remember?.({ ids: [id], at }), keyFirst })) {
        room?.taken();
        return { task: infoOf(row, input), replayed: false };
      }
      const taken = await madeBefore(scope, input, at);
      if (taken) return taken;
      // The same key was used meanwhile: what it made is the answer.
    } finally {
      room?.release();
    }
  }
}

/** The task that has the id the caller chose, as it stands, if it was asked for in the same words. */
async function madeBefore(
  scope: Scope,
  input: Create,
  at: number,
): Promise<{ task: Info; replayed: true } | undefined> {
  const stored = input.id === undefined ? undefined : await readTask(scope, input.id);
  if (!stored || !(await hadParent(scope, input))) return undefined;
  checkSame(stored, await build(scope, input, stored.id, at, { stored }));
  await lookAgain(scope, stored);
  return { task: infoOf(stored, input), replayed: true };
}

/** An agent sees the children of a task that it has or had, and may have lost since it asked for one. */
async function hadParent(scope: Scope, { parentId }: Create): Promise<boolean> {
  if (scope.actor.role !== "agent") return true;
  const parent = parentId === undefined ? undefined : await readTask(scope, parentId);
  return parent !== undefined && wasWith(parent, scope.actor.id);
}

/** The task a key stands for, as it was first answered; made now if whoever stored the key died before it. @throws `task.gone` */
async function makeAgain(scope: Scope, input: Create, seed: Seed, hops: number | undefined): Promise<Row> {
  const [id] = seed.ids as [string];
  const stored = await readTask(scope, id);
  if (!stored) await checkKept(scope, id, seed.at);
  const row = await build(scope, input, id, seed.at, { hops, stored });
  if (stored) {
    await lookAgain(scope, stored);
    return row;
  }
  await checkNamed(scope, row);
  await keepInput(scope, row, input);
  return (await store(scope, [row], { again: true })) ? row : makeAgain(scope, input, seed, hops);
}

/** Whoever stored it may have died before the look at its dependencies that has to follow. */
async function lookAgain(scope: Scope, stored: Row): Promise<void> {
  if (stored.unmet) await catchUp(scope, stored, await link(scope, [stored], { later: () => true }));
}

/** Room for new tasks in the tenant's quotas. One that is there already, asked for again, needs none. */
async function roomFor(
  scope: Scope,
  inputs: readonly (BatchEntry & { id?: string | undefined })[],
): Promise<Room | undefined> {
  const count = inputs.length;
  const bytes = () =>
    inputs.reduce((sum, { input, metadata }) => sum + taskBytes + payloadBytes(input) + payloadBytes(metadata), 0);
  try {
    return await reserve(scope, () => ({ tasks: count, waiting: count, bytes: bytes(), submits: count }));
  } catch (error) {
    const id = inputs[0]?.id;
    if (id !== undefined && (await readTask(scope, id))) return undefined;
    throw error;
  }
}

export type BatchResult = { readonly task: Info } | { readonly problem: WaggleError };

/**
 * Takes up to 100 tasks. Each entry gets a task or a problem, in order; with `atomic` all are taken or, by a throw, none.
 * Entries may depend on one another by `"ref:name"`.
 */
export async function createBatch(
  scope: Scope,
  input: { readonly tasks: readonly unknown[]; readonly atomic: boolean },
  options: CreateOptions = {},
): Promise<{ results: BatchResult[]; replayed: boolean }> {
  const { seed: known, remember } = await recall(scope, options.idempotency);
  const seed: Seed = known ?? { ids: input.tasks.map(() => newId(scope)), at: scope.ports.clock.now() };
  const entries = resolve(input.tasks, seed.ids);
  const wanted = known ? [] : entries.flatMap(({ input, problem }) => (input && !problem ? [input] : []));
  const room = await roomFor(scope, wanted);
  try {
    return await makeBatch(scope, input, options, { seed, known: known !== undefined, remember, entries, room });
  } finally {
    room?.release();
  }
}

interface Batch {
  readonly seed: Seed;
  readonly known: boolean;
  readonly remember: ((seed: Seed) => Put) | undefined;
  readonly entries: readonly Entry[];
  readonly room: Room | undefined;
}

async function makeBatch(
  scope: Scope,
  input: { readonly tasks: readonly unknown[]; readonly atomic: boolean },
  options: CreateOptions,
  { seed, known, remember, entries, room }: Batch,
): Promise<{ results: BatchResult[]; replayed: boolean }> {
  const rows: (Row | undefined)[] = await Promise.all(
    entries.map(async (entry) => {
      if (entry.problem) return undefined;
      try {
        if (known) entry.stored = await readTask(scope, entry.id);
        const { stored } = entry;
        if (known && !stored) await checkKept(scope, entry.id, seed.at);
        const row = await build(scope, entry.input as Create, entry.id, seed.at, { stored });
        if (!stored) await checkNamed(scope, row, entry.siblings);
        return row;
      } catch (error) {
        if (!isError(error)) throw error;
        entry.problem = error;
        return undefined;
      }
    }),
  );
  spread(entries);
  const first = entries.find((entry) => entry.problem);
  if (input.atomic && first) {
    const errors = entries.flatMap(({ problem }, i) =>
      problem
        ? (problem.extra.errors ?? [{ path: "", message: problem.message }]).map(({ path, message }) => ({
            path: `tasks.${i}${path && `.${path}`}`,
            message,
          }))
        : [],
    );
    const { kind } = first.problem as WaggleError;
    throw kind(`nothing was taken: ${errors.length} of the batch's entries are wrong`, { errors });
  }
  const taken = rows.filter((row, i): row is Row => row !== undefined && !entries[i]?.problem);
  for (const row of taken) {
    // Within the batch the flag is written with the row itself.
    if (taken.some((other) => other.dependsOn?.includes(row.id))) Object.assign(row, { dependants: true });
  }
  const fresh = rows.filter((row, i): row is Row => row !== undefined && !entries[i]?.problem && !entries[i]?.stored);
  await Promise.all(
    rows.map((row, i) => (row && fresh.includes(row) ? keepInput(scope, row, entries[i]?.input ?? {}) : undefined)),
  );
  const how = { again: known, remembered: remember?.(seed), atomic: input.atomic };
  if (fresh.length > 0 && !(await store(scope, fresh, how))) {
    room?.release();
    return createBatch(scope, input, options);
  }
  for (const { stored } of entries) if (stored) await lookAgain(scope, stored);
  room?.taken();
  const results = entries.map(
    (entry, i): BatchResult =>
      entry.problem ? { problem: entry.problem } : { task: infoOf(rows[i] as Row, entry.input as Create) },
  );
  return { results, replayed: known };
}

/** A task that an Idempotency-Key stands for, and that is not there, is not made again if it may have ended and been deleted. */
async function checkKept({ ports, tenant }: Scope, id: string, createdAt: number): Promise<void> {
  if (isRetired(await policyOf(ports, tenant), createdAt, ports.clock.now()))
    throw gone(`task ${id}, which this Idempotency-Key made, is past its retention`);
}

/** What a caller says of a task. Times are left out: a delay counts from whenever it is asked for. */
const asked = [
  ...["type", "input", "inputBlob", "description", "priority", "requires", "labels", "boundAgentId", "role"],
  ...["stickyKey", "strategy", "slots", "dependsOn", "parentId", "timeouts", "cancelGraceSeconds", "retry"],
  ...["concurrency", "rate", "fairKey", "tags", "metadata"],
] as const;

/** @throws `idempotency.mismatch` where the task that has the id was asked for in other words */
function checkSame(taken: Row, row: Row): void {
  for (const name of asked)
    if (JSON.stringify(taken[name]) !== JSON.stringify(row[name]))
      throw requestErrors.idempotencyMismatch(`the id ${row.id} was used for a different task; use a new one`, {
        errors: [{ path: "id", message: `its task differs in ${name === "inputBlob" ? "input" : name}` }],
      });
}

const newId = (scope: Scope) => createId("tsk", scope.ports.clock.now(), scope.ports.random);

/** Puts a large input where its row will name it: only once nothing stands in the way of the task. */
async function keepInput({ ports }: Scope, row: Row, input: { input?: JsonText | undefined }): Promise<void> {
  if (row.inputBlob !== undefined) await ports.blobs.put(row.inputBlob, new TextEncoder().encode(input.input));
}

/** The answer shows the input even where it is kept as a blob. */
function infoOf(row: Row, input: { input?: JsonText | undefined }): Info {
  const info = toInfo(row);
  return input.input === undefined ? info : { ...info, input: input.input };
}

/** What the key stands for already, or how to make it stand for something, if nobody else does first. */
async function recall(
  scope: Scope,
  idempotency: CreateOptions["idempotency"],
): Promise<{ seed?: Seed; remember?: (seed: Seed) => Put }> {
  if (!idempotency) return {};
  const { key, hash } = idempotency;
  const { store, clock } = scope.ports;
  const row = await store.get(idempotencyKey(scope.tenant, key));
  const stale = row && (row.expiresAt as number) <= clock.now();
  if (row && !stale) {
    if (row.hash !== hash)
      throw requestErrors.idempotencyMismatch("this Idempotency-Key was used for a different request; use a new key");
    return { seed: { ids: row.ids as string[], at: row.at as number } };
  }
  return {
    remember: ({ ids, at }) => ({
      put: {
        ...idempotencyKey(scope.tenant, key),
        kind: "idempotency",
        hash,
        ids,
        at,
        expiresAt: clock.now() + keptMs,
      },
      if: row ? { equals: { expiresAt: row.expiresAt as number } } : { exists: false },
    }),
  };
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

/** @param how `stored`: it was taken before, and is not checked again */
async function build(
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
    const part = input.id === undefined ? "input" : `input-${digestOf(input.input as JsonText)}`;
    row.inputBlob = `${scope.tenant}/${id}/${part}`;
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
  if (input.cancelGraceSeconds !== 10) row.cancelGraceSeconds = input.cancelGraceSeconds;
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
async function checkNamed(scope: Scope, row: Row, siblings: ReadonlySet<string> = new Set()): Promise<void> {
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
 * Writes new tasks so that no crash between any two calls loses one that was acknowledged, or wakes one twice.
 * @param how `ahead`: those they depend on may come after them
 * @returns false when another request with the same key was quicker, or a task that one depends on has been deleted since it was
 *   looked for: then no task was written
 */
export async function store(
  scope: Scope,
  rows: readonly Row[],
  {
    again = false,
    remembered,
    atomic = false,
    keyFirst = false,
    ahead = false,
  }: {
    again?: boolean;
    remembered?: Put | undefined;
    atomic?: boolean;
    keyFirst?: boolean;
    ahead?: boolean;
  },
): Promise<boolean> {
  const { store } = scope.ports;
  const begun = store.generation();
  const waiting = rows.filter((row) => row.unmet !== undefined);
  const together = new Set(rows.map((row) => row.id));
  // Those of a call that comes again may have ended long ago.
  const own = again ? new Set<string>() : together;
  const later = (id: string) => ahead || together.has(id);
  const ended = waiting.length > 0 ? await link(scope, waiting, { own, later }) : noneEnded;
  if (!ended) return false;
  if (again) {
    await announce(scope, rows);
    for (const row of rows) await store.write({ put: row, if: { exists: false } });
  } else if (keyFirst && remembered) {
    if (!(await store.write(remembered)).ok) return false;
    await storeTogether(scope, rows, []);
  } else if (rows.length === 1 || (atomic && rows.length < 100)) {
    if (!(await storeTogether(scope, rows, remembered ? [remembered] : []))) return false;
  } else {
    if (remembered && !(await store.write(remembered)).ok) return false;
    if (atomic) await storeTogether(scope, rows, []);
    else await storeEach(scope, rows, remembered, begun);
  }
  for (const row of waiting) await catchUp(scope, row, ended, own);
  return true;
}

const noneEnded: Ended = new Map();

/** All or none. @returns false when a condition refused it */
async function storeTogether(scope: Scope, rows: readonly Row[], others: readonly Write[]): Promise<boolean> {
  const [first] = rows;
  if (first && rows.length === 1 && admissible(scope.ports, first)) {
    const admitted = await admit(scope, first, others);
    if (admitted !== undefined) return admitted === "stored";
  }
  await announce(scope, rows);
  const puts = rows.map((row) => ({ put: row, if: { exists: false } }));
  return (await scope.ports.store.transact([...puts, ...others])).ok;
}

/**
 * Each by itself: those that wait for others first, so that they are there when one of the others has ended.
 * @param begun the store's generation before the key was remembered: where that was taken back, as the disk failed, the call comes
 *   again and makes other tasks
 * @throws `store.unavailable`
 */
async function storeEach(
  scope: Scope,
  rows: readonly Row[],
  remembered: Put | undefined,
  begun: number,
): Promise<void> {
  const { store } = scope.ports;
  const write = (some: readonly Row[]): Promise<void> => {
    if (store.generation() !== begun) throw takenBack();
    return store.batchWrite(some.map((row) => ({ put: row, if: { exists: false } })));
  };
  await write(rows.filter((row) => row.status !== "queued"));
  const queued = rows.filter((row) => row.status === "queued");
  const left = await (scope.ports.shared ? admitEach(scope, queued) : admitted(scope, queued, remembered));
  await announce(scope, left);
  await write(left);
}

const takenBack = () =>
  storeErrors.unavailable("a write failed meanwhile, and was taken back", { retryAfterSeconds: 1 });

/** @returns those that are still to be stored */
async function admitted(scope: Scope, rows: readonly Row[], remembered: Put | undefined): Promise<readonly Row[]> {
  const key = remembered && { pk: remembered.put.pk, sk: remembered.put.sk };
  const stands: Write[] = key ? [{ check: key, if: { exists: true } }] : [];
  const left: Row[] = [];
  // One after the other: they are served in the order they came.
  for (const row of rows) {
    const outcome = admissible(scope.ports, row) ? await admit(scope, row, stands) : undefined;
    if (outcome === "refused") throw takenBack();
    if (outcome === undefined) left.push(row);
  }
  return left;
}

/**
 * Messages go before rows: one that finds no task is dropped, a task without a message would wait until somebody looks. In one process
 * the outbox sends them.
 */
async function announce(scope: Scope, rows: readonly Row[]): Promise<void> {
  if (!scope.ports.shared) return;
  const messages = rows
    .filter((row) => row.status === "queued")
    .map((row) => ({ body: { tenant: scope.tenant, id: row.id } }));
  if (messages.length > 0) await scope.ports.queues.dispatch.send(messages);
}

interface Entry {
  readonly id: string;
  readonly input?: Create;
  /** Ids of the batch's entries it depends on. */
  readonly siblings: Set<string>;
  /** Taken when it was first asked for. */
  stored?: Row | undefined;
  problem?: WaggleError | undefined;
}

/** Checks each entry by itself, names its siblings by id, and refuses cycles. */
function resolve(tasks: readonly unknown[], ids: readonly string[]): Entry[] {
  const parsed = tasks.map((task) => BatchEntry.safeParse(task));
  const byRef = new Map<string, number>();
  const twice = new Set<string>();
  for (const [i, { data }] of parsed.entries()) {
    if (data?.ref === undefined) continue;
    if (byRef.has(data.ref)) twice.add(data.ref);
    else byRef.set(data.ref, i);
  }
  const entries = parsed.map((result, i): Entry => {
    const id = ids[i] as string;
    const siblings = new Set<string>();
    if (!result.success) return { id, siblings, problem: invalid(result.error) };
    const { ref, ...data } = result.data;
    if (ref !== undefined && twice.has(ref)) {
      return {
        id,
        siblings,
        problem: requestErrors.invalid(`ref ${ref} is used twice`, {
          errors: [{ path: "ref", message: "used twice in the batch" }],
        }),
      };
    }
    const missing: { path: string; message: string }[] = [];
    const dependsOn = data.dependsOn.map((on, at) => {
      if (!on.startsWith("ref:")) return on;
      const index = byRef.get(on.slice(4));
      if (index === undefined) {
        missing.push({ path: `dependsOn.${at}`, message: `no entry of the batch has ref ${on.slice(4)}` });
        return on;
      }
      siblings.add(ids[index] as string);
      return ids[index] as string;
    });
    if (missing.length > 0)
      return { id, siblings, problem: dependencyNotFound("a ref is not in the batch", { errors: missing }) };
    return { id, siblings, input: { ...data, dependsOn } as Create };
  });
  const byId = new Map(entries.map((entry) => [entry.id, entry]));
  const open = new Map(entries.map((entry) => [entry.id, new Set([...entry.siblings].filter((id) => byId.has(id)))]));
  for (let progress = true; progress; ) {
    progress = false;
    for (const [id, siblings] of open) {
      for (const sibling of siblings) if (!open.has(sibling)) siblings.delete(sibling);
      if (siblings.size === 0) {
        open.delete(id);
        progress = true;
      }
    }
  }
  for (const id of open.keys()) {
    const entry = byId.get(id) as Entry;
    entry.problem ??= dependencyCycle("these entries wait for one another for ever", {
      errors: [{ path: "dependsOn", message: "is part of, or waits for, a cycle" }],
    });
  }
  spread(entries);
  return entries;
}

/** An entry that depends on a refused one is refused too. */
function spread(entries: readonly Entry[]): void {
  const refused = new Set(entries.filter((entry) => entry.problem).map((entry) => entry.id));
  for (let progress = true; progress; ) {
    progress = false;
    for (const entry of entries) {
      if (entry.problem || entry.stored || ![...entry.siblings].some((id) => refused.has(id))) continue;
      entry.problem = notInBatch("an entry it depends on was refused", {
        errors: [{ path: "dependsOn", message: "names an entry that was refused" }],
      });
      refused.add(entry.id);
      progress = true;
    }
  }
}

/** A zod error as the problem a caller gets. */
export function invalid(error: z.ZodError): WaggleError {
  const errors = error.issues.slice(0, 20).map((issue) => ({
    path: [...issue.path, ...(issue.code === "unrecognized_keys" ? issue.keys.slice(0, 1) : [])].join("."),
    message: issue.message,
  }));
  return requestErrors.invalid(errors.map(({ path, message }) => (path ? `${path}: ${message}` : message)).join("; "), {
    errors,
  });
}
