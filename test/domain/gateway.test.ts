import { Agent, type JsonText, Key, Task } from "@waggle/core";
import { minuteHandler, type SocketEvent, socketHandler } from "@waggle/edge";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Fleet, openFleet } from "../support/processes.ts";

let fleet: Fleet;
beforeEach(async () => {
  fleet = await openFleet();
});
afterEach(async () => {
  expect(fleet.errors).toEqual([]);
  await fleet.close();
});

/** Each event is another process, as each may be another invocation on AWS. */
const handle = (event: SocketEvent) =>
  socketHandler(fleet.process().ports, (_, error) => void fleet.errors.push(error))(event);
const open = (connectionId: string, token: string | undefined) =>
  handle({
    requestContext: { eventType: "CONNECT", connectionId },
    headers: { "Sec-WebSocket-Protocol": `waggle.v1${token === undefined ? "" : `, bearer.${token}`}` },
  });
const say = async (connectionId: string, ...frames: unknown[]) => {
  const before = fleet.sent.length;
  const body = JSON.stringify(frames.length === 1 ? frames[0] : frames);
  await handle({ requestContext: { eventType: "MESSAGE", connectionId }, body });
  await fleet.quiet();
  return heard(connectionId, before);
};
const close = (connectionId: string) => handle({ requestContext: { eventType: "DISCONNECT", connectionId } });
// biome-ignore lint/suspicious/noExplicitAny: frames of every kind
const heard = (connectionId: string, from = 0): any[] =>
  fleet.sent.slice(from).flatMap((each) => (each.connectionId === connectionId ? JSON.parse(each.text) : []));
const admin = () => fleet.process().scope();
const register = (name: string) =>
  Agent.register(admin(), Agent.Register.parse({ name, capabilities: [{ name: "x" }], onConflict: "replace" }));
const submit = async (more: Record<string, unknown> = {}) => {
  const input = Task.Create.parse({ type: "t", requires: [{ capability: "x" }], ...more });
  const { task } = await Task.create(admin(), input);
  await fleet.quiet();
  return task.id;
};
const get = (id: string) => Task.get(admin(), id);

