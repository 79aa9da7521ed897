import { afterEach, expect, test } from "vitest";
import { untilPasses } from "../../../test/support/eventually.ts";
import { type AgentOptions, createAgent, NonRetryableError, type RunningAgent } from "../src/node.ts";
import { type Frame, type Peer, startPeer } from "./peer.ts";

const quiet = { debug() {}, info() {}, warn() {}, error() {} };
const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function setUp(
  handlers: AgentOptions["handlers"],
  peerOptions: Parameters<typeof startPeer>[0] = {},
  more: Partial<AgentOptions> = {},
): Promise<{ peer: Peer; agent: RunningAgent }> {
  const peer = await startPeer(peerOptions);
  cleanups.push(() => peer.close());
  const agent = createAgent({
    name: "a",
    url: peer.url,
    key: "k",
    concurrency: 10,
    handlers,
    log: quiet,
    transport: "socket",
    ...more,
  });
  cleanups.push(() => agent.stop({ graceSeconds: 0 }));
  await agent.start();
  return { peer, agent };
}
const of = (peer: Peer, op: string) => peer.frames().filter((frame) => frame.op === op);
const deferred = <T = void>() => {
  let resolve: (value: T) => void = () => {};
  const promise = new Promise<T>((done) => {
    resolve = done;
  });
  return { promise, resolve };
};

test("says hello first and records a result with its fence", async () => {
  const { peer } = await setUp({ work: async (task) => ({ doubled: task.input * 2 }) });
  peer.assign({ id: "tsk_1", fence: 4, input: 21 });
  await untilPasses(() => expect(of(peer, "complete")).toHaveLength(1));
  expect(peer.frames()[0]).toEqual({ op: "hello", holding: [] });
  expect(of(peer, "complete")[0]).toMatchObject({ taskId: "tsk_1", fence: 4, result: { doubled: 42 } });
});

test("sends the outcomes of one turn as one message, and no start for quick tasks", async () => {
  const { peer } = await setUp({ work: async () => 1 });
  peer.assign(...Array.from({ length: 10 }, (_, i) => ({ id: `tsk_${i}` })));
  await untilPasses(() => expect(of(peer, "complete")).toHaveLength(10));
  expect(peer.messages.filter((frames) => frames.some((frame) => frame.op === "complete"))).toHaveLength(1);
  expect(of(peer, "start")).toEqual([]);
});

test("tells the start of a task that takes longer, once", async () => {
  const gate = deferred();
  const { peer } = await setUp({ work: () => gate.promise });
  peer.assign({ id: "tsk_1" });
  await untilPasses(() => expect(of(peer, "start")).toHaveLength(1));
  gate.resolve();
  await untilPasses(() => expect(of(peer, "complete")).toHaveLength(1));
  expect(of(peer, "start")).toHaveLength(1);
});

test("fails an attempt with the error's code, message and whether it may be tried again", async () => {
  const { peer } = await setUp({
    plain: () => Promise.reject(new Error("no luck")),
    coded: () => {
      throw Object.assign(new Error("busy"), { code: "EBUSY", retryable: true });
    },
    final: async () => {
      throw new NonRetryableError("bad input", { code: "input.bad" });
    },
  });
  peer.assign(
    { id: "tsk_1", type: "plain" },
    { id: "tsk_2", type: "coded" },
    { id: "tsk_3", type: "final" },
    { id: "tsk_4", type: "unknown" },
  );
  await untilPasses(() => expect(of(peer, "fail")).toHaveLength(4));
  const errors = Object.fromEntries(of(peer, "fail").map((frame) => [frame.taskId, frame.error]));
  expect(errors).toEqual({
    tsk_1: { code: "error", message: "no luck" },
    tsk_2: { code: "EBUSY", message: "busy", retryable: true },
    tsk_3: { code: "input.bad", message: "bad input", retryable: false },
    tsk_4: { code: "handler.missing", message: expect.stringContaining("unknown") },
  });
});

test("gives types without a handler of their own to the one named *", async () => {
  const { peer } = await setUp({ "*": (task) => task.type });
  peer.assign({ id: "tsk_1", type: "toString" });
  await untilPasses(() => expect(of(peer, "complete")[0]).toMatchObject({ result: "toString" }));
});

