import { eventually } from "../test/support/eventually.ts";
import { launchScript, type Process } from "../test/support/process.ts";
import type { AgentsConfig, AgentsMessage } from "./agents.ts";
import type { AgentShape, RunningServer, System } from "./systems/system.ts";

export interface Fleet {
  readonly processes: readonly Process[];
  handled(): number;
  /** Calls that failed, of those fleets that count them. */
  failed(): number;
  end(): Promise<void>;
}

export type Work = Pick<AgentsConfig, "taskMs" | "log">;

/** One process for each entry, each run with its entry as JSON; resolves when all have said that they are ready. */
export async function launchAgents(script: string, configs: readonly object[], seconds = 60): Promise<Fleet> {
  const counts = configs.map(() => ({ handled: 0, failed: 0 }));
  const sum = (what: "handled" | "failed") => counts.reduce((total, each) => total + each[what], 0);
  const processes = await Promise.all(
    configs.map(async (config, index) => {
      const agents = launchScript(script, [JSON.stringify(config)], { ipc: true });
      let ready = false;
      agents.child.on("message", (message: AgentsMessage) => {
        if ("ready" in message) ready = true;
        else counts[index] = { failed: 0, ...message };
      });
      await eventually("the agents are connected", () => ready || !agents.running, { seconds, everyMs: 5 });
      if (!ready) throw new Error(`the agents have ended:\n${agents.output()}`);
      return agents;
    }),
  );
  return {
    processes,
    handled: () => sum("handled"),
    failed: () => sum("failed"),
    end: async () => {
      await Promise.all(processes.map((agents) => agents.end("SIGKILL")));
    },
  };
}

export const startFleet = (
  system: System,
  { connection }: Pick<RunningServer, "connection">,
  shapes: readonly AgentShape[],
  work: Work = {},
): Promise<Fleet> =>
  launchAgents(
    "bench/agents.ts",
    shapes.map((shape): AgentsConfig => ({ system: system.id, connection, shape, ...work })),
  );
