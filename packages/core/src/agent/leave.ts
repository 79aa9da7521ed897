import type { Directory } from "../match/directory.ts";
import { agentKey, agentNameKey, bearerKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { tellRevoked } from "../secret.ts";
import { tell } from "./message.ts";
import { advance, type Row } from "./row.ts";

/** A draining agent holds nothing any more: it is drained, and stopped when it was to be removed. */
export async function emptied(scope: Scope, directory: Directory, id: string): Promise<void> {
  const row = (await scope.ports.store.get(agentKey(scope.tenant, id))) as Row | undefined;
  if (row?.state !== "draining" || row.used > 0) return;
  if (row.stopAt !== undefined) {
    await stop(scope, directory, row);
    return;
  }
  if (row.drainedAt !== undefined) return;
  const { next, write } = advance(row, { drainedAt: scope.ports.clock.now() }, scope.ports.clock.now());
  if ((await scope.ports.store.write(write)).ok) directory.set(next);
}

/** The end of an agent, which is told: its name is free and its token void. undefined when others changed it meanwhile. */
export async function stop(scope: Scope, directory: Directory, row: Row): Promise<Row | undefined> {
  const { next, write } = advance(
    row,
    { state: "stopped", stopAt: undefined, expiresAt: undefined },
    scope.ports.clock.now(),
  );
  const result = await scope.ports.store.transact([
    write,
    { delete: agentNameKey(scope.tenant, row.name) },
    { delete: bearerKey(row.tokenHash) },
  ]);
  if (!result.ok) return undefined;
  directory.set(next);
  directory.remove(row.id);
  tell(scope, row, { stop: true, reason: "the agent was removed" });
  tellRevoked(scope.ports, row.tokenHash);
  return next;
}
