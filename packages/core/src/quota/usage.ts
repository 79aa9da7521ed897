import { counters, family } from "../counters.ts";
import type { Scope } from "../scope.ts";
import type { Amounts } from "./schema.ts";

const sum = (values: Record<string, number>) => Object.values(values).reduce((total, value) => total + value, 0);

export async function usage(scope: Scope): Promise<Amounts> {
  const counts = await counters(scope);
  const { stopped = 0, ...agents } = family(counts, "agents.");
  return {
    tasks: sum(family(counts, "tasks.")),
    bytes: Math.max(0, counts.bytes ?? 0),
    waiting: (counts["tasks.queued"] ?? 0) + (counts["tasks.scheduled"] ?? 0),
    agents: sum(agents),
  };
}
