import type { Engine, Message, Queue } from "@waggle/core";
import { test as base, describe } from "vitest";
import { enginesOf } from "./engines.ts";

interface World {
  readonly engine: Engine;
  readonly queue: Queue;
  advance(seconds: number): Promise<void>;
  reopen(): Promise<void>;
}

const bodies = (messages: readonly Message[]) => messages.map((message) => message.body);
const patience = { timeout: 20_000, interval: 20 };

for (const { name, open, lacks, real, receiptsStay } of enginesOf("queue")) {
  /** A time on the clock in hand, or a shorter one that is really waited for. */
  const time = (inHand: number, waited: number) => (real ? waited : inHand);
  // Each test has an engine of its own, so that those that wait can wait together.
  const test = base.extend<{ world: World }>({
    // biome-ignore lint/correctness/noEmptyPattern: what a fixture needs is read from its first argument
    world: async ({}, use) => {
      let opened = await open();
      await use({
        get engine() {
          return opened.engine;
        },
        get queue() {
          return opened.engine.ports.queues.dispatch;
        },
        advance: (seconds) => opened.advance(seconds),
        async reopen() {
          await opened.engine.ports.store.settled();
          opened = await opened.reopen();
        },
      });
      await opened.remove();
    },
  });
  const receive = ({ queue }: World, max = 10) => queue.receive({ max, visibilitySeconds: 30 });

  describe.skipIf(lacks !== undefined)(`queue on ${name}`, { concurrent: real }, () => {
    test("delivers each message to one receiver, and after its ack never again", async ({ world, expect }) => {
      await world.queue.send([{ body: 1 }, { body: { two: [2] } }]);
      const [first, second] = await Promise.all([world.queue.receive({ max: 1 }), world.queue.receive({ max: 1 })]);
      expect([...bodies(first), ...bodies(second)]).toEqual(expect.arrayContaining([1, { two: [2] }]));
      expect(await receive(world)).toEqual([]);
      await world.queue.ack([...first, ...second].map((message) => message.receipt));
      await world.advance(time(60, 3));
      expect(await receive(world)).toEqual([]);
      expect(await world.queue.depth()).toEqual({ waiting: 0, inFlight: 0, delayed: 0, dead: 0 });
    });

    test("gives at most ten at a time", async ({ world, expect }) => {
      await world.queue.send(Array.from({ length: 25 }, (_, body) => ({ body })));
      expect((await receive(world, 10)).length).toBeLessThanOrEqual(10);
      expect((await receive(world, 3)).length).toBeLessThanOrEqual(3);
    });

    test("shows a message again when its visibility time is over", async ({ world, expect }) => {
      await world.queue.send([{ body: "a" }]);
      const [first] = await world.queue.receive({ max: 1, visibilitySeconds: time(5, 3) });
      expect(first).toMatchObject({ body: "a", receives: 1 });
      await world.advance(time(4, 1));
      expect(await receive(world)).toEqual([]);
      await world.advance(time(2, 3));
      const [second] = await receive(world);
      expect(second).toMatchObject({ id: first!.id, receives: 2 });
      await world.queue.ack([second!.receipt]);
      expect((await world.queue.depth()).inFlight).toBe(0);
    });

    test.skipIf(receiptsStay)("voids a receipt when its message is received again", async ({ world, expect }) => {
      await world.queue.send([{ body: "a" }]);
      const [first] = await world.queue.receive({ max: 1, visibilitySeconds: time(5, 1) });
      await world.advance(time(6, 2));
      const [second] = await receive(world);
      expect(second).toMatchObject({ id: first!.id, receives: 2 });
      await world.queue.ack([first!.receipt]);
      expect((await world.queue.depth()).inFlight).toBe(1);
      await world.queue.ack([second!.receipt]);
      expect((await world.queue.depth()).inFlight).toBe(0);
    });

    test("holds a delayed message back until its time", async ({ world, expect }) => {
      await world.queue.send([{ body: "later", delaySeconds: 3 }, { body: "now" }]);
      expect(bodies(await receive(world))).toEqual(["now"]);
      await world.advance(time(2, 1));
      expect(await receive(world)).toEqual([]);
      await world.advance(time(2, 3));
      expect(bodies(await receive(world))).toEqual(["later"]);
    });

    test("waits for the first message when asked to, and no longer than asked", async ({ world, expect }) => {
      const waiting = world.queue.receive({ max: 10, waitSeconds: 20, visibilitySeconds: 30 });
      await world.advance(1);
      await world.queue.send([{ body: "a" }]);
      expect(bodies(await waiting)).toEqual(["a"]);
      const inVain = world.queue.receive({ max: 10, waitSeconds: 2 });
      await world.advance(3);
      expect(await inVain).toEqual([]);
    });

    test("takes a message back, to be seen again after a delay", async ({ world, expect }) => {
      await world.queue.send([{ body: "a" }]);
      const [first] = await receive(world);
      await world.queue.retry([first!.receipt], time(10, 3));
      await world.advance(time(8, 1));
      expect(await receive(world)).toEqual([]);
      await world.advance(time(3, 3));
      expect(await receive(world)).toMatchObject([{ body: "a", receives: 2 }]);
    });

    test("keeps a message received too often among the dead letters, until it is redriven", async ({
      world,
      expect,
    }) => {
      await world.queue.send([{ body: "bad" }]);
      for (let n = 1; n <= 5; n++) {
        const [message] = await receive(world);
        expect(message).toMatchObject({ body: "bad", receives: n });
        await world.queue.retry([message!.receipt], 0);
      }
      expect(await receive(world)).toEqual([]);
      expect(await world.queue.deadLetters.list({ limit: 10 })).toMatchObject([{ body: "bad", receives: 5 }]);
      expect((await world.queue.depth()).dead).toBe(1);
      await world.reopen();
      expect(bodies(await world.queue.deadLetters.list({ limit: 10 }))).toEqual(["bad"]);
      expect(await world.queue.deadLetters.redrive({ limit: 10 })).toBe(1);
      expect(await world.queue.deadLetters.list({ limit: 10 })).toEqual([]);
      expect(await receive(world)).toMatchObject([{ body: "bad", receives: 1 }]);
    });

    test("keeps everything over a restart: waiting, delayed, received before, and not the acked", async ({
      world,
      expect,
    }) => {
      await world.queue.send([{ body: "waiting" }, { body: "acked" }, { body: "tried" }]);
      await world.queue.send([{ body: "delayed", delaySeconds: time(100, 5) }]);
      for (const message of await receive(world)) {
        if (message.body === "acked") await world.queue.ack([message.receipt]);
        else await world.queue.retry([message.receipt], 0);
      }
      await world.reopen();
      const found = await receive(world);
      expect(bodies(found).sort()).toEqual(["tried", "waiting"]);
      expect(found.map((message) => message.receives)).toEqual([2, 2]);
      await world.advance(time(101, 6));
      expect(bodies(await receive(world))).toContain("delayed");
    });

    test("refuses a delay over 900 seconds and a message over 1 MiB, and sends none of the call", async ({
      world,
      expect,
    }) => {
      const invalid = { code: "queue.message_invalid" };
      await expect(world.queue.send([{ body: 1 }, { body: 2, delaySeconds: 901 }])).rejects.toMatchObject(invalid);
      await expect(world.queue.send([{ body: 1 }, { body: "x".repeat(1024 * 1024) }])).rejects.toMatchObject(invalid);
      expect(await receive(world)).toEqual([]);
      await world.queue.send([{ body: "x".repeat(1024 * 1024 - 2) }]);
    });

    describe("handlers", () => {
      const consume = (
        world: World,
        options: { batch: number; concurrency: number },
        handler: (messages: readonly Message[]) => Promise<{ failed: readonly string[] }>,
      ) => world.engine.queueFeed.consume("dispatch", options, handler);

      test("get every message once when all goes well, in batches no larger than asked", async ({ world, expect }) => {
        const seen: unknown[] = [];
        let running = 0;
        let most = 0;
        consume(world, { batch: 4, concurrency: 3 }, async (messages) => {
          expect(messages.length).toBeLessThanOrEqual(4);
          most = Math.max(most, ++running);
          await new Promise((resolve) => setImmediate(resolve));
          running--;
          seen.push(...bodies(messages));
          return { failed: [] };
        });
        await world.queue.send(Array.from({ length: 50 }, (_, body) => ({ body })));
        await expect.poll(() => seen.length, patience).toBe(50);
        expect(new Set(seen).size).toBe(50);
        expect(most).toBeLessThanOrEqual(3);
        await expect
          .poll(() => world.queue.depth(), patience)
          .toEqual({ waiting: 0, inFlight: 0, delayed: 0, dead: 0 });
      });

      test("get only the failed messages of a batch again", async ({ world, expect }) => {
        const seen: unknown[] = [];
        consume(world, { batch: 10, concurrency: 1 }, async (messages) => {
          seen.push(...bodies(messages));
          return { failed: messages.filter((each) => each.body === "bad" && each.receives < 3).map((each) => each.id) };
        });
        await world.queue.send([{ body: "good" }, { body: "bad" }, { body: "fine" }]);
        await expect
          .poll(async () => {
            await world.advance(time(31, 0.2));
            return seen.filter((body) => body === "bad").length;
          }, patience)
          .toBe(3);
        expect(seen.filter((body) => body !== "bad").sort()).toEqual(["fine", "good"]);
        await expect.poll(async () => (await world.queue.depth()).inFlight, patience).toBe(0);
      });

      test("that throw get the whole batch again, and in the end it is dead", async ({ world, expect }) => {
        let calls = 0;
        consume(world, { batch: 10, concurrency: 1 }, async () => {
          calls++;
          throw new Error("no");
        });
        await world.queue.send([{ body: "a" }]);
        await expect
          .poll(async () => {
            await world.advance(time(31, 0.2));
            return (await world.queue.depth()).dead;
          }, patience)
          .toBe(1);
        expect(calls).toBe(5);
      });

      test("get nothing more once stopped, and what they have is finished first", async ({ world, expect }) => {
        let release!: () => void;
        const gate = new Promise<void>((resolve) => (release = resolve));
        let started = 0;
        let finished = 0;
        const stop = consume(world, { batch: 1, concurrency: 1 }, async () => {
          started++;
          await gate;
          finished++;
          return { failed: [] };
        });
        await world.queue.send([{ body: 1 }, { body: 2 }]);
        await expect.poll(() => started, patience).toBe(1);
        const stopped = stop();
        release();
        await stopped;
        expect([started, finished]).toEqual([1, 1]);
        expect((await world.queue.depth()).waiting).toBe(1);
      });

      test("may wait until what they wrote is on disk", async ({ world, expect }) => {
        const { store } = world.engine.ports;
        let done = 0;
        consume(world, { batch: 1, concurrency: 1 }, async (messages) => {
          await store.write({ put: { pk: "t", sk: String(messages[0]?.body), kind: "row" } });
          await store.settled();
          done++;
          return { failed: [] };
        });
        await world.queue.send([{ body: 1 }, { body: 2 }]);
        await store.settled();
        await expect.poll(() => done, patience).toBe(2);
      });
    });
  });
}
