import { isError } from "../error.ts";
import { dependantPartition, taskKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { change } from "./change.ts";
import { notFound, outcome } from "./error.ts";
import { type Row, terminal } from "./row.ts";
import type { Status } from "./schema.ts";

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

/**
 * Has those a task waits for tell it of their end. To be called before the task is stored as waiting, and `meetEnded` after: what
 * ended in between told nobody.
 * @param own tasks stored along with these: they tell each other without
 */
export async function linkToDependencies(
  scope: Scope,
  rows: readonly Pick<Row, "id" | "unmet">[],
  own: ReadonlySet<string> = new Set(),
): Promise<void> {
  const { store } = scope.ports;
  const links = rows.flatMap(({ id, unmet = [] }) =>
    unmet.map((on) => ({ put: { pk: dependantPartition(scope.tenant, on), sk: id, kind: "dependant" } })),
  );
  await store.batchWrite(links);
  const others = new Set(rows.flatMap(({ unmet = [] }) => unmet).filter((on) => !own.has(on)));
  for (const on of others)
    await store.write({
      update: taskKey(scope.tenant, on),
      kind: "task",
      set: { dependants: true },
      if: { exists: true },
    });
}

/** Of the tasks it waits for, those that have ended are waited for no longer. @returns whether there were any */
export async function meetEnded(
  scope: Scope,
  { id, unmet = [] }: Pick<Row, "id" | "unmet">,
  own: ReadonlySet<string> = new Set(),
): Promise<boolean> {
  const others = unmet.filter((on) => !own.has(on));
  if (others.length === 0) return false;
  const found = await scope.ports.store.batchGet(others.map((on) => taskKey(scope.tenant, on)));
  const ended = (found as (Row | undefined)[]).filter((row) => row !== undefined && terminal.has(row.status)) as Row[];
  for (const dependency of ended) await dependencyEnded(scope, id, dependency.id, dependency.status);
  return ended.length > 0;
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