test("fails a task whose result is no JSON or too large, instead of losing it", async () => {
  const { peer } = await setUp({
    circular: () => {
      const loop: Record<string, unknown> = {};
      loop.self = loop;
      return loop;
    },
    large: () => "x".repeat(1024 * 1024),
  });
  peer.assign({ id: "tsk_1", type: "circular" }, { id: "tsk_2", type: "large" });
  await untilPasses(() => expect(of(peer, "fail")).toHaveLength(2));
  expect(of(peer, "fail").map((frame) => (frame.error as { code: string }).code)).toEqual([
    "result.invalid",
    "result.too_large",
  ]);
});

test("fails a task whose result the server reads in no message, and holds up no other by it", async () => {
  const whole = String.raw`a bee 🐝, its half \ud83d as text`;
  const { peer, agent } = await setUp({
    cut: () => "a bee 🐝".slice(0, -1),
    deep: () => JSON.parse(`${"[".repeat(63)}${"]".repeat(63)}`),
    whole: () => whole,
  });
  peer.assign({ id: "tsk_1", type: "cut" }, { id: "tsk_2", type: "deep" }, { id: "tsk_3", type: "whole" });
  await agent.drain();
  expect(of(peer, "fail")).toMatchObject([
    { taskId: "tsk_1", error: { code: "result.invalid", message: expect.stringContaining("half of a character") } },
    { taskId: "tsk_2", error: { code: "result.invalid", message: expect.stringContaining("deeper than 62 levels") } },
  ]);
  expect(of(peer, "complete")).toMatchObject([{ taskId: "tsk_3", result: whole }]);
});

test("tells why a task failed whatever was thrown, and lives on", async () => {
  const bees = "🐝".repeat(10_000);
  const { peer, agent } = await setUp({
    nothing: () => Promise.reject(undefined),
    bare: () => Promise.reject(Object.create(null)),
    odd: () => Promise.reject(Object.assign(new Error("x"), { message: { why: 1 } })),
    like: () => Promise.reject({ code: "E_LIKE", message: "like an error" }),
    // Cut to its longest, it would end in the middle of a bee.
    long: () => Promise.reject(new Error(`!${bees}`)),
  });
  const types = ["nothing", "bare", "odd", "like", "long"];
  peer.assign(...types.map((type) => ({ id: `tsk_${type}`, type })));
  await agent.drain();
  const said = Object.fromEntries(of(peer, "fail").map(({ taskId, error }) => [taskId, error as { message: string }]));
  expect(Object.keys(said)).toEqual(types.map((type) => `tsk_${type}`));
  expect(said.tsk_nothing?.message).toBe("undefined");
  expect(said.tsk_like).toEqual({ code: "E_LIKE", message: "like an error" });
  expect(said.tsk_long?.message).toMatch(/^!(🐝)+\ufffd$/u);
});

test("fails alone a task whose handler tells of progress or usage that is no JSON", async () => {
  const { peer, agent } = await setUp({
    progress: async (_task, { progress }) => progress({ percent: 1n as unknown as number }),
    usage: async (_task, { usage }) => usage({ tokens: 1n as unknown as number }),
    fine: async (_task, { usage }) => usage({ tokens: 1 }),
  });
  peer.assign(...["progress", "usage", "fine"].map((type) => ({ id: `tsk_${type}`, type })));
  await agent.drain();
  expect(of(peer, "fail").map(({ taskId }) => taskId)).toEqual(["tsk_progress", "tsk_usage"]);
  expect(of(peer, "complete")).toMatchObject([{ taskId: "tsk_fine", usage: { tokens: 1 } }]);
});

test("says of details that cannot be kept why, and goes on", async () => {
  const warned: string[] = [];
  const { peer, agent } = await setUp(
    {
      work: async (_task, { progress }) => {
        progress({ percent: 1 }, "x".repeat(64 * 1024));
        progress({ message: "x".repeat(1025) });
        progress({}, "🐝".slice(1));
      },
    },
    {},
    { log: { ...quiet, warn: (message) => warned.push(message) } },
  );
  peer.assign({ id: "tsk_1" });
  await agent.drain();
  expect(of(peer, "complete")).toHaveLength(1);
  expect(warned).toEqual([
    expect.stringContaining("at most 65536 fit"),
    expect.stringContaining("at most 1024 characters"),
    expect.stringContaining("half of a character"),
  ]);
});

