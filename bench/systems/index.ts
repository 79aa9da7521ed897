import { bullmq } from "./bullmq.ts";
import type { System } from "./system.ts";
import { waggle } from "./waggle.ts";

export const systems: readonly System[] = [waggle("sdk"), waggle("http"), bullmq("always"), bullmq("everysec")];

export function systemOf(id: string): System {
  const system = systems.find((entry) => entry.id === id);
  if (system === undefined)
    throw new Error(`no system ${id}; there are ${systems.map((entry) => entry.id).join(", ")}`);
  return system;
}
