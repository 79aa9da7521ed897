import { isError } from "../error.ts";
import { serveAgent } from "../match/dispatch.ts";
import { openFor } from "../match/open.ts";
import { createMemory } from "../memory.ts";
import type { Ports } from "../port/index.ts";
import { agentKey, connectionKey } from "../rows.ts";
import { type Scope, systemScope } from "../scope.ts";
import { detach, tokenVoid } from "./connect.ts";
import { notFound } from "./error.ts";
import { change } from "./manage.ts";
import { hangUp, send } from "./message.ts";
import type { Row } from "./row.ts";

/** Whose a connection is that a gateway keeps. */
export interface Holder {
  readonly tenant: string;
  readonly agentId: string;
  /** Of the token it was opened with. */
  readonly tokenHash: string;
  /** When the gateway will have ended it. */
  readonly until: number;
}

/**
 * API Gateway ends a connection after two hours at the latest.
 * Source: https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html
 */
const longestSeconds = 2 * 3600;
const keptSeconds = 3 * 3600;
/** It ends a connection on which nothing was said for ten minutes: an agent that holds nothing says something this often. */
export const pingSeconds = 540;

/** The gateway opened a connection for this agent; the agent has it once it says hello (`attach`). */
export async function hold(scope: Scope, connectionId: string): Promise<void> {
  const { store, clock } = scope.ports;
  const agent = (await store.get(agentKey(scope.tenant, scope.actor.id))) as Row | undefined;
  if (!agent) throw notFound(`there is no agent ${scope.actor.id}`);
  await store.write({
    put: {
      ...connectionKey(connectionId),
      kind: "connection",
      tenant: scope.tenant,
      agentId: agent.id,
      tokenHash: agent.tokenHash,
      until: clock.now() + longestSeconds * 1000,
      ttl: Math.floor(clock.now() / 1000) + keptSeconds,
    },
  });
}

/** What a connection stands for never changes, so a process reads it once. */
const holders = createMemory<Holder>();
const holdersKept = 1000;

export async function holderOf(ports: Ports, connectionId: string): Promise<Holder | undefined> {
  const known = holders.of(ports);
  const remembered = known.get(connectionId);
  if (remembered) return remembered;
  const row = await ports.store.get(connectionKey(connectionId));
  if (!row) return undefined;
  const holder = {
    tenant: row.tenant as string,
    agentId: row.agentId as string,
    tokenHash: row.tokenHash as string,
    until: row.until as number,
  };
  if (known.size >= holdersKept) known.delete(known.keys().next().value as string);
  known.set(connectionId, holder);
  return holder;
}

/**
 * Before a frame counts that speaks for the agent as a whole: the token must still be valid, and the connection the agent's. One that was thought
 * gone and is not is its again; one that was replaced is told to stop.
 * @returns whether it may go on
 */
export async function stillHolds(scope: Scope, connectionId: string, holder: Holder): Promise<boolean> {
  // Whoever goes on from here goes by what the row says now: what this process knew may be a lease that was shortened since.
  const { members } = await openFor(scope.ports, scope.tenant, holder.agentId);
  const row = members.get(holder.agentId)?.row;
  const stop = (reason: string) => {
    send(scope.ports, connectionId, { stop: true, reason });
    return false;
  };
  if (!row) return stop("the agent was removed");
  if (row.tokenHash !== holder.tokenHash) return stop(tokenVoid);
  if (row.connectionId === connectionId) return true;
  if (row.connectionId !== undefined) return stop("the agent connected anew");
  await change(scope, holder.agentId, (now) =>
    now.connectionId === undefined ? { connectionId, carriedUntil: holder.until } : undefined,
  );
  await serveAgent(scope, holder.agentId);
  return true;
}

/** The connection has ended. `gone`: that showed when something was sent to it. */
export async function lost(ports: Ports, connectionId: string, { gone = false } = {}): Promise<void> {
  const holder = await holderOf(ports, connectionId);
  if (!holder) return;
  const scope = systemScope(ports, holder.tenant, "connections");
  try {
    await detach(scope, holder.agentId, connectionId, { gone });
  } catch (error) {
    if (!isError(error, notFound)) throw error;
  }
  holders.of(ports).delete(connectionId);
  await ports.store.write({ delete: connectionKey(connectionId) });
  // One that holds nothing does not beat: should the connection stand after all, this is how it learns to come anew.
  if (gone) hangUp(ports, connectionId);
}

const watched = new WeakSet<Ports>();

/** Sees to connections that turn out gone when this process sends to them. For every process that may send. */
export function watchConnections(ports: Ports): void {
  if (watched.has(ports)) return;
  watched.add(ports);
  ports.live.onGone?.((connectionId) => lost(ports, connectionId, { gone: true }));
}
