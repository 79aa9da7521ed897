import { bullmq } from "./bullmq.ts";
import { dbos } from "./dbos.ts";
import { graphileWorker } from "./graphile-worker.ts";
import { pgBoss } from "./pg-boss.ts";
import { restate } from "./restate.ts";
import type { System } from "./system.ts";
import { temporal } from "./temporal.ts";
import { waggle } from "./waggle.ts";

/** In the order of the tables: ours, then the one that promises the same, then the others. */
export const systems: readonly System[] = [
  waggle("sdk"),
  waggle("http"),
  bullmq("always"),
  bullmq("everysec"),
  restate,
  temporal,
  pgBoss,
  dbos,
  graphileWorker,
];

export function systemOf(id: string): System {
  const system = systems.find((entry) => entry.id === id);
  if (system === undefined)
    throw new Error(`no system ${id}; there are ${systems.map((entry) => entry.id).join(", ")}`);
  return system;
}
