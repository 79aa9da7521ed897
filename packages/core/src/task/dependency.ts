import { isError } from "../error.ts";
import { dependantPartition, taskKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { change } from "./change.ts";
import { notFound, outcome } from "./error.ts";
import { type Row, terminal } from "./row.ts";
import { type Status, statuses } from "./schema.ts";
import { readTask } from "./stored.ts";

/** How those ended that tell nobody any more. They may be deleted before anybody looks again. */
export type Ended = ReadonlyMap<string, Status>;

/**
 * Sees to it that those tasks are told when the ones they wait for end. Comes before their rows are written, and `catchUp` after.
 * @param own written together with them, and saying themselves that somebody waits
 * @param later may come later, as with the next page of an import; any other that is not there was deleted after it was looked for
 * @returns those that have ended: a row to be told by would stay for ever, were its task never stored. undefined when one is gone
 */
export async function link(
  scope: Scope,
  waiting: readonly Pick<Row, "id" | "unmet">[],
  { own, later }: { own?: ReadonlySet<string>; later?: (id: string) => boolean } = {},
): Promise<Ended | undefined> {
  const { store } = scope.ports;
  const others = [...new Set(waiting.flatMap(({ unmet = [] }) => unmet).filter((on) => !own?.has(on)))];
  const ended = new Map<string, Status>();
  for (const on of others) {
    const update = taskKey(scope.tenant, on);
    const open = { exists: true, oneOf: { status: [...openStatuses] } };
    const result = await store.write({ update, kind: "task", set: { dependants: true }, if: open });
    if (result.ok) continue;
    if (result.winner) ended.set(on, (result.winner as Row).status);
    else if (!later?.(on)) return undefined;
  }
  await store.batchWrite(
    waiting.flatMap(({ id, unmet = [] }) =>
      unmet
        .filter((on) => !ended.has(on))
        .map((on) => ({ put: { pk: dependantPartition(scope.tenant, on), sk: id, kind: "dependant" } })),
    ),
  );
  return ended;
}

const openStatuses = statuses.filter((status) => !terminal.has(status));

/**
 * What a task waits for may have ended before it was linked, and then told it nothing.
 * @param ended as `link` said
 * @returns whether some had
 */
export async function catchUp(
  scope: Scope,
  { id, unmet = [] }: Pick<Row, "id" | "unmet">,
  ended: Ended = new Map(),
  own: ReadonlySet<string> = new Set(),
): Promise<boolean> {
  let some = false;
  for (const on of unmet) {
    let dependency = own.has(on) ? undefined : await readTask(scope, on);
    if (dependency && !terminal.has(dependency.status) && ended.has(on)) {
      // It was tried again meanwhile.
      await link(scope, [{ id, unmet: [on] }]);
      dependency = await readTask(scope, on);
    }
    const status = dependency ? dependency.status : ended.get(on);
    if (status === undefined || !terminal.has(status)) continue;
    await dependencyEnded(scope, id, on, status);
    await scope.ports.store.batchWrite([{ delete: { pk: dependantPartition(scope.tenant, on), sk: id } }]);
    some = true;
  }
  return some;
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
