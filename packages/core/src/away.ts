import type { Ports } from "./port/index.ts";

const starts = new WeakMap<Ports, number>();
/** The server was away until now: agents get a whole lease to be heard of again, attempts a whole heartbeat time. */
export const wasAway = (ports: Ports): void => void starts.set(ports, ports.clock.now());
/** Where others share the store, a process that starts says nothing about whether anybody was away. */
export const backSince = (ports: Ports): number => (ports.shared ? 0 : (starts.get(ports) ?? 0));
