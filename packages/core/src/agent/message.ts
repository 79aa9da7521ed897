import type { Ports } from "../port/index.ts";
import type { Scope } from "../scope.ts";
import type { Assignment } from "../task/schema.ts";
import { frames } from "./framing.ts";

/** What an agent is told while it is connected. */
export type AgentMessage =
  | { readonly assign: Assignment[] }
  | { readonly cancel: string[] }
  | { readonly pause: boolean }
  | { readonly drain: boolean }
  | { readonly revoked: string[] }
  | { readonly stop: true; readonly reason: string };

export const agentChannel = (tenant: string, agentId: string): string => `agent/${tenant}/${agentId}`;

/** Reaches the connection from every process that shares the store. */
export const connectionChannel = (connectionId: string): string => `connection/${connectionId}`;

/** Tells an agent something, once all that was written before is durable. */
export function tell(
  scope: Scope,
  agent: { readonly id: string; readonly connectionId?: string | undefined },
  message: AgentMessage,
): void {
  const { live, shared } = scope.ports;
  live.publish(agentChannel(scope.tenant, agent.id), message);
  if (shared && agent.connectionId !== undefined) send(scope.ports, agent.connectionId, message);
}

/** As frames, to the connection itself. One that is told to stop is ended after it. */
export function send(ports: Ports, connectionId: string, message: AgentMessage): void {
  for (const text of frames(message)) ports.live.publish(connectionChannel(connectionId), text);
  if ("stop" in message) hangUp(ports, connectionId);
}

/** Ends a connection once all that was sent before has left. */
export function hangUp(ports: Ports, connectionId: string): void {
  ports.live.publish(connectionChannel(connectionId), null);
}
