import type { Message, Queue } from "@waggle/core";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { engines, type Opened } from "./engines.ts";

describe.each(engines)("queue on $name", ({ open }) => {
  let opened: Opened;
  let queue: Queue;
  beforeEach(async () => {
    opened = await open();
    queue = opened.engine.ports.queues.dispatch;
  });
  afterEach(() => opened.remove());

  const bodies = (messages: readonly Message[]) => messages.map((message) => message.body);
  const receive = (max = 10) => queue.receive({ max });
  async function reopen() {
    await opened.engine.ports.store.settled();
    opened = await opened.reopen();
    queue = opened.engine.ports.queues.dispatch;
  }

  test("delivers each message to one receiver, and after its ack never again", async () => {
    await queue.send([{ body: 1 }, { body: { two: [2] } }]);
    const [first, second] = await Promise.all([receive(1), receive(1)]);
    expect([...bodies(first), ...bodies(second)]).toEqual(expect.arrayContaining([1, { two: [2] }]));
    expect(await receive()).toEqual([]);
    await queue.ack([...first, ...second].map((message) => message.receipt));
    await opened.advance(60);
    expect(await receive()).toEqual([]);
    expect(await queue.depth()).toEqual({ waiting: 0, inFlight: 0, delayed: 0, dead: 0 });
  });

  test("gives at most ten at a time", async () => {
    await queue.send(Array.from({ length: 25 }, (_, body) => ({ body })));
    expect((await receive(10)).length).toBeLessThanOrEqual(10);
    expect((await receive(3)).length).toBeLessThanOrEqual(3);
  });

  test("shows a message again when its visibility time is over, and voids the old receipt", async () => {
    await queue.send([{ body: "a" }]);
    const [first] = await queue.receive({ max: 1, visibilitySeconds: 5 });
    expect(first).toMatchObject({ body: "a", receives: 1 });
    await opened.advance(4);
    expect(await receive()).toEqual([]);
    await opened.advance(2);
    const [second] = await receive();
    expect(second).toMatchObject({ id: first!.id, receives: 2 });
    await queue.ack([first!.receipt]);
    expect((await queue.depth()).inFlight).toBe(1);
    await queue.ack([second!.receipt]);
    expect((await queue.depth()).inFlight).toBe(0);
  });

  test("holds a delayed message back until its time", async () => {
    await queue.send([{ body: "later", delaySeconds: 3 }, { body: "now" }]);
    expect(bodies(await receive())).toEqual(["now"]);
    await opened.advance(2);
    expect(await receive()).toEqual([]);
    await opened.advance(2);
    expect(bodies(await receive())).toEqual(["later"]);
  });

  test("waits for the first message when asked to, and no longer than asked", async () => {
    const waiting = queue.receive({ max: 10, waitSeconds: 20 });
    await opened.advance(1);
    await queue.send([{ body: "a" }]);
    expect(bodies(await waiting)).toEqual(["a"]);
    const inVain = queue.receive({ max: 10, waitSeconds: 2 });
    await opened.advance(3);
    expect(await inVain).toEqual([]);
  });

  test("takes a message back, to be seen again after a delay", async () => {
    await queue.send([{ body: "a" }]);
    const [first] = await receive();
    await queue.retry(first!.receipt, 10);
    await opened.advance(8);
    expect(await receive()).toEqual([]);
    await opened.advance(3);
    expect(await receive()).toMatchObject([{ body: "a", receives: 2 }]);
  });

  test("keeps a message received too often among the dead letters, until it is redriven", async () => {
    await queue.send([{ body: "bad" }]);
    for (let n = 1; n <= 5; n++) {
      const [message] = await receive();
      expect(message).toMatchObject({ body: "bad", receives: n });
      await queue.retry(message!.receipt, 0);
    }
    expect(await receive()).toEqual([]);
    expect(await queue.deadLetters.list({ limit: 10 })).toMatchObject([{ body: "bad", receives: 5 }]);
    expect((await queue.depth()).dead).toBe(1);
    await reopen();
    expect(bodies(await queue.deadLetters.list({ limit: 10 }))).toEqual(["bad"]);
    expect(await queue.deadLetters.redrive({ limit: 10 })).toBe(1);
    expect(await queue.deadLetters.list({ limit: 10 })).toEqual([]);
    expect(await receive()).toMatchObject([{ body: "bad", receives: 1 }]);
  });

  test("keeps everything over a restart: waiting, delayed, received before, and not the acked", async () => {
    await queue.send([{ body: "waiting" }, { body: "acked" }, { body: "tried" }]);
    await queue.send([{ body: "delayed", delaySeconds: 100 }]);
    for (const message of await receive()) {
      if (message.body === "acked") await queue.ack([message.receipt]);
      else await queue.retry(message.receipt, 0);
    }
    await reopen();
    const found = await receive();
    expect(bodies(found).sort()).toEqual(["tried", "waiting"]);
    expect(found.map((message) => message.receives)).toEqual([2, 2]);
    await opened.advance(101);
    expect(bodies(await receive())).toContain("delayed");
  });

  test("refuses a delay over 900 seconds and a message over 1 MiB, and sends none of the call", async () => {
    const invalid = { code: "queue.message_invalid" };
    await expect(queue.send([{ body: 1 }, { body: 2, delaySeconds: 901 }])).rejects.toMatchObject(invalid);
    await expect(queue.send([{ body: 1 }, { body: "x".repeat(1024 * 1024) }])).rejects.toMatchObject(invalid);
    expect(await receive()).toEqual([]);
    await queue.send([{ body: "x".repeat(1024 * 1024 - 2) }]);
  });

  describe("handlers", () => {
    const consume = (
      options: { batch: number; concurrency: number },
      handler: (messages: readonly Message[]) => Promise<{ failed: readonly string[] }>,
    ) => opened.engine.queueFeed.consume("dispatch", options, handler);

    test("get every message once when all goes well, in batches no larger than asked", async () => {
      const seen: unknown[] = [];
      let running = 0;
      let most = 0;
      consume({ batch: 4, concurrency: 3 }, async (messages) => {
        expect(messages.length).toBeLessThanOrEqual(4);
        most = Math.max(most, ++running);
        await new Promise((resolve) => setImmediate(resolve));
        running--;
        seen.push(...bodies(messages));
        return { failed: [] };
      });
      await queue.send(Array.from({ length: 50 }, (_, body) => ({ body })));
      await expect.poll(() => seen.length).toBe(50);
      expect(new Set(seen).size).toBe(50);
      expect(most).toBeLessThanOrEqual(3);
      await expect.poll(() => queue.depth()).toEqual({ waiting: 0, inFlight: 0, delayed: 0, dead: 0 });
    });

    test("get only the failed messages of a batch again", async () => {
      const seen: unknown[] = [];
      consume({ batch: 10, concurrency: 1 }, async (messages) => {
        seen.push(...bodies(messages));
        return { failed: messages.filter((each) => each.body === "bad" && each.receives < 3).map((each) => each.id) };
      });
      await queue.send([{ body: "good" }, { body: "bad" }, { body: "fine" }]);
      await expect
        .poll(async () => {
          await opened.advance(31);
          return seen.filter((body) => body === "bad").length;
        })
        .toBe(3);
      expect(seen.filter((body) => body !== "bad").sort()).toEqual(["fine", "good"]);
      await expect.poll(async () => (await queue.depth()).inFlight).toBe(0);
    });

    test("that throw get the whole batch again, and in the end it is dead", async () => {
      let calls = 0;
      consume({ batch: 10, concurrency: 1 }, async () => {
        calls++;
        throw new Error("no");
      });
      await queue.send([{ body: "a" }]);
      await expect
        .poll(async () => {
          await opened.advance(31);
          return (await queue.depth()).dead;
        })
        .toBe(1);
      expect(calls).toBe(5);
    });

    test("get nothing more once stopped, and what they have is finished first", async () => {
      let release!: () => void;
      const gate = new Promise<void>((resolve) => (release = resolve));
      let started = 0;
      let finished = 0;
      const stop = consume({ batch: 1, concurrency: 1 }, async () => {
        started++;
        await gate;
        finished++;
        return { failed: [] };
      });
      await queue.send([{ body: 1 }, { body: 2 }]);
      await expect.poll(() => started).toBe(1);
      const stopped = stop();
      release();
      await stopped;
      expect([started, finished]).toEqual([1, 1]);
      expect((await queue.depth()).waiting).toBe(1);
    });

    test("may wait until what they wrote is on disk", async () => {
      const { store } = opened.engine.ports;
      let done = 0;
      consume({ batch: 1, concurrency: 1 }, async (messages) => {
        await store.write({ put: { pk: "t", sk: String(messages[0]?.body), kind: "row" } });
        await store.settled();
        done++;
        return { failed: [] };
      });
      await queue.send([{ body: 1 }, { body: 2 }]);
      await store.settled();
      await expect.poll(() => done).toBe(2);
    });
  });
});
