import { createMemory } from "../memory.ts";
import type { Ports } from "../port/index.ts";

/** Agents with a live connection to this process: known apart from the directory, which may be made anew under them. */
const connections = createMemory<string>();
const nameOf = (tenant: string, agentId: string): string => `${tenant}/${agentId}`;

export const isConnected = (ports: Ports, tenant: string, agentId: string): boolean =>
  connections.of(ports).has(nameOf(tenant, agentId));

/** Whether this is the connection that the agent has to this process. */
export const hasConnection = (ports: Ports, tenant: string, agentId: string, connectionId: string): boolean =>
  connections.of(ports).get(nameOf(tenant, agentId)) === connectionId;

export const addConnection = (ports: Ports, tenant: string, agentId: string, connectionId: string): void =>
  void connections.of(ports).set(nameOf(tenant, agentId), connectionId);

/** @param connectionId none: whichever there is. @returns whether it was there */
export function dropConnection(
  ports: Ports,
  tenant: string,
  agentId: string,
  connectionId: string | undefined,
): boolean {
  const own = connections.of(ports);
  const name = nameOf(tenant, agentId);
  return (connectionId === undefined || own.get(name) === connectionId) && own.delete(name);
}
