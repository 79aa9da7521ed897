import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openEmbedded } from "./index.ts";

let dataDir: string;
beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), "waggle-"));
});
afterEach(() => rmSync(dataDir, { recursive: true, force: true }));

test("keeps rows, messages and consumers over a clean stop", async () => {
  const first = await openEmbedded({ dataDir });
  const seen: string[] = [];
  first.changes.consume("watcher", ["row"], async (changes) => {
    for (const change of changes) seen.push(change.key.sk);
    await first.ports.store.write({ update: { pk: "t", sk: "count" }, kind: "count", add: { n: changes.length } });
  });
  for (let i = 0; i < 300; i++) {
    await first.ports.store.write({ put: { pk: "t", sk: `row#${String(i).padStart(4, "0")}`, kind: "row", i } });
  }
  await first.ports.queues.dispatch.send([{ body: { hello: "there" } }]);
  await first.ports.store.settled();
  expect(seen.length).toBe(300);
  await first.close();
  const second = await openEmbedded({ dataDir });
  expect(await second.ports.store.get({ pk: "t", sk: "count" })).toMatchObject({ n: 300 });
  const page = await second.ports.store.query({ pk: "t", prefix: "row#", reverse: true, limit: 10 });
  expect(page.items.map((item) => item.i)).toEqual([299, 298, 297, 296, 295, 294, 293, 292, 291, 290]);
  const next = await second.ports.store.query({ pk: "t", prefix: "row#", reverse: true, limit: 10, after: page.last! });
  expect(next.items[0]?.i).toBe(289);
  const [message] = await second.ports.queues.dispatch.receive({ max: 10 });
  expect(message).toMatchObject({ body: { hello: "there" }, receives: 1 });
  await second.close();
});

test("what a crash left half-written of a payload takes no room from the next start on", async () => {
  const drafts = join(dataDir, "blobs", "drafts");
  const first = await openEmbedded({ dataDir });
  await first.ports.blobs.put("whole", Buffer.from("1"));
  expect(readdirSync(drafts)).toEqual([]);
  await first.close();
  mkdirSync(drafts, { recursive: true });
  writeFileSync(join(drafts, "half"), "1");
  const second = await openEmbedded({ dataDir });
  expect(readdirSync(join(dataDir, "blobs"))).toHaveLength(1);
  expect(await second.ports.blobs.get("whole")).toEqual(Buffer.from("1"));
  await second.ports.blobs.put("next", Buffer.from("2"));
  expect(await second.ports.blobs.get("next")).toEqual(Buffer.from("2"));
  await second.close();
});
