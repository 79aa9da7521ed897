import { projectChanges } from "@waggle/edge";
import { openEmbedded } from "@waggle/engine-embedded";
import { taskKey } from "../packages/core/src/rows.ts";

/*
 * Stores finished tasks as the engine keeps them, then dies without closing: node ts.mjs bench/fill.ts folder count [views]
 * With `views`, in lists and the event log too.
 */
const [, , dataDir = "", count = "0", views] = process.argv;
const { ports, changes } = await openEmbedded({ dataDir });
const { store } = ports;
if (views === "views") projectChanges(changes, ports);
const row = (n: number) => {
  const id = `tsk_${String(n).padStart(22, "0")}`;
  const history = ["queued", "assigned", "completed"].map((status, i) => [1_760_000_000_000 + i, status, i, "", ""]);
  return {
    ...taskKey("default", id),
    ...{ kind: "task", id, tenant: "default", rev: 3, type: "bench" },
    ...{ status: "completed", priority: 5, attempt: 1, fence: 1, slots: 1, depth: 0, strategy: "best_fit", lane: "-" },
    ...{
      createdAt: 1_760_000_000_000,
      finishedAt: 1_760_000_000_002,
      history,
      input: JSON.stringify("x".repeat(200)),
      result: '{"ok":true}',
    },
  };
};
const perCall = 100;
for (let n = 0; n < Number(count); n += perCall) {
  await store.batchWrite(Array.from({ length: perCall }, (_, i) => ({ put: row(n + i) })));
  if (n % 1000 === 0) await Promise.all([store.settled(), store.projected()]);
}
await store.settled();
process.kill(process.pid, "SIGKILL");
