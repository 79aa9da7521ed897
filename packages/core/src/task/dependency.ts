import { isError } from "../error.ts";
import { dependantPartition, taskKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { change } from "./change.ts";
import { notFound, outcome } from "./error.ts";
import { type Row, terminal } from "./row.ts";
import type { Status } from "./schema.ts";

/**
 * Sees to it that those tasks are told when the ones they wait for end. Comes before their rows are written, and `catchUp` after.
 * @param own written together with them, and saying themselves that somebody waits
 */
export async function link(
  scope: Scope,
  waiting: readonly Pick<Row, "id" | "unmet">[],
  own: ReadonlySet<string> = new Set(),
): Promise<void> {
  const { store } = scope.ports;
  await store.batchWrite(
    waiting.flatMap(({ id, unmet = [] }) =>
      unmet.map((on) => ({ put: { pk: dependantPartition(scope.tenant, on), sk: id, kind: "dependant" } })),
    ),
  );
  const others = new Set(waiting.flatMap(({ unmet = [] }) => unmet).filter((on) => !own.has(on)));
  for (const on of others) {
    const update = taskKey(scope.tenant, on);
    await store.write({ update, kind: "task", set: { dependants: true }, if: { exists: true } });
  }
}

/** What a task waits for may have ended before it was linked, and then told it nothing. @returns whether some had */
export async function catchUp(
  scope: Scope,
  { id, unmet = [] }: Pick<Row, "id" | "unmet">,
  own: ReadonlySet<string> = new Set(),
): Promise<boolean> {
  const others = unmet.filter((on) => !own.has(on));
  if (others.length === 0) return false;
  const { store } = scope.ports;
  const found = (await store.batchGet(others.map((on) => taskKey(scope.tenant, on)))) as (Row | undefined)[];
  const ended = found.flatMap((row) => (row && terminal.has(row.status) ? [row] : []));
  for (const dependency of ended) await dependencyEnded(scope, id, dependency.id, dependency.status);
  await store.batchWrite(ended.map((row) => ({ delete: { pk: dependantPartition(scope.tenant, row.id), sk: id } })));
  return ended.length > 0;
}

/** One dependency of a waiting task has ended: the task is nearer its start, or will never have one. */
export async function dependencyEnded(scope: Scope, id: string, dependencyId: string, status: Status): Promise<void> {
  try {
    await change(scope, id, (row, now) => {
      if (row.status !== "scheduled" || !row.unmet?.includes(dependencyId)) return undefined;
      if (status !== "completed") {
        const message = `dependency ${dependencyId} ended ${status}`;
        return {
          changes: { status: "failed", error: { code: outcome.dependencyFailed, message }, unmet: undefined },
          note: message,
        };
      }
      const unmet = row.unmet.filter((other) => other !== dependencyId);
      if (unmet.length > 0) return { changes: { unmet } };
      if (row.scheduledAt !== undefined && row.scheduledAt > now) return { changes: { unmet: undefined } };
      return {
        changes: { unmet: undefined, status: "queued", queuedAt: now, scheduledAt: undefined },
        note: "dependencies met",
      };
    });
  } catch (error) {
    if (!isError(error, notFound)) throw error;
  }
}

/** Tells all that wait for a task how it ended. */
export async function tellDependants(scope: Scope, id: string, status: Status): Promise<void> {
  const pk = dependantPartition(scope.tenant, id);
  for (;;) {
    const page = await scope.ports.store.query({ pk, limit: 100 });
    if (page.items.length === 0) return;
    for (const { sk } of page.items) await dependencyEnded(scope, sk, id, status);
    await scope.ports.store.batchWrite(page.items.map((item) => ({ delete: { pk, sk: item.sk } })));
  }
}