test("aborts the signal on cancel, and gives the task back when the handler heeds it", async () => {
  const reason = deferred<unknown>();
  const { peer } = await setUp({
    work: (_task, { signal }) =>
      new Promise((_, reject) => {
        signal.addEventListener("abort", () => {
          reason.resolve(signal.reason);
          reject(signal.reason);
        });
      }),
  });
  peer.assign({ id: "tsk_1" });
  await untilPasses(() => expect(of(peer, "start")).toHaveLength(1));
  peer.send({ op: "command", cancel: ["tsk_1"] });
  expect(await reason.promise).toMatchObject({ code: "task.cancelled" });
  await untilPasses(() => expect(of(peer, "release")).toHaveLength(1));
});

test("stops work on a revoked task and never sends its outcome", async () => {
  const gate = deferred();
  const aborted = deferred<boolean>();
  const { peer, agent } = await setUp({
    work: async (_task, { signal }) => {
      await gate.promise;
      aborted.resolve(signal.aborted);
      return "late";
    },
  });
  peer.assign({ id: "tsk_1" });
  await untilPasses(() => expect(of(peer, "start")).toHaveLength(1));
  peer.send({ op: "command", revoked: ["tsk_1"] });
  // Frames keep their order: once this one is answered, the command has been read.
  peer.assign({ id: "tsk_2", type: "other" });
  await untilPasses(() => expect(of(peer, "fail")).toHaveLength(1));
  gate.resolve();
  expect(await aborted.promise).toBe(true);
  await agent.drain();
  expect(of(peer, "complete")).toEqual([]);
});

test("learns from a refused start that it lost the task", async () => {
  const aborted = deferred<unknown>();
  await setUp(
    {
      work: (_task, { signal }) =>
        new Promise<void>((done) =>
          signal.addEventListener("abort", () => {
            aborted.resolve(signal.reason);
            done();
          }),
        ),
    },
    {
      reply: (frame) =>
        frame.op === "start" ? { ok: false, problem: { status: 409, code: "task.lease_lost" } } : { ok: true },
    },
  ).then(({ peer }) => peer.assign({ id: "tsk_1" }));
  expect(await aborted.promise).toMatchObject({ code: "task.lease_lost" });
});

test("goes on with a later attempt when the start of the one before is refused late", async () => {
  const gate = deferred();
  const { peer } = await setUp(
    { work: () => gate.promise.then(() => "done") },
    { reply: (frame) => (frame.op === "start" && frame.fence === 1 ? undefined : { ok: true }) },
  );
  peer.assign({ id: "tsk_1", fence: 1 });
  await untilPasses(() => expect(of(peer, "start")).toHaveLength(1));
  const [start] = of(peer, "start");
  peer.assign({ id: "tsk_1", fence: 2 });
  await untilPasses(() => expect(of(peer, "start")).toHaveLength(2));
  peer.send({ op: "reply", re: start?.re, ok: false, problem: { status: 409, code: "task.lease_lost" } });
  // Frames are read in their order: once this one is answered, that one was heard.
  peer.assign({ id: "tsk_2" });
  await untilPasses(() => expect(of(peer, "start")).toHaveLength(3));
  gate.resolve();
  await untilPasses(() => expect(of(peer, "complete").map(({ taskId }) => taskId)).toEqual(["tsk_1", "tsk_2"]));
  expect(of(peer, "complete")[0]).toMatchObject({ fence: 2, result: "done" });
});

test("sends progress of one turn as one frame, the newest winning, details kept", async () => {
  const gate = deferred();
  const { peer } = await setUp({
    work: async (_task, { progress }) => {
      progress({ percent: 1, message: "one" }, { page: 1 });
      progress({ percent: 2 });
      await gate.promise;
    },
  });
  peer.assign({ id: "tsk_1" });
  await untilPasses(() => expect(of(peer, "progress")).toHaveLength(1));
  expect(of(peer, "progress")[0]).toMatchObject({
    taskId: "tsk_1",
    fence: 1,
    progress: { percent: 2, message: "one" },
    details: { page: 1 },
  });
  gate.resolve();
  await untilPasses(() => expect(of(peer, "complete")).toHaveLength(1));
});

test("hands a handler the details of the attempt before, and records usage", async () => {
  const { peer } = await setUp({
    work: (_task, { details, usage }) => {
      usage({ tokens: 5 });
      usage({ units: 2 });
      return details;
    },
  });
  peer.assign({ id: "tsk_1", details: { page: 3 } });
  await untilPasses(() =>
    expect(of(peer, "complete")[0]).toMatchObject({ result: { page: 3 }, usage: { tokens: 5, units: 2 } }),
  );
});

