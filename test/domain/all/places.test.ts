import { type Outbound, Task } from "@waggle/core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createPlacedFaults, faultsAt } from "../../contract/placed.ts";
import { acceptsAll, byQueue } from "../../support/outbound.ts";
import { openSystem, type System } from "../../support/system.ts";
import { onAws } from "../../support/system-aws.ts";

const faults = createPlacedFaults();
/** What the agent's queue was sent of each task. */
const sent = new Map<string, Set<string>>();
const outbound: Outbound = {
  ...acceptsAll,
  async send(_, body) {
    const { type, data } = JSON.parse(body);
    const id = data.taskId ?? data.task.id;
    sent.set(id, (sent.get(id) ?? new Set()).add(type));
  },
};

/** The calls by which a task comes to its agent, and those by which its agent hears of a cancel. */
const submit = [
  ...["UpdateItem A", "PutItem T", "GetRecords", "SendMessageBatch deliver", "PutItem outbox"],
  ...["ReceiveMessage deliver", "BatchGetItem T+A", "GetItem T", "UpdateItem T", "DeleteMessageBatch deliver"],
];
const cancel = [
  ...["GetItem T", "TransactWriteItems T+A", "GetRecords", "SendMessageBatch deliver", "PutItem outbox"],
  ...["ReceiveMessage deliver", "BatchGetItem T+A", "DeleteMessageBatch deliver"],
];

function suite(): void {
  let system: System;
  let agent: string;
  beforeAll(async () => {
    system = await openSystem({ outbound });
    agent = await system.agent("q", { delivery: byQueue, maxConcurrency: 1000 });
  });
  afterAll(async () => {
    expect(system.errors).toEqual([]);
    await system.close();
  });

  const ids = async () => (await Task.list(system.admin, { limit: 200 })).items.map(({ id }) => id).sort();

  test.each(submit)("a task is submitted once and delivered at once, whatever befalls one call: %s", async (place) => {
    for (const [name, fault] of Object.entries(faultsAt(place, faults.others))) {
      const before = await ids();
      faults.put(place, fault);
      const { id } = await system.task("x");
      expect(faults.clear(), name).toBe(false);
      expect((await system.get(id)).status, name).toBe("running");
      expect(sent.get(id), name).toEqual(new Set(["task.assigned"]));
      expect(await ids(), name).toEqual([...before, id].sort());
    }
  });

  test.each(cancel)("a cancel is told at once, whatever befalls one call: %s", async (place) => {
    for (const [name, fault] of Object.entries(faultsAt(place, faults.others))) {
      const { id } = await system.task("x");
      faults.put(place, fault);
      await Task.cancel(system.admin, id, {});
      await system.quiet();
      expect(faults.clear(), name).toBe(false);
      expect(sent.get(id), name).toEqual(new Set(["task.assigned", "task.cancelled"]));
      await Task.fail(system.as(agent), id, { fence: 1, error: { code: "stopped", message: "" } });
      expect((await system.get(id)).status, name).toBe("cancelled");
    }
  });
}

await onAws({
  suites: [async () => suite()],
  options: () => ({ onClient: faults.onClient, retry: { baseMs: 2, capMs: 20 } }),
});
