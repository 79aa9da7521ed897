import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EventLog, type Scope, systemScope, Task } from "@waggle/core";
import { followChanges } from "@waggle/edge";
import { openEmbedded } from "@waggle/engine-embedded";
import { expect, test } from "vitest";
import { diskFiles } from "../../packages/engine-embedded/src/log.ts";

test("a reader that follows is told nothing that was taken back, as the disk failed while it read", async () => {
  const dataDir = mkdtempSync(join(tmpdir(), "waggle-events-"));
  let broken = false;
  const engine = await openEmbedded({
    dataDir,
    flush: {
      files: {
        ...diskFiles,
        async write(...what) {
          if (broken) throw Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });
          await diskFiles.write(...what);
        },
      },
    },
  });
  const feeds = followChanges(engine.changes, engine.ports);
  const { store } = engine.ports;
  const scope: Scope = systemScope(engine.ports, "acme", "test");
  const submit = async (type: string) => (await Task.create(scope, Task.Create.parse({ type }))).task.id;
  const kept = await submit("kept");
  await store.settled();
  const after = await EventLog.last(scope);
  const { query } = store;
  Object.assign(store, {
    async query(...asked: Parameters<typeof query>) {
      const page = await query(...asked);
      // What is read now is gone before it is told.
      if (broken && asked[0].pk.startsWith("acme#E#")) {
        await store.settled().catch(() => {});
        broken = false;
      }
      return page;
    },
  });
  broken = true;
  await submit("lost");
  const stop = new AbortController();
  const told: EventLog.Info[] = [];
  const read = async () => {
    for await (const event of EventLog.follow(scope, { after, signal: stop.signal })) {
      told.push(event);
      stop.abort();
    }
  };
  await expect(read()).rejects.toMatchObject({ code: "store.unavailable" });
  expect(told).toEqual([]);
  const next = await submit("next");
  await store.settled();
  expect((await EventLog.list(scope, { after, limit: 1 })).items).toMatchObject([
    { sequence: after + 1, taskId: next },
  ]);
  expect((await Task.get(scope, kept)).status).toBe("queued");
  await Promise.all(feeds.map((end) => end()));
  await engine.close();
  rmSync(dataDir, { recursive: true, force: true });
});