test("reconnects, names what it still holds, and works on", async () => {
  const gate = deferred();
  let runs = 0;
  const { peer } = await setUp({
    work: () => {
      runs++;
      return gate.promise;
    },
  });
  peer.assign({ id: "tsk_1", fence: 3 });
  await untilPasses(() => expect(of(peer, "start")).toHaveLength(1));
  peer.cut();
  await untilPasses(() => expect(of(peer, "hello")).toHaveLength(2));
  expect(of(peer, "hello")[1]).toEqual({ op: "hello", holding: [{ taskId: "tsk_1", fence: 3 }] });
  // The server may push it again: the agent has it already.
  peer.assign({ id: "tsk_1", fence: 3 });
  gate.resolve();
  await untilPasses(() => expect(of(peer, "complete")).toHaveLength(1));
  expect(runs).toBe(1);
});

test("says after a reconnect what of its progress was not answered, the newest of it", async () => {
  const gate = deferred();
  const told = deferred<(details: unknown) => void>();
  const { peer } = await setUp(
    {
      work: async (_task, { progress }) => {
        told.resolve((details) => progress({ percent: 50 }, details));
        await gate.promise;
      },
    },
    { reply: (frame, connection) => (connection === 1 && frame.op === "progress" ? undefined : { ok: true }) },
  );
  peer.assign({ id: "tsk_1" });
  const tell = await told.promise;
  for (const page of [1, 2]) {
    tell({ page });
    await untilPasses(() => expect(of(peer, "progress")).toHaveLength(page));
  }
  peer.cut();
  await untilPasses(() => expect(of(peer, "progress")).toHaveLength(3));
  expect(of(peer, "progress")[2]).toMatchObject({ progress: { percent: 50 }, details: { page: 2 } });
  gate.resolve();
  await untilPasses(() => expect(of(peer, "complete")).toHaveLength(1));
});

test("asks again for an input that came neither with its task nor when it was asked for", async () => {
  const task = { id: "tsk_1", type: "work", attempt: 1 };
  let asked = 0;
  const { peer } = await setUp(
    { work: (task) => task.input },
    {
      call: (path) => {
        if (path !== "/v1/tasks/tsk_1") return undefined;
        return ++asked === 1 ? [503, { code: "request.not_ready" }] : [200, { task: { ...task, input: "large" } }];
      },
    },
  );
  const expiresAt = "2030-01-01T00:00:00.000Z";
  peer.send({ op: "assign", assignments: [{ task, fence: 1, expiresAt, inputOmitted: true }] });
  await untilPasses(() => expect(of(peer, "complete")).toMatchObject([{ taskId: "tsk_1", result: "large" }]));
});

test("says what the next attempt is to have before it says that this one failed, also after a reconnect", async () => {
  const { peer } = await setUp(
    {
      work: async (_task, { progress }) => {
        await null;
        progress({ percent: 50 }, { page: 2 });
        throw new Error("no luck");
      },
    },
    { reply: (_, connection) => (connection === 1 ? undefined : { ok: true }) },
  );
  peer.assign({ id: "tsk_1" });
  for (const times of [1, 2]) {
    await untilPasses(() => expect(of(peer, "fail")).toHaveLength(times));
    peer.cut();
  }
  const said = peer.frames().filter(({ op }) => op === "progress" || op === "fail");
  expect(said.map(({ op }) => op)).toEqual(["progress", "fail", "progress", "fail"]);
  expect(said[2]).toMatchObject({ progress: { percent: 50 }, details: { page: 2 } });
});

test("connects again when a proxy answers in the server's place meanwhile", async () => {
  const { peer, agent } = await setUp(
    { work: () => 1 },
    { upgrade: (tries) => (tries === 2 ? 404 : tries === 3 ? 200 : 101) },
  );
  peer.cut();
  await untilPasses(() => expect(of(peer, "hello")).toHaveLength(2));
  expect(agent.state).toBe("running");
});

test("sends an outcome again after a reconnect until the server has confirmed it", async () => {
  let cut = false;
  const { peer } = await setUp(
    { work: () => "done" },
    {
      reply: (frame, connection) => {
        if (frame.op === "complete" && connection === 1) {
          cut = true;
          return undefined;
        }
        return { ok: true };
      },
    },
  );
  peer.assign({ id: "tsk_1", fence: 2 });
  await untilPasses(() => expect(cut).toBe(true));
  peer.cut();
  await untilPasses(() => expect(of(peer, "complete")).toHaveLength(2));
  expect(of(peer, "hello")[1]?.holding).toEqual([{ taskId: "tsk_1", fence: 2 }]);
  peer.cut();
  await untilPasses(() => expect(of(peer, "hello")).toHaveLength(3));
  expect(of(peer, "hello")[2]?.holding).toEqual([]);
  expect(of(peer, "complete")).toHaveLength(2);
});

