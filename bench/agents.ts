import { appendFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { systemOf } from "./systems/index.ts";
import type { AgentShape, Connection } from "./systems/system.ts";

/** One process of agents: does what it is given, tells the driver how much it has handled. */
export interface AgentsConfig {
  readonly system: string;
  readonly connection: Connection;
  readonly shape: AgentShape;
  /** How long a task takes. */
  readonly taskMs?: number;
  /** A file that gets a line `begun n time` (ms, Unix) and a line `done n` for each run of a handler. */
  readonly log?: string;
}
/** `failed`: calls that got no answer, or another than they should. */
export type AgentsMessage = { readonly ready: true } | { readonly handled: number; readonly failed?: number };

const config = JSON.parse(process.argv[2] ?? "") as AgentsConfig;
const tell = (message: AgentsMessage) => process.send?.(message);
let handled = 0;
let told = 0;

const agents = await systemOf(config.system).agents(config.connection, config.shape, async (payload) => {
  if (config.log) appendFileSync(config.log, `begun ${payload.n} ${Date.now()}\n`);
  if (config.taskMs) await sleep(config.taskMs);
  if (config.log) appendFileSync(config.log, `done ${payload.n}\n`);
  handled++;
  return { ok: true, n: payload.n };
});
setInterval(() => {
  if (told !== handled) tell({ handled });
  told = handled;
}, 5);
process.on("disconnect", () => process.exit(0));
process.on("SIGTERM", () => {
  void agents.close().finally(() => process.exit(0));
});
tell({ ready: true });
