import { Agent, type Engine, forget, type JsonText, Limit, Status, Task } from "@waggle/core";
import { Transfer } from "@waggle/core/transfer";
import { dispatchHandler, followChanges, timersHandler } from "@waggle/edge";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { openSystem, type System } from "../support/system.ts";
import { enginesOf, type Opened } from "./engines.ts";

type Held = Pick<System, "ports" | "admin" | "as">;

async function move(from: Held, to: Held): Promise<Transfer.Result[]> {
  const results: Transfer.Result[] = [];
  for (let cursor: string | undefined; ; ) {
    const page = await Transfer.page(from.admin, { limit: 50, ...(cursor !== undefined && { cursor }) });
    for (let i = 0; i < page.items.length; i += 100)
      results.push(...(await Transfer.take(to.admin, { version: 1, records: page.items.slice(i, i + 100) })));
    if (page.nextCursor === undefined) return results;
    cursor = page.nextCursor;
  }
}

function run(engine: Engine): Held & { stop(): Promise<void> } {
  const { ports } = engine;
  const ignore = () => {};
  const feeds = [
    ...followChanges(engine.changes, ports),
    engine.queueFeed.consume("dispatch", { batch: 10, concurrency: 4 }, dispatchHandler(ports, ignore)),
    engine.queueFeed.consume("timers", { batch: 10, concurrency: 4 }, timersHandler(ports, ignore)),
  ];
  const admin = { tenant: "acme", actor: { role: "admin", id: "key_test" }, ports, requestId: "test" } as const;
  return {
    ports,
    admin,
    as: (agentId) => ({ ...admin, actor: { role: "agent", id: agentId } }),
    async stop() {
      for (const stop of feeds) await stop();
      forget(ports);
    },
  };
}

describe.each(enginesOf("ports").filter(({ real }) => real))("$name", ({ lacks, open }) => {
  describe.skipIf(lacks !== undefined)("a tenant that moves here from an embedded engine, and home", () => {
    let from: System;
    let home: System;
    let opened: Opened;
    let here: ReturnType<typeof run>;
    beforeAll(async () => {
      from = await openSystem();
      home = await openSystem();
      opened = await open();
      here = run(opened.engine);
    }, 180_000);
    afterAll(async () => {
      await here?.stop();
      await opened?.remove();
      await from?.close();
      await home?.close();
    }, 60_000);

    test("brings its tasks in every state, and loses none on either way", async () => {
      await Limit.put(from.admin, "model", { concurrency: 3 });
      const agent = await from.agent("a", { maxConcurrency: 5 });
      const large = JSON.stringify("🐝".repeat(100_000)) as JsonText;
      const done = await from.task("done", { input: large });
      await Task.complete(from.as(agent), done.id, { fence: (await from.lease(agent)).fence, result: large });
      const failed = await from.task("failed", { retry: { maxAttempts: 1 } });
      await Task.fail(from.as(agent), failed.id, {
        fence: (await from.lease(agent)).fence,
        error: { code: "no", message: "it broke" },
      });
      const held = await from.task("held");
      await from.lease(agent);
      const next = await from.task("next", { dependsOn: [held.id] });
      for (let n = 0; n < 20; n++) await from.task("t", { requires: [{ capability: "nobody" }] });

      expect(new Set((await move(from, here)).map(({ outcome }) => outcome))).toEqual(new Set(["taken"]));
      expect(new Set((await move(from, here)).map(({ outcome }) => outcome))).toEqual(new Set(["there"]));
      expect(await Task.get(here.admin, done.id)).toEqual(await from.get(done.id));
      expect(await Task.get(here.admin, held.id)).toMatchObject({ status: "queued", attempt: 0 });
      for (const { id } of [held, next]) {
        const { task, fence } = await eventually(
          "its agent gets it",
          async () => {
            await Agent.seen(here.as(agent), agent);
            return (await Agent.lease(here.as(agent), agent, { max: 1, waitSeconds: 0 }))[0];
          },
          { seconds: 30 },
        );
        expect(task.id).toBe(id);
        await Task.complete(here.as(agent), id, { fence });
      }
      const counts = { completed: 3, failed: 1, queued: 20, assigned: 0, scheduled: 0 };
      await eventually(
        "the counters are right",
        async () => {
          expect((await Status.read(here.admin)).tasks.byStatus).toMatchObject(counts);
          return true;
        },
        { seconds: 30 },
      );

      expect(new Set((await move(here, home)).map(({ outcome }) => outcome))).toEqual(new Set(["taken"]));
      await home.quiet();
      expect((await Status.read(home.admin)).tasks.byStatus).toMatchObject(counts);
      expect((await home.get(done.id)).result).toBe(large);
      expect(await Limit.get(home.admin, "model")).toMatchObject({ concurrency: 3 });
    }, 120_000);
  });
});