test("finishes an outcome that was ready while it was not connected", async () => {
  const gate = deferred();
  const { peer } = await setUp({ work: () => gate.promise.then(() => "late") });
  peer.assign({ id: "tsk_1" });
  await untilPasses(() => expect(of(peer, "start")).toHaveLength(1));
  peer.cut();
  gate.resolve();
  await untilPasses(() => expect(of(peer, "complete")[0]).toMatchObject({ result: "late" }));
});

test("sends an outcome again when the server could not take it just then", async () => {
  let refused = 0;
  const { peer } = await setUp(
    { work: () => 1 },
    {
      reply: (frame) =>
        frame.op === "complete" && refused++ === 0
          ? { ok: false, problem: { status: 503, code: "server.not_ready" } }
          : { ok: true },
    },
  );
  peer.assign({ id: "tsk_1" });
  await untilPasses(() => expect(of(peer, "complete")).toHaveLength(2));
});

test("fails a task whose outcome the server refuses for its content", async () => {
  const { peer, agent } = await setUp(
    { work: () => "deep" },
    {
      reply: (frame) =>
        frame.op === "complete"
          ? { ok: false, problem: { status: 400, code: "request.invalid", detail: "nested too deep" } }
          : { ok: true },
    },
  );
  peer.assign({ id: "tsk_1" });
  await untilPasses(() =>
    expect(of(peer, "fail")[0]).toMatchObject({ error: { code: "result.refused", retryable: false } }),
  );
  await agent.drain();
});

test("connects anew when heartbeats stay unanswered", async () => {
  const { peer } = await setUp(
    { work: () => 1 },
    { leaseSeconds: 0.3, reply: (frame) => (frame.op === "heartbeat" ? undefined : { ok: true }) },
  );
  await untilPasses(() => expect(peer.connections()).toBeGreaterThan(1));
});

test("aborts what runs when the server is out of reach for longer than the lease", async () => {
  const aborted = deferred<unknown>();
  const { peer } = await setUp(
    {
      work: (_task, { signal }) =>
        new Promise((_, reject) =>
          signal.addEventListener("abort", () => {
            aborted.resolve(signal.reason);
            reject(signal.reason);
          }),
        ),
    },
    { leaseSeconds: 0.3, upgrade: (connection) => (connection === 1 ? 101 : 503) },
  );
  peer.assign({ id: "tsk_1" });
  await untilPasses(() => expect(of(peer, "start")).toHaveLength(1));
  peer.cut();
  expect(await aborted.promise).toMatchObject({ code: "task.lease_lost" });
});

test("obeys a cancel that comes with a heartbeat's answer", async () => {
  const aborted = deferred<unknown>();
  const { peer } = await setUp(
    {
      work: (_task, { signal }) =>
        new Promise<void>((done) =>
          signal.addEventListener("abort", () => {
            aborted.resolve(signal.reason);
            done();
          }),
        ),
    },
    { leaseSeconds: 0.3, reply: () => ({ ok: true, commands: { cancel: ["tsk_1"], pause: false, drain: false } }) },
  );
  peer.assign({ id: "tsk_1" });
  expect(await aborted.promise).toMatchObject({ code: "task.cancelled" });
});

test("says once what an operator wants of it", async () => {
  const said: string[] = [];
  const { peer } = await setUp({ work: () => 1 }, {}, { log: { ...quiet, info: (message) => said.push(message) } });
  for (const pause of [true, true, false]) peer.send({ op: "command", pause });
  peer.send({ op: "command", drain: true });
  await untilPasses(() => expect(said).toHaveLength(3));
  expect(said.map((message) => message.split(":")[0])).toEqual(["paused", "resumed", "draining"]);
});

test("stops for good when the server says so, without connecting again", async () => {
  const warned: string[] = [];
  const log = { ...quiet, warn: (message: string) => warned.push(message) };
  const { peer, agent } = await setUp({ work: () => 1 }, {}, { log });
  peer.send({ op: "command", stop: true, reason: "the agent connected anew" });
  expect(await agent.stopped).toBe("the agent connected anew");
  expect(warned).toEqual([expect.stringContaining("the agent connected anew")]);
  expect(agent.state).toBe("stopped");
  expect(peer.connections()).toBe(1);
});

