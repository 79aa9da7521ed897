import type { Row as AgentRow } from "../agent/row.ts";
import { deadlineOf } from "../agent/row.ts";
import { isCalled } from "../delivery/schema.ts";
import { serveAgent } from "../match/dispatch.ts";
import { openKnown } from "../match/open.ts";
import { offerWrite } from "../match/shared.ts";
import type { Write } from "../port/index.ts";
import { agentKey, agentNameKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { bearerRow } from "../secret.ts";
import { differs } from "./error.ts";
import { picked, type Result, refused, taken, there } from "./result.ts";
import { type AgentRecord, agentFields } from "./schema.ts";

export async function takeAgent(scope: Scope, record: AgentRecord, known: AgentRow | undefined): Promise<Result> {
  if (known) return compareAgents(record, known);
  const { store, clock, outbound, shared } = scope.ports;
  const unable = isCalled(record) && record.state !== "stopped" ? await outbound.check(record.delivery) : undefined;
  if (unable !== undefined)
    return refused(
      differs(`agent ${record.name} cannot be called from here: ${unable}; register it here with another delivery`),
    );
  const row = agentRow(scope, record, clock.now());
  const writes: Write[] = [{ put: row, if: { exists: false } }];
  if (row.state !== "stopped") {
    writes.push(
      { put: { ...agentNameKey(scope.tenant, row.name), kind: "name", agentId: row.id }, if: { exists: false } },
      { put: bearerRow(row.tokenHash, scope.tenant, { role: "agent", id: row.id }), if: { exists: false } },
      ...(shared ? [offerWrite(scope, row.id)] : []),
    );
  }
  const result = await store.transact(writes);
  if (result.ok) {
    const directory = await openKnown(scope.ports, scope.tenant);
    if (row.state !== "stopped") directory.set(row);
    await serveAgent(scope, row.id);
    return taken;
  }
  const now = (await store.get(agentKey(scope.tenant, row.id))) as AgentRow | undefined;
  if (now) return compareAgents(record, now);
  const holder = await store.get(agentNameKey(scope.tenant, row.name));
  return refused(
    holder
      ? differs(
          `the name ${row.name} belongs to agent ${holder.agentId} here; remove that one (\`waggle delete agent ${row.name} --force\`) and import again`,
        )
      : differs(
          `the token of agent ${row.name} is in use here for something else; register the agent anew under its name`,
        ),
  );
}

/** It holds nothing here, and gets a whole lease to be heard of; a called one that was lost is tried anew with its next task. */
function agentRow(scope: Scope, record: AgentRecord, now: number): AgentRow {
  const row = {
    ...picked(record, agentFields),
    ...agentKey(scope.tenant, record.id),
    tenant: scope.tenant,
    rev: 1,
    used: 0,
  } as unknown as { -readonly [K in keyof AgentRow]: AgentRow[K] };
  if (row.state === "active" || row.state === "paused" || row.state === "draining") {
    if (row.expiresAt !== undefined) row.expiresAt = Math.max(row.expiresAt, now + row.leaseSeconds * 1000);
  }
  if (row.state === "draining") {
    if (row.stopAt !== undefined) row.stopAt = Math.min(row.stopAt, now);
    else row.drainedAt ??= now;
  }
  if (isCalled(row) && row.state === "lost") Object.assign(row, { state: "active", probing: true });
  // The secret that signs stays behind: nothing is sent unsigned until there is a new one.
  if (row.delivery.type === "webhook" && row.state === "active") row.state = "paused";
  const deadlineAt = deadlineOf(row);
  if (deadlineAt !== undefined) row.deadlineAt = deadlineAt;
  return row;
}

function compareAgents(record: AgentRecord, now: AgentRow): Result {
  if (record.name !== now.name)
    return refused(differs(`agent ${record.id} is named ${now.name} here, not ${record.name}; it stays as it is`));
  // Registered anew here, it has gone on.
  if (now.registeredAt > record.registeredAt || now.tokenHash === record.tokenHash) return there;
  return refused(
    differs(
      `agent ${record.name} was registered anew where it comes from, after it was first imported; its new token is void here: register it here with onConflict "replace"`,
    ),
  );
}
