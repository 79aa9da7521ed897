import { eventually } from "../test/support/eventually.ts";
import { launchScript, type Process } from "../test/support/process.ts";
import type { AgentsConfig, AgentsMessage } from "./agents.ts";
import type { AgentShape, RunningServer, System } from "./systems/system.ts";

export interface Fleet {
  readonly processes: readonly Process[];
  handled(): number;
  end(): Promise<void>;
}

export type Work = Pick<AgentsConfig, "taskMs" | "log">;

export async function startFleet(
  system: System,
  server: Pick<RunningServer, "connection">,
  shapes: readonly AgentShape[],
  work: Work = {},
): Promise<Fleet> {
  const counts = shapes.map(() => 0);
  const processes = await Promise.all(
    shapes.map(async (shape, index) => {
      const config: AgentsConfig = { system: system.id, connection: server.connection, shape, ...work };
      const agents = launchScript("bench/agents.ts", [JSON.stringify(config)], { ipc: true });
      let ready = false;
      agents.child.on("message", (message: AgentsMessage) => {
        if ("ready" in message) ready = true;
        else counts[index] = message.handled;
      });
      await eventually(
        "the agents are connected",
        () => {
          if (!agents.running) throw new Error(agents.output());
          return ready;
        },
        { seconds: 60, everyMs: 5 },
      );
      return agents;
    }),
  );
  return {
    processes,
    handled: () => counts.reduce((sum, count) => sum + count, 0),
    end: async () => {
      await Promise.all(processes.map((agents) => agents.end("SIGKILL")));
    },
  };
}