test("does not start where it is turned away", async () => {
  const peer = await startPeer({ upgrade: () => 401 });
  cleanups.push(() => peer.close());
  const agent = createAgent({ name: "a", url: peer.url, key: "k", handlers: {}, log: quiet });
  await expect(agent.start()).rejects.toMatchObject({ status: 401 });
  expect(agent.state).toBe("stopped");
});

test("does not start, nor ask for ever, where its hello is refused for good", async () => {
  const problem = { status: 409, code: "agent.delivered", detail: "agent a is called by webhook" };
  const peer = await startPeer({ refusal: { op: "reply", ok: false, problem } });
  cleanups.push(() => peer.close());
  const agent = createAgent({ name: "a", url: peer.url, key: "k", handlers: {}, log: quiet });
  await expect(agent.start()).rejects.toMatchObject(problem);
  expect(peer.connections()).toBe(1);
});

test("may be stopped while it starts, registering or connecting, and is removed then", async () => {
  const asked: string[] = [];
  const call = (url: string) => void asked.push(url);
  const peer = await startPeer({ upgrade: () => 503, call });
  cleanups.push(() => peer.close());
  for (const before of [
    () => Promise.resolve(),
    (agent: RunningAgent) => untilPasses(() => expect(agent.id).toBe("agt_1")),
  ]) {
    const agent = createAgent({ name: "a", url: peer.url, key: "k", handlers: {}, log: quiet });
    const starting = expect(agent.start()).rejects.toThrow(/stopped while/);
    await before(agent);
    await agent.stop();
    await starting;
    expect(agent.state).toBe("stopped");
    expect(asked.splice(0)).toEqual(["/v1/agents", "/v1/agents/agt_1?mode=force"]);
  }
});

test("on stop takes no new work, finishes what runs and leaves", async () => {
  const gate = deferred();
  const { peer, agent } = await setUp({ work: () => gate.promise });
  peer.assign({ id: "tsk_1" });
  await untilPasses(() => expect(of(peer, "start")).toHaveLength(1));
  const stopping = agent.stop();
  await untilPasses(() => expect(of(peer, "drain")).toHaveLength(1));
  expect(agent.state).toBe("draining");
  gate.resolve();
  await stopping;
  const order = peer
    .frames()
    .map((frame: Frame) => frame.op)
    .filter((op) => op !== "heartbeat");
  expect(order).toEqual(["hello", "start", "drain", "complete", "stop"]);
});

test("on stop gives back what does not finish within the grace time", async () => {
  const { peer, agent } = await setUp({ work: () => new Promise(() => {}) });
  peer.assign({ id: "tsk_1", fence: 9 });
  await untilPasses(() => expect(of(peer, "start")).toHaveLength(1));
  await agent.stop({ graceSeconds: 0 });
  expect(of(peer, "release")).toMatchObject([{ taskId: "tsk_1", fence: 9 }]);
});

test("connects where the server sends it, asking the server again for each connection", async () => {
  const elsewhere = await startPeer();
  cleanups.push(() => elsewhere.close());
  let asked = 0;
  const upgrade = (tries: number) => {
    asked = tries;
    return 307;
  };
  const location = `${elsewhere.url.replace("http", "ws")}/stage`;
  await setUp({ work: async () => 1 }, { upgrade, location });
  elsewhere.assign({ id: "tsk_1" });
  await untilPasses(() => expect(of(elsewhere, "complete")).toHaveLength(1));
  elsewhere.cut();
  await untilPasses(() => expect(of(elsewhere, "hello")).toHaveLength(2));
  expect(asked).toBe(2);
});

test("behind a gateway says nothing but a ping while it holds no task, and beats while it does", async () => {
  const gate = deferred();
  const { peer } = await setUp({ work: () => gate.promise }, { leaseSeconds: 0.3, pingSeconds: 0.5 });
  await untilPasses(() => expect(of(peer, "ping").length).toBeGreaterThan(1));
  expect(of(peer, "heartbeat")).toEqual([]);
  peer.assign({ id: "tsk_1" });
  await untilPasses(() => expect(of(peer, "heartbeat").length).toBeGreaterThan(1));
  gate.resolve();
  await untilPasses(() => expect(of(peer, "complete")).toHaveLength(1));
  const pings = of(peer, "ping").length;
  await untilPasses(() => expect(of(peer, "ping").length).toBeGreaterThan(pings));
});
