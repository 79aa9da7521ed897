import type { CommonOptions } from "./context.ts";

/** What an agent is, as the command line says it. */
export interface AgentOptions extends CommonOptions {
  name: string;
  capability?: { name: string; level?: number }[];
  concurrency: number;
  label?: [string, string | number][];
  role?: string;
  type?: string;
  description?: string;
  lease: number;
}

/** The same, as the server and the SDK take it. */
export const offerOf = (options: AgentOptions) => ({
  name: options.name,
  capabilities: options.capability ?? [],
  labels: Object.fromEntries(options.label ?? []),
  leaseSeconds: options.lease,
  ...(options.role !== undefined && { role: options.role }),
  ...(options.type !== undefined && { type: options.type }),
  ...(options.description !== undefined && { description: options.description }),
});
