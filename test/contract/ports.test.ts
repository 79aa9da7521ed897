import type { BusEvent } from "@waggle/core";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { enginesOf, type Opened } from "./engines.ts";

const until = <T>(look: () => T) => expect.poll(look, { timeout: 15_000, interval: 20 });

for (const { name, open, lacks, real } of enginesOf("ports"))
  describe.skipIf(lacks !== undefined)(`bus, blobs and live on ${name}`, () => {
    let opened: Opened;
    beforeEach(async () => {
      opened = await open();
    });
    afterEach(() => opened.remove());

    const event = (detailType: string, detail: BusEvent["detail"] = {}): BusEvent => ({
      id: `evt-${detailType}`,
      source: "waggle",
      detailType,
      detail,
      time: "2025-01-01T00:00:00Z",
    });

    describe("bus", () => {
      test("gives an event to every rule that matches, and to no other", async () => {
        const { bus } = opened.engine.ports;
        const given: string[] = [];
        const target = (name: string) => async (each: BusEvent) => void given.push(`${name}:${each.detailType}`);
        await bus.putRule("failures", { "detail-type": ["task.failed"] }, target("failures"));
        await bus.putRule(
          "costly",
          { source: ["waggle"], detail: { cost: [{ numeric: [">", 5] }] } },
          target("costly"),
        );
        await bus.publish([
          event("task.failed", { cost: 9 }),
          event("task.completed", { cost: 1 }),
          event("task.done", { cost: 6 }),
        ]);
        await until(() => given.toSorted()).toEqual(["costly:task.done", "costly:task.failed", "failures:task.failed"]);
      });

      test("replaces a rule by name and forgets a deleted one", async () => {
        const { bus } = opened.engine.ports;
        const given: string[] = [];
        await bus.putRule("r", { source: ["waggle"] }, async () => void given.push("old"));
        await bus.putRule("r", { source: ["waggle"] }, async () => void given.push("new"));
        await bus.publish([event("a")]);
        await until(() => given).toEqual(["new"]);
        await bus.deleteRule("r");
        await bus.publish([event("b")]);
        await bus.putRule("last", { source: ["waggle"] }, async () => void given.push("last"));
        await bus.publish([event("c")]);
        await until(() => given).toEqual(["new", "last"]);
      });

      test("gives an event again to a target that throws, and holds no other up", async () => {
        const { bus } = opened.engine.ports;
        let tries = 0;
        let other = 0;
        await bus.putRule("flaky", { source: ["waggle"] }, async () => {
          if (++tries < 3) throw new Error("not now");
        });
        await bus.putRule("steady", { source: ["waggle"] }, async () => void other++);
        await bus.publish([event("a")]);
        await until(() => other).toBe(1);
        await until(async () => {
          await opened.advance(real ? 0.2 : 61);
          return tries;
        }).toBe(3);
        expect(other).toBe(1);
      });

      test("refuses a wrong pattern, naming the place", async () => {
        const put = opened.engine.ports.bus.putRule("r", { detail: { state: "failed" } }, async () => {});
        await expect(put).rejects.toMatchObject({
          code: "bus.pattern_invalid",
          message: expect.stringContaining("detail.state"),
        });
      });
    });

    describe("blobs", () => {
      test("come back byte for byte, also after a restart, until they are deleted", async () => {
        const bytes = Uint8Array.from({ length: 100_000 }, (_, i) => i % 251);
        await opened.engine.ports.blobs.put("default/tsk_1/input", bytes);
        await opened.engine.ports.blobs.put("default/tsk_1/input", bytes);
        opened = await opened.reopen();
        const { blobs } = opened.engine.ports;
        expect(Buffer.compare((await blobs.get("default/tsk_1/input")) as Uint8Array, bytes)).toBe(0);
        expect(await blobs.get("default/tsk_1/INPUT")).toBeUndefined();
        await blobs.delete("default/tsk_1/input");
        await blobs.delete("default/tsk_1/input");
        expect(await blobs.get("default/tsk_1/input")).toBeUndefined();
      });

      test.each(["", "../up", "a b", "x".repeat(201)])("refuse the key %j", async (key) => {
        const { blobs } = opened.engine.ports;
        await expect(blobs.put(key, new Uint8Array(1))).rejects.toMatchObject({ code: "store.key_invalid" });
        await expect(blobs.get(key)).rejects.toMatchObject({ code: "store.key_invalid" });
      });
    });

    describe("live", () => {
      test("wakes every subscriber of a channel, in order, and none of another or after the end", async () => {
        const { live } = opened.engine.ports;
        const given: string[] = [];
        const end = live.subscribe("a", (message: string) => given.push(`1${message}`));
        live.subscribe("a", (message: string) => given.push(`2${message}`));
        live.subscribe("b", (message: string) => given.push(`3${message}`));
        live.publish("a", "x");
        live.publish("a", "y");
        await until(() => given).toEqual(["1x", "2x", "1y", "2y"]);
        end();
        live.publish("a", "z");
        await until(() => given.slice(4)).toEqual(["2z"]);
      });

      test("keeps the order of messages of which only the first had to wait for the disk", async () => {
        const { live, store } = opened.engine.ports;
        const given: string[] = [];
        live.subscribe("a", (message: string) => given.push(message));
        await store.write({ put: { pk: "t", sk: "a", kind: "row" } });
        live.publish("a", "first");
        await store.settled();
        live.publish("a", "second");
        await until(() => given).toEqual(["first", "second"]);
      });

      test("delivers only after what was written before is on disk", async () => {
        const { live, store } = opened.engine.ports;
        const order: string[] = [];
        live.subscribe("a", () => order.push("woken"));
        await store.write({ put: { pk: "t", sk: "a", kind: "row" } });
        live.publish("a", {});
        await Promise.resolve();
        expect(order).toEqual([]);
        await store.settled();
        await until(() => order).toEqual(["woken"]);
      });
    });

    test("an engine that is closed refuses every call", async () => {
      const { store, queues, bus, blobs } = opened.engine.ports;
      const again = await opened.reopen();
      opened = again;
      const refused = { code: "store.unavailable" };
      await expect(store.get({ pk: "t", sk: "a" })).rejects.toMatchObject(refused);
      await expect(store.write({ put: { pk: "t", sk: "a", kind: "row" } })).rejects.toMatchObject(refused);
      await expect(store.settled()).rejects.toMatchObject(refused);
      await expect(queues.dispatch.send([{ body: 1 }])).rejects.toMatchObject(refused);
      await expect(bus.publish([event("a")])).rejects.toMatchObject(refused);
      await expect(blobs.get("a")).rejects.toMatchObject(refused);
    });
  });
