import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { eventually } from "../test/support/eventually.ts";
import { type Fleet, startFleet } from "./fleet.ts";
import { inLanes } from "./lanes.ts";
import { fixed } from "./sizes.ts";
import { type AgentShape, type Client, payload } from "./systems/system.ts";
import type { Figures, Setting } from "./workloads.ts";

/* W5: what is lost, what is done twice, and how long it takes, when the agents or the server are killed at work. */

export const crashPool: AgentShape = {
  agents: 1,
  concurrency: 100,
  prefix: "crash",
  leaseSeconds: fixed.leaseSeconds,
};

/** Until the system takes it: the client of a system whose server is gone may refuse for a while. */
const submitted = (client: Client, n: number) =>
  eventually(`task ${n} is accepted`, () => client.submit(payload(n)), { seconds: fixed.crashSeconds, everyMs: 2 });

async function submitAll(client: Client): Promise<string[]> {
  const ids: string[] = [];
  await inLanes(fixed.crashTasks, fixed.inFlight, async (n) => {
    ids[n] = await submitted(client, n);
  });
  return ids;
}

/** Reads them until each has its result or the time is up, and answers how many have none. */
async function lostOf(client: Client, ids: readonly string[], killed: number): Promise<number> {
  let missing = ids.map((id, n) => ({ id, n }));
  const look = async () => {
    const results = await Promise.all(missing.map(({ id }) => client.read(id)));
    missing = missing.filter(({ n }, at) => results[at]?.n !== n);
    return missing.length === 0;
  };
  const seconds = fixed.crashSeconds - (performance.now() - killed) / 1000;
  await eventually("each has its result", look, { seconds, everyMs: 10 }).catch(() => {});
  return missing.length;
}

/**
 * Kills either when three quarters of the tasks have begun. New agents have other names, as those of another machine
 * would: the lease of the dead ones has to run out.
 */
async function crash({ system, server, client, dir }: Setting, victim: "agents" | "server") {
  const work = { taskMs: fixed.crashTaskMs, log: join(dir, `${victim}.txt`) };
  const shape = (which: string): AgentShape => ({ ...crashPool, prefix: `${victim}-${which}` });
  const linesOf = (kind: string) => {
    const lines = existsSync(work.log) ? readFileSync(work.log, "utf8").split("\n") : [];
    return lines.filter((line) => line.startsWith(kind));
  };
  const first = await startFleet(system, server, [shape("first")], work);
  const submitting = submitAll(client);
  const begun = () => linesOf("begun").length >= fixed.crashTasks * 0.75;
  await eventually("three quarters have begun", begun, { seconds: fixed.crashSeconds, everyMs: 2 });
  const ids = await submitting;
  const killed = performance.now();
  let servingMs = 0;
  let second: Fleet | undefined;
  if (victim === "server") {
    await server.restart();
    ids.push(await submitted(client, fixed.crashTasks));
    servingMs = performance.now() - killed;
  } else {
    await first.end();
    second = await startFleet(system, server, [shape("second")], work);
  }
  const lost = await lostOf(client, ids, killed);
  const recoverySeconds = (performance.now() - killed) / 1000;
  await first.end();
  await second?.end();
  const done = linesOf("done");
  return { lost, twice: done.length - new Set(done).size, recoverySeconds, servingMs };
}

export async function crashes(setting: Setting): Promise<Figures> {
  const agents = await crash(setting, "agents");
  const server = await crash(setting, "server");
  return {
    lost: agents.lost,
    twice: agents.twice,
    recoverySeconds: agents.recoverySeconds,
    serverLost: server.lost,
    serverTwice: server.twice,
    serverRecoverySeconds: server.recoverySeconds,
    servingMs: server.servingMs,
  };
}
