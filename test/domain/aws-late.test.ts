import { Task } from "@waggle/core";
import { afterEach, beforeEach, expect, test } from "vitest";
import { lost } from "../contract/faults.ts";
import { createPlacedFaults } from "../contract/placed.ts";
import { acceptsAll, byQueue } from "../support/outbound.ts";
import { openSystem, type System } from "../support/system.ts";
import { onAws } from "../support/system-aws.ts";

const faults = createPlacedFaults();

function suite(): void {
  let system: System;
  beforeEach(async () => {
    system = await openSystem({ outbound: acceptsAll });
    await system.agent("q", { delivery: byQueue, maxConcurrency: 10 });
    await system.quiet();
  });
  afterEach(async () => {
    expect(faults.clear()).toBe(false);
    expect(system.errors).toEqual([]);
    await system.close();
  });

  test("an order is waited for that was on its way when its queue was looked at, and is taken late", async () => {
    const depth = "GetQueueAttributes deliver";
    faults.put("PutItem T", async (run) => {
      const [answer] = await Promise.all([run(), faults.begun("SendMessageBatch deliver")]);
      return answer;
    });
    faults.put("SendMessageBatch deliver", async (run) => {
      await faults.done(depth);
      return await run();
    });
    faults.put("ReceiveMessage deliver", async (run) => {
      await faults.begun(depth);
      return await run();
    });
    const task = await system.task("x");
    expect((await system.get(task.id)).status).toBe("running");
  });

  const taskOf = { type: "x", requires: [{ capability: "work" }] };
  test.each([
    ["a task", async () => (await Task.create(system.admin, Task.Create.parse(taskOf))).task.id],
    [
      "a batch of one",
      async () => {
        const { results } = await Task.createBatch(system.admin, { tasks: [taskOf], atomic: false });
        return results.map((result) => "task" in result && result.task.id)[0];
      },
    ],
  ])(
    "%s is submitted once, though the reply is lost and its agent begins it before the call is tried again",
    async (_, submit) => {
      faults.put("PutItem T", async (run) => {
        const [answer] = await Promise.all([run(), faults.done("UpdateItem T")]);
        throw lost(answer);
      });
      const id = await submit();
      const { items } = await Task.list(system.admin, { limit: 50 });
      expect(items.map((task) => [task.id, task.status])).toEqual([[id, "running"]]);
    },
  );
}

await onAws({
  suites: [async () => suite()],
  options: () => ({ onClient: faults.onClient, retry: { baseMs: 2, capMs: 20 } }),
});
