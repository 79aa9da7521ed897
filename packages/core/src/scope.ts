import type { Ports } from "./port/index.ts";

export type Role = "admin" | "operator" | "client" | "reader" | "agent";

/** Who acts: a key of a tenant, one agent, or Waggle itself (timers, reconcilers). */
export interface Actor {
  readonly role: Role | "system";
  /** The key's id, the agent's id, or the component's name. */
  readonly id: string;
}

/**
 * What one invocation works with; opened at an edge, handed down as the first argument.
 * (An argument and not AsyncLocalStorage: absence is a compile error, and Node 20's hooks cost every promise.)
 */
export interface Scope {
  readonly tenant: string;
  readonly actor: Actor;
  readonly ports: Ports;
  readonly requestId: string;
  /** W3C traceparent of the caller, carried into tasks. */
  readonly traceparent?: string;
}

/** Waggle acting for a tenant by itself: timers, dispatch, reconcilers. */
export const systemScope = (ports: Ports, tenant: string, component: string): Scope => ({
  tenant,
  actor: { role: "system", id: component },
  ports,
  requestId: component,
});
