import { isError, requestErrors, type WaggleError } from "../error.ts";
import type { Put } from "../port/index.ts";
import { tryParse } from "../problem.ts";
import type { Room } from "../quota/reserve.ts";
import type { Scope } from "../scope.ts";
import { build, checkNamed, infoOf, keepInput, newId } from "./build.ts";
import { type CreateOptions, checkKept, lookAgain, recall, roomFor, type Seed, store } from "./create.ts";
import { dependencyCycle, dependencyNotFound, notInBatch } from "./error.ts";
import type { Row } from "./row.ts";
import { BatchEntry, type Create, type Info } from "./schema.ts";
import { readTask } from "./stored.ts";

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
  const entries = resolve(
    input.tasks,
    seed.ids.map((id) => id || newId(scope)),
  );
  for (const [i, entry] of entries.entries()) entry.refused = seed.ids[i] === "";
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
  const rows = await Promise.all(entries.map((entry) => rowOf(scope, entry, seed.at, known)));
  spread(entries);
  if (input.atomic) checkAll(entries);
  const taken = rows.filter((row, i): row is Row => row !== undefined && !entries[i]?.problem);
  for (const row of taken) {
    // Within the batch the flag is written with the row itself.
    if (taken.some((other) => other.dependsOn?.includes(row.id))) Object.assign(row, { dependants: true });
  }
  const fresh = rows.filter((row, i): row is Row => row !== undefined && !entries[i]?.problem && !entries[i]?.stored);
  await Promise.all(
    rows.map((row, i) => (row && fresh.includes(row) ? keepInput(scope, row, entries[i]?.input ?? {}) : undefined)),
  );
  const ids = seed.ids.map((id, i) => (entries[i]?.problem ? "" : id));
  const how = { again: known, remembered: remember?.({ ...seed, ids }), atomic: input.atomic };
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

/** The row of an entry; undefined, and its problem noted, for one that is refused. */
async function rowOf(scope: Scope, entry: Entry, at: number, known: boolean): Promise<Row | undefined> {
  if (entry.problem) return undefined;
  try {
    const made = known && !entry.refused;
    if (made) entry.stored = await readTask(scope, entry.id);
    const { stored } = entry;
    if (made && !stored) await checkKept(scope, entry.id, at);
    const row = await build(scope, entry.input as Create, entry.id, at, { stored });
    if (!stored) await checkNamed(scope, row, entry.siblings);
    // What it lacked then may be there now. Whoever repeats a call is not to find more done than it did.
    if (entry.refused) throw notInBatch("it was refused when this Idempotency-Key was first used");
    return row;
  } catch (error) {
    if (!isError(error)) throw error;
    entry.problem = error;
    return undefined;
  }
}

/** @throws the first entry's problem, with what is wrong with each of them */
function checkAll(entries: readonly Entry[]): void {
  const first = entries.find((entry) => entry.problem)?.problem;
  if (!first) return;
  const errors = entries.flatMap(({ problem }, i) =>
    problem
      ? (problem.extra.errors ?? [{ path: "", message: problem.message }]).map(({ path, message }) => ({
          path: `tasks.${i}${path && `.${path}`}`,
          message,
        }))
      : [],
  );
  throw first.kind(`nothing was taken: ${errors.length} of the batch's entries are wrong`, { errors });
}

interface Entry {
  readonly id: string;
  readonly input?: Create;
  /** Ids of the batch's entries it depends on. */
  readonly siblings: Set<string>;
  /** Taken when it was first asked for. */
  stored?: Row | undefined;
  /** It was, when it was first asked for. */
  refused?: boolean;
  problem?: WaggleError | undefined;
}

/** Checks each entry by itself, names its siblings by id, and refuses cycles. */
function resolve(tasks: readonly unknown[], ids: readonly string[]): Entry[] {
  const parsed = tasks.map((task) => (isError(task) ? { problem: task } : tryParse(BatchEntry, task)));
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
    if (result.problem) return { id, siblings, problem: result.problem };
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
  refuseCycles(entries);
  spread(entries);
  return entries;
}

/** Takes away, round by round, what waits for nothing that is left: what stays waits for itself. */
function refuseCycles(entries: readonly Entry[]): void {
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
