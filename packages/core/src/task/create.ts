import { requestErrors, storeErrors } from "../error.ts";
import { idempotencyKeptMs, otherRequest } from "../idempotency.ts";
import { canonical } from "../json.ts";
import { admissible, admit, admitEach } from "../match/admit.ts";
import { policyOf } from "../policy.ts";
import type { Put, Write } from "../port/index.ts";
import { type Room, reserve } from "../quota/reserve.ts";
import { isRetired } from "../retention/retention.ts";
import { idempotencyKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { build, checkNamed, infoOf, keepInput, newId } from "./build.ts";
import { catchUp, type Ended, link } from "./dependency.ts";
import { gone } from "./error.ts";
import { askedFields, payloadBytes, type Row, taskBytes, wasWith } from "./row.ts";
import type { BatchEntry, Create, Info } from "./schema.ts";
import { readTask } from "./stored.ts";

export interface CreateOptions {
  /** `key`: as the caller gave it; `hash`: of the whole request. Kept for 24 h. */
  readonly idempotency?: { readonly key: string; readonly hash: string };
  /** How many tasks caused one another by their events before this one, itself included. */
  readonly hops?: number;
  /** Its agent is looked for by `dispatch`, and not by whoever submits it. */
  readonly queued?: boolean;
}

/** What makes the same request make the same tasks again. */
export interface Seed {
  /** Of a batch: empty for an entry that was refused. */
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
  { idempotency, hops, queued = false }: CreateOptions = {},
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
      const named = input.id !== undefined;
      const keyFirst = scope.ports.shared && !named;
      if (await store(scope, [row], { remembered: remember?.({ ids: [id], at }), keyFirst, queued, named })) {
        room?.taken();
        return { task: infoOf(row, input), replayed: false };
      }
      await dropInput(scope, row);
      const taken = await madeBefore(scope, input, at);
      if (taken) return taken;
      // The same key was used meanwhile: what it made is the answer.
    } finally {
      room?.release();
    }
  }
}

/** Another call stored the task first, with an input of its own. */
async function dropInput(scope: Scope, { id, inputBlob }: Row): Promise<void> {
  const stored = inputBlob === undefined ? undefined : await readTask(scope, id);
  if (stored && stored.inputBlob !== inputBlob) await scope.ports.blobs.delete(inputBlob as string);
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
export async function lookAgain(scope: Scope, stored: Row): Promise<void> {
  if (stored.unmet) await catchUp(scope, stored, await link(scope, [stored], { later: () => true }));
}

/** Room for new tasks in the tenant's quotas. One that is there already, asked for again, needs none. */
export async function roomFor(
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

/** A task that an Idempotency-Key stands for, and that is not there, is not made again if it may have ended and been deleted. */
export async function checkKept({ ports, tenant }: Scope, id: string, createdAt: number): Promise<void> {
  if (isRetired(await policyOf(ports, tenant), createdAt, ports.clock.now()))
    throw gone(`task ${id}, which this Idempotency-Key made, is past its retention`);
}

/** What a caller says of a task. Times are left out: a delay counts from whenever it is asked for. */
const asked = [...askedFields, "input", "inputBlob", "cancelGraceSeconds", "metadata"] as const;

/** @throws `idempotency.mismatch` where the task that has the id was asked for in other words */
function checkSame(taken: Row, row: Row): void {
  for (const name of asked)
    if (canonical(taken[name]) !== canonical(row[name]))
      throw requestErrors.idempotencyMismatch(`the id ${row.id} was used for a different task; use a new one`, {
        errors: [{ path: "id", message: `its task differs in ${name === "inputBlob" ? "input" : name}` }],
      });
}

/** What the key stands for already, or how to make it stand for something, if nobody else does first. */
export async function recall(
  scope: Scope,
  idempotency: CreateOptions["idempotency"],
): Promise<{ seed?: Seed; remember?: (seed: Seed) => Put }> {
  if (!idempotency) return {};
  const { key, hash } = idempotency;
  const { store, clock } = scope.ports;
  const row = await store.get(idempotencyKey(scope.tenant, key));
  const stale = row && (row.expiresAt as number) <= clock.now();
  if (row && !stale) {
    if (row.hash !== hash) throw otherRequest();
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
        expiresAt: clock.now() + idempotencyKeptMs,
      },
      if: row ? { equals: { expiresAt: row.expiresAt as number } } : { exists: false },
    }),
  };
}

interface HowStored {
  /** The call comes again: what is there already stays, and the rest is made now. */
  readonly again?: boolean;
  /** What makes the caller's key stand for these tasks. */
  readonly remembered?: Put | undefined;
  /** All or none. */
  readonly atomic?: boolean;
  /** The key goes by itself, before the tasks. */
  readonly keyFirst?: boolean;
  /** Its agent is looked for by `dispatch`, not now. */
  readonly queued?: boolean;
  /** Those they depend on may come after them. */
  readonly ahead?: boolean;
  /** Its id was chosen by the caller, and may be another's choice as well. */
  readonly named?: boolean;
}

/**
 * Writes new tasks so that no crash between any two calls loses one that was acknowledged, or wakes one twice.
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
    queued = false,
    ahead = false,
    named = false,
  }: HowStored,
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
    await storeTogether(scope, rows, [], queued);
  } else if (rows.length === 1 || (atomic && rows.length < 100)) {
    const stored = await storeTogether(scope, rows, remembered ? [remembered] : [], queued);
    // An id that nobody else has is there by this very call: its reply was lost, and others went on from the task before it came again.
    if (!stored && (named || !(await readTask(scope, (rows[0] as Row).id)))) return false;
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
async function storeTogether(
  scope: Scope,
  rows: readonly Row[],
  others: readonly Write[],
  queued = false,
): Promise<boolean> {
  const [first] = rows;
  if (!queued && first && rows.length === 1 && admissible(scope.ports, first)) {
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
