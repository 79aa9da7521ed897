import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { measureGrowth, measureWaiting } from "./growth.ts";
import { allSizes, type SizeName } from "./sizes.ts";
import { measureOpen, measureStart } from "./start.ts";
import { systemOf } from "./systems/index.ts";
import { type Figures, workloads } from "./workloads.ts";

/* One measure: a fresh server, fresh agents, and this process as the caller. */
export type DriverMessage = { readonly figures: Figures } | { readonly error: string };

async function measure(systemId: string, workload: string, sizeName: SizeName): Promise<Figures> {
  const system = systemOf(systemId);
  const sizes = allSizes[sizeName];
  const dir = mkdtempSync(join(process.env.WAGGLE_BENCH_DIR ?? tmpdir(), "waggle-bench-"));
  try {
    const alone = { start: measureStart, open: measureOpen, W6: measureGrowth, waiting: measureWaiting }[workload];
    if (alone !== undefined) return await alone(dir, sizes);
    const found = workloads[workload];
    if (found === undefined) throw new Error(`no workload ${workload}`);
    const server = await system.start(dir);
    const client = await system.connect(server.connection, found.shapes);
    const figures = await found.run({ system, server, client, dir, sizes });
    // The pools of some clients still hear of the server's end when they have been closed.
    process.on("uncaughtException", () => {});
    await client.close();
    await server.stop();
    return figures;
  } finally {
    rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

const [, , systemId = "", workload = "", sizeName = "full"] = process.argv;
const message: DriverMessage = await measure(systemId, workload, sizeName as SizeName).then(
  (figures) => ({ figures }),
  (error: unknown) => ({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) }),
);
process.send?.(message, () => process.exit("error" in message ? 1 : 0));