describe("an agent behind the gateway", () => {
  test("is let in by its own token alone", async () => {
    const { token } = await register("a");
    const { key } = await Key.create(admin(), { role: "admin" });
    expect(await open("one", token)).toMatchObject({
      statusCode: 200,
      headers: { "Sec-WebSocket-Protocol": "waggle.v1" },
    });
    expect(await open("two", undefined)).toMatchObject({ statusCode: 401 });
    expect(
      await open(
        "two",
        token.replace(/.$/, (last) => (last === "A" ? "B" : "A")),
      ),
    ).toMatchObject({ statusCode: 401 });
    expect(await open("two", key)).toMatchObject({ statusCode: 403 });
    expect(await handle({ requestContext: { eventType: "MESSAGE", connectionId: "two" }, body: "{}" })).toMatchObject({
      statusCode: 401,
    });
  });

  test("gets work pushed by whichever process finds it, completes it, and gets what waits", async () => {
    const { agent, token } = await register("a");
    await open("one", token);
    const [welcome, reply] = await say("one", { op: "hello", re: 1 });
    expect(welcome).toMatchObject({ op: "welcome", agentId: agent.id, maxConcurrency: 1 });
    expect(reply).toMatchObject({ op: "reply", re: 1, ok: true });
    const [first, second] = [await submit({ input: '{"exact":  1.0}' as JsonText }), await submit()];
    const { text } = fleet.sent.at(-1) as { text: string };
    expect(text).toContain('"input":{"exact":  1.0}');
    const [given] = heard("one").filter(({ op }) => op === "assign");
    const [{ task, fence }] = given.assignments;
    expect(task.id).toBe(first);
    expect((await get(second)).status).toBe("queued");
    const answers = await say("one", { op: "complete", re: 2, taskId: first, fence });
    expect(answers).toContainEqual({ op: "reply", re: 2, ok: true, task: { id: first, status: "completed", fence } });
    expect(answers.find(({ op }) => op === "assign").assignments[0].task.id).toBe(second);
  });

  test("is told of frames it got wrong, one by one, and of a cancel", async () => {
    const { token } = await register("a");
    await open("one", token);
    await say("one", { op: "hello" });
    const id = await submit();
    const answers = await say("one", { op: "dance", re: 5 }, { op: "start", re: 6, taskId: id, fence: 9 });
    expect(answers.find(({ re }) => re === 5)).toMatchObject({ ok: false, problem: { code: "request.invalid" } });
    expect(answers.find(({ re }) => re === 6)).toMatchObject({ ok: false, problem: { code: "task.lease_lost" } });
    const before = fleet.sent.length;
    await Task.cancel(admin(), id, {});
    expect(heard("one", before)).toEqual([{ op: "command", cancel: [id] }]);
    const [beat] = await say("one", { op: "heartbeat", re: 7 });
    expect(beat.commands.cancel).toEqual([id]);
  });

  test("that connects anew has its work there, and the old connection is told to stop and ended", async () => {
    const { token } = await register("a");
    await open("one", token);
    await say("one", { op: "hello" });
    const id = await submit();
    await open("two", token);
    const frames = await say("two", { op: "hello" });
    expect(frames.find(({ op }) => op === "assign").assignments[0].task.id).toBe(id);
    expect(heard("one").at(-1)).toMatchObject({ op: "command", stop: true });
    expect([...fleet.ended]).toEqual(["one"]);
    await close("one");
    expect(await say("one", { op: "heartbeat" })).toEqual([]);
    expect((await say("two", { op: "heartbeat", re: 1 }))[0]).toMatchObject({ ok: true });
  });

  test("whose connection turns out gone has what it had not begun given to others", async () => {
    const [a, b] = [await register("a"), await register("b")];
    await open("one", a.token);
    await say("one", { op: "hello" });
    fleet.gone.add("one");
    const id = await submit();
    expect(await get(id)).toMatchObject({ status: "queued", attempt: 0 });
    await open("two", b.token);
    const frames = await say("two", { op: "hello" });
    expect(frames.find(({ op }) => op === "assign").assignments[0].task.id).toBe(id);
  });

  test("that is wrongly thought gone is there again with its next heartbeat", async () => {
    const { token } = await register("a");
    await open("one", token);
    await say("one", { op: "hello" });
    await Agent.detach(admin(), (await Agent.list(admin(), { limit: 1 })).items[0]?.id as string, "one", {
      gone: true,
    });
    const id = await submit();
    expect((await get(id)).status).toBe("queued");
    const frames = await say("one", { op: "heartbeat", re: 1 });
    expect(frames.some(({ op }) => op === "assign")).toBe(true);
    expect((await get(id)).status).toBe("assigned");
  });

  test("that says it stops is answered, then its connection is ended", async () => {
    const { token } = await register("a");
    await open("one", token);
    await say("one", { op: "hello" });
    expect(await say("one", { op: "stop", re: 1 })).toContainEqual(expect.objectContaining({ re: 1, ok: true }));
    expect([...fleet.ended]).toEqual(["one"]);
  });

  test("whose token is void is told to stop", async () => {
    const { token } = await register("a");
    await open("one", token);
    await say("one", { op: "hello" });
    await register("a");
    expect((await say("one", { op: "heartbeat", re: 1 })).map(({ stop }) => stop)).toEqual([true]);
  });

  test.each([["hello"], ["heartbeat"], ["pause"], ["drain"], ["stop"]])(
    "whose token is void is told to stop by its %s too, on a connection nobody knew of",
    async (op) => {
      const { token } = await register("a");
      await open("spare", token);
      const next = await register("a");
      await open("one", next.token);
      await say("one", { op: "hello" });
      expect((await say("spare", { op, re: 1 })).map(({ stop }) => stop)).toEqual([true]);
      expect([...fleet.ended]).toEqual(["spare"]);
      const id = await submit();
      expect(heard("one").at(-1)).toMatchObject({ op: "assign", assignments: [{ task: { id } }] });
    },
  );

  test.each([{ op: "heartbeat" }, [{ op: "ping" }], { op: "complete", taskId: "tsk_none", fence: 1 }])(
    "whose token is void cannot make who has its place seem alive by %j",
    async (frame) => {
      const { token } = await register("a");
      await open("spare", token);
      const next = await register("a");
      await open("one", next.token);
      await say("one", { op: "hello" });
      const id = await submit();
      for (let n = 0; n < 6; n++) {
        await say("spare", frame);
        await fleet.pass(20, 20);
      }
      expect((await Agent.get(admin(), next.agent.id)).status).toBe("lost");
      expect((await get(id)).status).toBe("queued");
    },
  );

  test("that was lost is back with whatever it says, also where that comes too late, and to who knew it before", async () => {
    const { agent, token } = await register("a");
    await open("one", token);
    await say("one", { op: "hello" });
    const knows = socketHandler(fleet.process().ports);
    const event = (frame: object): SocketEvent => ({
      requestContext: { eventType: "MESSAGE", connectionId: "one" },
      body: JSON.stringify(frame),
    });
    await knows(event({ op: "heartbeat" }));
    const id = await submit();
    const { fence } = heard("one").find(({ op }) => op === "assign").assignments[0];
    await fleet.pass(120, 20);
    expect((await Agent.get(admin(), agent.id)).status).toBe("lost");
    await knows(event({ op: "complete", re: 1, taskId: id, fence }));
    await fleet.quiet();
    expect(heard("one").find(({ re }) => re === 1)).toMatchObject({
      ok: false,
      problem: { code: "task.lease_lost" },
    });
    expect((await get(id)).status).toBe("assigned");
  });

  test.each([["input"], ["metadata"]])(
    "gets a task that is too large for a message, be it by its %s, without it, and is told so",
    async (field) => {
      const { token } = await register("a");
      await open("one", token);
      await say("one", { op: "hello" });
      const large = JSON.stringify("é".repeat(70_000)) as JsonText;
      const id = await submit({ [field]: large });
      const { text } = fleet.sent.at(-1) as { text: string };
      expect(Buffer.byteLength(text)).toBeLessThan(128 * 1024);
      expect(JSON.parse(text).assignments[0]).toMatchObject({ inputOmitted: true, task: { id } });
      expect(await get(id)).toMatchObject({ [field]: large });
    },
  );

  test.each([["cheapest"], ["sticky"]])(
    "is chosen by the strategy %s though it came free in another process",
    async (strategy) => {
      await fleet.close();
      fleet = await openFleet({ workers: 1 });
      const costs = { cheap: 1, dear: 2, dearest: 3 };
      for (const [name, cost] of Object.entries(costs)) {
        const agent = Agent.Register.parse({ name, capabilities: [{ name: "x", cost }] });
        await open(name, (await Agent.register(admin(), agent)).token);
        await say(name, { op: "hello" });
      }
      const seen: string[] = [];
      for (let n = 0; n < 4; n++) {
        const from = fleet.sent.length;
        const id = await submit({ strategy, stickyKey: "session" });
        const name = fleet.sent.slice(from).find(({ text }) => text.includes(id))?.connectionId as string;
        seen.push(name);
        const { fence } = await get(id);
        await say(name, { op: "complete", taskId: id, fence });
      }
      expect(new Set(seen).size, seen.join()).toBe(1);
      if (strategy === "cheapest") expect(seen[0]).toBe("cheap");
    },
  );

  describe("lives by its connection while it holds nothing:", () => {
    const status = async () => (await Agent.list(admin(), { limit: 1 })).items[0]?.status;
    const minute = () => minuteHandler(fleet.process().ports, (_, error) => void fleet.errors.push(error))();
    const minutes = async (count: number) => {
      for (let n = 0; n < count; n++) {
        await fleet.pass(60, 60);
        await minute();
      }
      await fleet.quiet();
    };
    const connected = async () => {
      const { token } = await register("a");
      await open("one", token);
      const [welcome] = await say("one", { op: "hello", re: 1 });
      return { token, welcome };
    };
    const unitsOf = async (run: () => Promise<unknown>) => {
      const before = fleet.engine.meter().writeUnits;
      await run();
      return fleet.engine.meter().writeUnits - before;
    };

    test("it need not be heard of, is there when work comes, and costs no write meanwhile", async () => {
      const { welcome } = await connected();
      expect(welcome).toMatchObject({ leaseSeconds: 60, pingSeconds: 540 });
      await minutes(2);
      expect(await unitsOf(() => fleet.pass(3000, 60))).toBe(0);
      expect(await status()).toBe("ready");
      // Where the gateway does not take it by itself.
      expect(await unitsOf(() => say("one", { op: "ping" }))).toBe(0);
      const id = await submit();
      expect(heard("one").at(-1)).toMatchObject({ op: "assign", assignments: [{ task: { id } }] });
    });

    test("with work it has a lease again, and silent for that its task goes to others within a minute and a half", async () => {
      await connected();
      await minutes(30);
      const id = await submit();
      expect((await get(id)).status).toBe("assigned");
      await fleet.pass(90, 5);
      expect(await status()).toBe("lost");
      expect(await get(id)).toMatchObject({ status: "queued" });
    });

    test("a second task does not lengthen the lease of one that is silent", async () => {
      const { token } = await register("a");
      await Agent.update(admin(), (await Agent.list(admin(), { limit: 1 })).items[0]?.id as string, {
        maxConcurrency: 5,
      });
      await open("one", token);
      await say("one", { op: "hello" });
      await minutes(5);
      for (let n = 0; n < 4; n++) {
        await submit();
        await fleet.pass(22, 2);
      }
      expect(await status()).toBe("lost");
    });

    test("after its work the connection is enough again", async () => {
      await connected();
      const id = await submit();
      await say("one", { op: "complete", taskId: id, fence: (await get(id)).fence });
      await minutes(60);
      expect(await status()).toBe("ready");
    });

    test("when the connection has ended and it does not come again, it is lost", async () => {
      await connected();
      await minutes(5);
      await close("one");
      await fleet.pass(90, 5);
      expect(await status()).toBe("lost");
    });

    test("an end nobody was told of shows with the next task, which goes to another, or after two hours", async () => {
      await connected();
      await minutes(5);
      fleet.gone.add("one");
      const id = await submit();
      expect(await get(id)).toMatchObject({ status: "queued", attempt: 0 });
      expect([...fleet.ended]).toEqual(["one"]);
      const b = await register("b");
      await open("two", b.token);
      await say("two", { op: "hello" });
      expect((await get(id)).agentId).toBe(b.agent.id);
      await say("two", { op: "complete", taskId: id, fence: 1 });
      await minutes(125);
      expect((await Agent.get(admin(), b.agent.id)).status).toBe("lost");
    });
  });
});
