import { writeSync } from "node:fs";
import { openEmbedded } from "./index.ts";

// Started by crash.test.ts: writes as fast as it can, says what was acknowledged, and is killed in the middle.
const [dataDir, seedText] = process.argv.slice(2) as [string, string];
let state = Number(seedText);
const random = (below: number): number => {
  state = (Math.imul(state, 1103515245) + 12345) >>> 0;
  return (state >>> 8) % below;
};

const engine = await openEmbedded({ dataDir, flush: { checkpointBytes: 48 * 1024, segmentBytes: 32 * 1024 } });
const { store, queues } = engine.ports;
engine.changes.consume("derive", ["pair"], async (changes) => {
  await store.batchWrite(
    changes.flatMap(({ new: row }) =>
      row === undefined ? [] : [{ put: { pk: "t#seen", sk: row.sk, kind: "seen", of: row.n as number } }],
    ),
  );
});
engine.queueFeed.consume("dispatch", { batch: 10, concurrency: 2 }, async (messages) => {
  for (const { body } of messages) {
    await store.write({ put: { pk: "t#done", sk: String(body), kind: "done" } });
  }
  return { failed: [] };
});

const [total] = await store.batchGet([{ pk: "t", sk: "total" }]);
let next = ((total?.next as number | undefined) ?? 0) + 1;
async function writer(): Promise<void> {
  for (;;) {
    const n = next++;
    const sk = String(n).padStart(8, "0");
    await store.transact([
      { put: { pk: "t#left", sk, kind: "pair", n, filler: "x".repeat(random(400)) } },
      { put: { pk: "t#right", sk, kind: "other", n } },
      { update: { pk: "t", sk: "total" }, kind: "total", add: { pairs: 1 }, set: { next: n + 64 } },
    ]);
    if (random(3) === 0) await queues.dispatch.send([{ body: sk }]);
    if (random(4) === 0) {
      const old = String(1 + random(n)).padStart(8, "0");
      await store.write({ update: { pk: "t#touched", sk: old }, kind: "touched", add: { times: 1 } });
      await store.write({ delete: { pk: "t#touched", sk: String(1 + random(n)).padStart(8, "0") } });
    }
    await store.settled();
    writeSync(1, `${n}\n`);
  }
}
await Promise.all(Array.from({ length: 8 }, writer));
