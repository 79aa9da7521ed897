import { isError } from "../error.ts";
import { dependantPartition } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { change } from "./change.ts";
import { notFound, outcome } from "./error.ts";
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
