import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { eventually } from "../test/support/eventually.ts";
import { startFleet } from "./fleet.ts";
import { submitMany } from "./lanes.ts";
import { fixed } from "./sizes.ts";
import { percentile } from "./stats.ts";
import { type AgentShape, payload } from "./systems/system.ts";
import type { Figures, Setting } from "./workloads.ts";

/* W7: how long ten small submitters wait for a slot, alone and beside one that floods. */

export const fairPool: AgentShape = { agents: 1, concurrency: fixed.fairSlots, prefix: "fair" };

/** From the submit to the first line of the handler, on this machine's one clock. */
export async function fairness({ system, server, client, dir, sizes }: Setting): Promise<Figures> {
  const { flood, submitters, tasks } = sizes.W7;
  const count = submitters * tasks;
  const log = join(dir, "fairness.txt");
  const fleet = await startFleet(system, server, [fairPool], { taskMs: fixed.fairTaskMs, log });
  const begunAt = () => {
    const lines = existsSync(log) ? readFileSync(log, "utf8").split("\n") : [];
    const begun = lines.filter((line) => line.startsWith("begun")).map((line) => line.split(" "));
    return new Map(begun.map(([, n, at]) => [Number(n), Number(at)]));
  };
  const waits = async (from: number) => {
    const sent = await Promise.all(
      Array.from({ length: count }, async (_, at) => {
        const began = Date.now();
        await client.submit(payload(from + at), `small-${at % submitters}`);
        return began;
      }),
    );
    const seen = await eventually(
      "the small ones have begun",
      () => {
        const begun = begunAt();
        return sent.every((_, at) => begun.has(from + at)) && begun;
      },
      { seconds: 120, everyMs: 20 },
    );
    return sent.map((began, at) => (seen.get(from + at) ?? 0) - began);
  };
  await waits(0);
  const alone = await waits(count);
  const done = async () => fleet.handled() >= 2 * count;
  await eventually("nothing is left", done);
  await submitMany(client, flood, fixed.inFlight, { from: 2 * count, fairKey: "flood" });
  const beside = await waits(2 * count + flood);
  await fleet.end();
  const [aloneMs, besideMs] = [percentile(alone, 0.99), percentile(beside, 0.99)];
  return { aloneMs, besideMs, ratio: besideMs / aloneMs };
}
