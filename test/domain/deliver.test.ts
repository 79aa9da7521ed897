import { createHmac } from "node:crypto";
import { Agent, deliveryErrors, EventLog, type JsonText, type Outbound, Task } from "@waggle/core";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { randomOf } from "../support/random.ts";
import { code, killedAfter, mode, openSystem, type System } from "../support/system.ts";

interface Call {
  /** By the clock in hand. */
  readonly at: number;
  readonly to: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly text: string;
  readonly body: {
    type: string;
    timestamp: string;
    data: {
      task: Task.Info;
      taskId: string;
      fence: number;
      attempt: number;
      expiresAt: string;
      callbacks: Record<string, string>;
    };
  };
}
type Answer = { status: number; body?: string; retryAfterSeconds?: number } | "down";

/** Whether both are one try, made twice at one time because its order came twice. */
const isSame = (one: Call, other: Call): boolean =>
  one.at === other.at && one.to === other.to && one.body.type === other.body.type && fenced(one) === fenced(other);
const fenced = ({ body: { data } }: Call): string => `${data.taskId ?? data.task.id} ${data.fence}`;

/** The world outside: whatever is called answers as the test says. */
function world() {
  const calls: Call[] = [];
  let answer: (call: Call) => Answer | Promise<Answer> = () => ({ status: 202 });
  let returned: { payload: string; error: boolean } = { payload: "null", error: false };
  let sendable = true;
  const take = (to: string, headers: Readonly<Record<string, string>>, text: string): Call => {
    const call: Call = { at: system.clock.now(), to, headers, text, body: JSON.parse(text) };
    if (!mode.repeats || !calls.some((other) => isSame(other, call))) calls.push(call);
    return call;
  };
  const outbound: Outbound = {
    publicUrl: () => "https://waggle.example.com",
    secretKey: () => "a key for tests",
    check: async (target) => (target.type === "webhook" && target.url.includes("bad") ? "it is bad" : undefined),
    async http({ url, headers, body }) {
      const said = await answer(take(url, headers, body));
      if (said === "down") throw deliveryErrors.failed("the connection was refused");
      return { body: "", ...said };
    },
    async invoke(functionArn, payload) {
      take(functionArn, {}, payload);
      return returned;
    },
    async send(queueUrl, body) {
      take(queueUrl, {}, body);
      if (!sendable) throw deliveryErrors.failed("QueueDoesNotExist");
    },
  };
  return {
    outbound,
    calls,
    assigned: () => calls.filter(({ body }) => body.type === "task.assigned"),
    answer: (next: typeof answer | Answer) => {
      answer = typeof next === "function" ? next : () => next;
    },
    returns: (value: unknown, error = false) => {
      returned = { payload: JSON.stringify(value), error };
    },
    breakQueue: () => {
      sendable = false;
    },
  };
}

let outside: ReturnType<typeof world>;
let system: System;
beforeEach(async () => {
  outside = world();
  system = await openSystem({ outbound: outside.outbound });
});
afterEach(async () => {
  expect(system.errors).toEqual([]);
  await system.close();
});

const webhook = { type: "webhook", url: "https://agent.example.com/work" } as const;
const called = (name = "hook", more: Record<string, unknown> = {}) =>
  system.agent(name, { delivery: webhook, leaseSeconds: 30, ...more });
const agentTypes = async () =>
  (await EventLog.list(system.admin, { after: 0, limit: 200, types: "agent.*" })).items.map(({ type }) => type);
const outcome = (id: string) => system.get(id);
const ok = (members: object) => ({ status: 200, body: JSON.stringify(members) });

/** An order that came twice is tried as often as both together. */
const testTries = test.skipIf(mode.repeats);

describe("a webhook", () => {
  test("is ready without ever having been heard of, and gets a task with all it needs to work and call back", async () => {
    const id = await called();
    expect((await Agent.get(system.admin, id)).status).toBe("ready");
    const task = await system.task("x", { input: '{"big":12345678901234567890}' as JsonText });
    const [call, ...more] = outside.calls;
    expect(more).toEqual([]);
    expect(call).toMatchObject({
      to: webhook.url,
      body: {
        type: "task.assigned",
        timestamp: new Date(system.clock.now()).toISOString(),
        data: { fence: 1, attempt: 1, agentId: id, task: { id: task.id, type: "x", status: "assigned" } },
      },
    });
    expect(call?.text).toContain('"input":{"big":12345678901234567890}');
    expect(call?.body.data.callbacks.complete).toBe(`https://waggle.example.com/v1/tasks/${task.id}/complete`);
    expect(Date.parse(call?.body.data.expiresAt ?? "")).toBe(system.clock.now() + 30_000);
  });

  test("is sent a signature that its secret proves, the same id at each try", async () => {
    const { secret } = await Agent.register(
      system.admin,
      Agent.Register.parse({ name: "h", capabilities: [{ name: "work" }], delivery: webhook }),
    );
    outside.answer("down");
    await system.task("x");
    await system.pass(2);
    const [first, second] = outside.calls as [Call, Call];
    expect(second.headers["webhook-id"]).toBe(first.headers["webhook-id"]);
    for (const { headers, text } of [first, second]) {
      const signed = `${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${text}`;
      const key = Buffer.from((secret as string).slice("whsec_".length), "base64");
      expect(headers["webhook-signature"]).toBe(`v1,${createHmac("sha256", key).update(signed).digest("base64")}`);
    }
    expect(Number(second.headers["webhook-timestamp"])).toBeGreaterThan(Number(first.headers["webhook-timestamp"]));
  });

  test("that answers with a result has completed the task, its JSON kept as it was written", async () => {
    outside.answer({ status: 200, body: '{"result": {"n": 1.50}, "usage": {"tokens": 3}}' });
    const id = await called();
    const task = await system.task("x");
    const done = await outcome(task.id);
    expect(done).toMatchObject({ status: "completed", usage: { tokens: 3 }, agentId: id });
    expect(done.result).toBe('{"n": 1.50}');
    expect(await Agent.get(system.admin, id)).toMatchObject({ running: 0, stats: { completed: 1 } });
  });

  test("that answers with an error has failed the attempt as its policy says", async () => {
    outside.answer(ok({ error: { code: "no_such_page", message: "gone", retryable: false } }));
    await called();
    expect(await outcome((await system.task("x")).id)).toMatchObject({
      status: "failed",
      attempt: 1,
      error: { code: "no_such_page", message: "gone", retryable: false },
    });
  });

  test.each([
    ["202", { status: 202, body: '{"result":1}' }],
    ["204", { status: 204 }],
    ["200 and text", { status: 200, body: "thanks" }],
    ["200 and other JSON", { status: 200, body: '{"queued":true}' }],
  ])("that answers %s has accepted it, and completes it by a call of its own", async (_, answer) => {
    outside.answer(answer);
    const id = await called();
    const task = await system.task("x");
    expect((await outcome(task.id)).status).toBe("running");
    await Task.complete(system.as(id), task.id, { fence: 1, result: '"later"' as JsonText });
    expect(await outcome(task.id)).toMatchObject({ status: "completed", result: '"later"' });
  });

  test("that takes no task so large has failed its attempt, and is not lost for the others", async () => {
    outside.answer(({ body }) => (body.data.task.type === "large" ? { status: 413 } : ok({ result: 1 })));
    const id = await called();
    const large = await system.task("large", { retry: { maxAttempts: 1 } });
    expect(await outcome(large.id)).toMatchObject({ status: "failed", error: { code: "agent.bad_answer" } });
    expect((await Agent.get(system.admin, id)).deliveryFailures).toBeUndefined();
    expect(await outcome((await system.task("small")).id)).toMatchObject({ status: "completed" });
  });

  test.each([
    ["an error without a shape", '{"error":"broken"}'],
    ["a result that cannot be kept", '{"result":"\\ud800"}'],
  ])("that answers %s has failed the attempt", async (_, body) => {
    outside.answer({ status: 200, body });
    await called();
    const task = await system.task("x", { retry: { maxAttempts: 1 } });
    expect(await outcome(task.id)).toMatchObject({ status: "failed", error: { code: "agent.bad_answer" } });
  });

  test("that refuses gives it back uncounted, and is asked again later each time, not at once", async () => {
    outside.answer({ status: 409 });
    await called();
    const task = await system.task("x");
    expect(await outcome(task.id)).toMatchObject({ status: "scheduled", attempt: 0 });
    expect(outside.calls.length).toBe(1);
    await system.pass(60);
    expect(outside.calls.length).toBeGreaterThan(3);
    expect(outside.calls.length).toBeLessThan(8);
    outside.answer(ok({ result: 1 }));
    await system.pass(60);
    expect(await outcome(task.id)).toMatchObject({ status: "completed", attempt: 1 });
  });

  test("is given what waited for it when it registers, one after the other", async () => {
    outside.answer(ok({ result: 1 }));
    const tasks = [await system.task("x"), await system.task("x"), await system.task("x")];
    await called();
    await system.quiet();
    for (const { id } of tasks) expect((await outcome(id)).status).toBe("completed");
    expect(outside.calls.map(({ body }) => body.data.task.id)).toEqual(tasks.map(({ id }) => id));
  });

  test("is given no more than its slots at once", async () => {
    const id = await called("h", { maxConcurrency: 2 });
    const tasks = [await system.task("x"), await system.task("x"), await system.task("x")];
    expect(outside.calls.length).toBe(2);
    await Task.complete(system.as(id), outside.calls[0]?.body.data.task.id as string, { fence: 1 });
    await system.quiet();
    expect(outside.calls.map(({ body }) => body.data.task.id).sort()).toEqual(tasks.map(({ id }) => id).sort());
  });

  test("is not lost for being silent", async () => {
    const id = await called();
    await system.pass(4000, 100);
    expect((await Agent.get(system.admin, id)).status).toBe("ready");
    await Agent.heartbeat(system.as(id), id, {});
    await system.pass(4000, 100);
    expect((await Agent.get(system.admin, id)).status).toBe("ready");
    expect(await agentTypes()).toEqual(["agent.registered"]);
  });

  test("is not answered work it asks for: it would have it twice", async () => {
    const id = await called();
    expect(await code(Agent.lease(system.as(id), id, { max: 1, waitSeconds: 0 }))).toBe("agent.delivered");
    expect(await code(Agent.connect(system.as(id), id, { connectionId: "c", push: () => {} }))).toBe("agent.delivered");
    const [first, second] = [await system.task("x"), await system.task("x")];
    const { assignments } = await Task.complete(system.as(id), first.id, { fence: 1, take: 1 });
    expect(assignments).toEqual([]);
    await system.quiet();
    expect(outside.calls.map(({ body }) => body.data.task.id)).toEqual([first.id, second.id]);
  });

  test("that accepted a task and is silent for its lease has failed the attempt; a heartbeat renews it", async () => {
    const id = await called();
    const task = await system.task("x", { retry: { maxAttempts: 1 } });
    for (let beat = 0; beat < 4; beat++) {
      await system.pass(20);
      await Task.heartbeat(system.as(id), task.id, { fence: 1 });
    }
    expect((await outcome(task.id)).status).toBe("running");
    await system.pass(31);
    expect(await outcome(task.id)).toMatchObject({ status: "failed", error: { code: "task.heartbeat_timeout" } });
  });

  test("keeps a task with a run timeout of its own so long, silent or not", async () => {
    await called();
    const task = await system.task("x", { timeouts: { runSeconds: 100 }, retry: { maxAttempts: 1 } });
    await system.pass(90, 1);
    expect((await outcome(task.id)).status).toBe("running");
    await system.pass(12, 1);
    expect(await outcome(task.id)).toMatchObject({ status: "failed", error: { code: "task.run_timeout" } });
  });
});

describe("an agent that cannot be reached", () => {
  testTries("is tried again, later each time, until it is there", async () => {
    outside.answer("down");
    const id = await called();
    const task = await system.task("x");
    await system.pass(10);
    expect(await outcome(task.id)).toMatchObject({ status: "assigned", attempt: 1 });
    expect(await Agent.get(system.admin, id)).toMatchObject({
      status: "busy",
      deliveryFailures: { count: outside.calls.length, lastError: "the connection was refused" },
    });
    outside.answer(ok({ result: 1 }));
    await system.pass(30);
    expect(await outcome(task.id)).toMatchObject({ status: "completed", attempt: 1 });
    expect((await Agent.get(system.admin, id)).deliveryFailures).toBeUndefined();
  });

  testTries("waits as long as a Retry-After says, and no longer than a minute", async () => {
    outside.answer({ status: 503, retryAfterSeconds: 5 });
    await called();
    await system.task("x");
    await system.pass(4.5);
    expect(outside.calls.length).toBe(1);
    outside.answer({ status: 503, retryAfterSeconds: 86_400 });
    await system.pass(1);
    expect(outside.calls.length).toBe(2);
    await system.pass(61);
    expect(outside.calls.length).toBe(3);
  });

  testTries("fails the attempt after five tries, so that another may do it, and its record says so", async () => {
    outside.answer("down");
    const id = await called();
    const task = await system.task("x", { retry: { maxAttempts: 1 } });
    await system.pass(60);
    expect(outside.calls.length).toBe(5);
    expect(await outcome(task.id)).toMatchObject({
      status: "failed",
      error: { code: "agent.unreachable", message: expect.stringContaining("the connection was refused") },
    });
    expect((await Agent.get(system.admin, id)).stats).toMatchObject({ failed: 1 });
  });

  test("is lost after five failures in a row that go on for a while, and what it was given goes to others unharmed", async () => {
    outside.answer(({ to }) => (to === webhook.url ? "down" : ok({ result: "done" })));
    const id = await called("hook", { maxConcurrency: 20 });
    const tasks = [];
    for (let n = 0; n < 12; n++) tasks.push(await system.task("x"));
    await system.pass(14);
    expect(await Agent.get(system.admin, id)).toMatchObject({ status: "lost", running: 0 });
    for (const { id } of tasks) expect(await outcome(id)).toMatchObject({ status: "queued", attempt: 0 });
    await called("other", { maxConcurrency: 20, delivery: { type: "webhook", url: "https://other.example.com" } });
    const one = await system.task("x");
    await system.pass(1);
    for (const { id } of [...tasks, one]) expect(await outcome(id)).toMatchObject({ status: "completed", attempt: 1 });
    expect(await agentTypes()).toEqual(["agent.registered", "agent.lost", "agent.registered"]);
  });

  testTries("is tried with one task at a time, and is back with the first it takes", async () => {
    outside.answer("down");
    const id = await called("hook", { maxConcurrency: 12 });
    const tasks = [];
    for (let n = 0; n < 12; n++) tasks.push(await system.task("x"));
    await eventually("it is lost", async () => {
      await system.pass(0.5);
      return (await Agent.get(system.admin, id)).status === "lost";
    });
    const before = outside.calls.length;
    await system.pass(100);
    // After 10, 20 and 40 s.
    expect(outside.calls.length - before).toBe(3);
    expect((await Agent.get(system.admin, id)).status).toBe("lost");
    outside.answer(ok({ result: 1 }));
    await system.pass(80);
    for (const { id } of tasks) expect((await outcome(id)).status).toBe("completed");
    expect((await Agent.get(system.admin, id)).status).toBe("ready");
    expect(await agentTypes()).toEqual(["agent.registered", "agent.lost", "agent.back"]);
  });

  test("is tried with the next task that comes, however many slots that needs", async () => {
    outside.answer("down");
    const id = await called("hook", { maxConcurrency: 12 });
    const tasks = [];
    for (let n = 0; n < 12; n++) tasks.push(await system.task("x"));
    await system.pass(14);
    expect((await Agent.get(system.admin, id)).status).toBe("lost");
    for (const { id } of tasks) await Task.cancel(system.admin, id, {});
    await system.pass(15);
    outside.answer(ok({ result: 1 }));
    const next = await system.task("x", { slots: 2 });
    await system.pass(1);
    expect((await outcome(next.id)).status).toBe("completed");
    expect((await Agent.get(system.admin, id)).status).toBe("ready");
  });

  test("is back at once when it makes a call of its own, or an operator resumes it", async () => {
    const id = await called("hook", { maxConcurrency: 12 });
    for (const wake of [() => Agent.seen(system.as(id), id), () => Agent.resume(system.admin, id)]) {
      outside.answer("down");
      const tasks = [];
      for (let n = 0; n < 12; n++) tasks.push(await system.task("x"));
      await system.pass(14);
      expect((await Agent.get(system.admin, id)).status).toBe("lost");
      outside.answer(ok({ result: 1 }));
      await wake();
      await system.pass(1);
      for (const { id } of tasks) expect((await outcome(id)).status).toBe("completed");
      expect((await Agent.get(system.admin, id)).status).toBe("ready");
    }
  });

  test("that accepted work before keeps it: it may be heard of yet", async () => {
    const id = await called("hook", { maxConcurrency: 20, leaseSeconds: 600 });
    const accepted = await system.task("x");
    outside.answer("down");
    for (let n = 0; n < 12; n++) await system.task("x");
    await system.pass(14);
    expect((await Agent.get(system.admin, id)).status).toBe("lost");
    await Task.complete(system.as(id), accepted.id, { fence: 1 });
    expect((await outcome(accepted.id)).status).toBe("completed");
  });
});

describe("at least once", () => {
  test("a repeated order of the queue delivers nothing once the first was taken", async () => {
    const id = await called();
    const task = await system.task("x");
    const order = { tenant: "acme", agentId: id, taskId: task.id, fence: 1 };
    await system.engine.ports.queues.deliver.send([{ body: order }, { body: { ...order, fence: 7 } }]);
    await system.quiet();
    expect(outside.calls.length).toBe(1);
  });

  test("an answer that comes when the task has gone to another changes nothing", async () => {
    let answerLate = () => {};
    const late = new Promise<void>((resolve) => {
      answerLate = resolve;
    });
    outside.answer(async ({ body }) => {
      if (body.data.fence > 1) return ok({ result: "second" });
      await late;
      return ok({ result: "first" });
    });
    await called();
    const { task } = await Task.create(
      system.admin,
      Task.Create.parse({ type: "x", requires: [{ capability: "work" }] }),
    );
    await eventually("it is called", () => outside.calls.length === 1);
    await called("hook", { onConflict: "replace" });
    await eventually("the second has it", async () => (await outcome(task.id)).status === "completed");
    answerLate();
    await system.quiet();
    expect(await outcome(task.id)).toMatchObject({ status: "completed", result: '"second"', fence: 2 });
  });

  test("what was assigned before a crash is delivered after it", async () => {
    outside.answer("down");
    await called();
    const task = await system.task("x");
    outside.answer(ok({ result: "after" }));
    system = await system.reopen({ awaySeconds: 5 });
    await system.pass(5);
    expect(await outcome(task.id)).toMatchObject({ status: "completed", attempt: 1 });
  });

  test.each([1, 2, 3])(
    "whatever goes wrong on the way, each task ends once and no slot is lost (seed %i)",
    async (seed) => {
      const random = randomOf(seed);
      const accepted: { agentId: string; id: string; fence: number }[] = [];
      outside.answer(({ to, body }) => {
        const fate = random();
        const { task, fence } = body.data;
        if (body.type !== "task.assigned" || fate < 0.2) return "down";
        if (fate < 0.3) return { status: 500 };
        if (fate < 0.4) return { status: 409 };
        // The process dies when it has called.
        if (fate < 0.45) return Promise.reject(new Error("killed"));
        if (fate < 0.7) {
          accepted.push({ agentId: agents[to] as string, id: task.id, fence });
          // It has accepted, and its answer is lost on the way.
          return fate < 0.5 ? "down" : { status: 202 };
        }
        return fate < 0.8 ? ok({ error: { code: "unlucky", message: "" } }) : ok({ result: fence });
      });
      const agents: Record<string, string> = {};
      for (const name of ["a", "b", "c"]) {
        const url = `https://${name}.example.com`;
        agents[url] = await called(name, { maxConcurrency: 3, delivery: { type: "webhook", url } });
      }
      const tasks: Task.Info[] = [];
      const retry = { maxAttempts: 50, initialSeconds: 0.1, maxSeconds: 1 };
      for (let n = 0; n < 30; n++) tasks.push(await system.task("x", { retry }));
      const open = async () =>
        (await Promise.all(tasks.map(({ id }) => outcome(id)))).filter(({ status }) => status !== "completed");
      for (let second = 0; second < 2000 && (await open()).length > 0; second++) {
        for (const { agentId, id, fence } of accepted.splice(0)) {
          // Some never call back, and some do so twice.
          for (let times = Math.floor(random() * 3); times > 0; times--)
            await Task.complete(system.as(agentId), id, { fence, result: `${fence}` as JsonText }).catch((error) =>
              expect(error.code).toMatch(/^task\.(lease_lost|not_found)$/),
            );
        }
        await system.pass(1);
      }
      for (const { id } of tasks) {
        const done = await outcome(id);
        expect(done).toMatchObject({ status: "completed", result: String(done.fence) });
        expect(done.history.filter(({ status }) => status === "completed").length).toBe(1);
      }
      for (const id of Object.values(agents)) expect((await Agent.get(system.admin, id)).running).toBe(0);
      for (const error of system.errors) expect(String(error)).toMatch(/killed/);
      system.errors.length = 0;
    },
  );

  test("an assignment whose order was lost is not lost with it", async () => {
    outside.answer(() => Promise.reject(new Error("the process dies here")));
    await called();
    const task = await system.task("x", { retry: { maxAttempts: 1 } });
    await system.pass(1000, 10);
    expect(await outcome(task.id)).toMatchObject({ status: "failed", error: { code: "agent.unreachable" } });
    expect(system.errors.length).toBeGreaterThan(0);
    system.errors.length = 0;
    system.damaged.add("queue.dead");
  });
});

// Where others share the store the reconciler sees to it (reconcile.test.ts).
test.skipIf(mode.shared)(
  "what came to wait just as its agent came free is delivered though the server is killed before it looks",
  async () => {
    const id = await called();
    const first = await system.task("x");
    const done = async () => {
      await Task.complete(system.as(id), first.id, { fence: 1 });
      await system.quiet();
    };
    system = await killedAfter(system, "transact", () => system.task("x"), done);
    expect(outside.assigned()).toHaveLength(2);
  },
);

describe("cancel", () => {
  test("of accepted work is told by a second signed call, and fenced after the grace time", async () => {
    const id = await called();
    const task = await system.task("x");
    await Task.cancel(system.admin, task.id, { reason: "changed my mind" });
    await system.quiet();
    const told = outside.calls[1] as Call;
    expect(told.body).toMatchObject({
      type: "task.cancelled",
      data: { taskId: task.id, fence: 1, reason: "changed my mind" },
    });
    expect(told.headers["webhook-signature"]).toMatch(/^v1,/);
    expect(told.headers["webhook-id"]).not.toBe(outside.calls[0]?.headers["webhook-id"]);
    await system.pass(11);
    expect((await outcome(task.id)).status).toBe("cancelled");
    expect(await code(Task.complete(system.as(id), task.id, { fence: 1 }))).toBe("task.lease_lost");
  });

  test("without a grace time is told too", async () => {
    await called();
    const task = await system.task("x", { cancelGraceSeconds: 0 });
    await Task.cancel(system.admin, task.id, {});
    await system.quiet();
    expect(outside.calls.map(({ body }) => body.type)).toEqual(["task.assigned", "task.cancelled"]);
    expect((await outcome(task.id)).status).toBe("cancelled");
  });

  test("that cannot be told is done all the same", async () => {
    await called();
    const task = await system.task("x");
    outside.answer("down");
    await Task.cancel(system.admin, task.id, {});
    await system.pass(11);
    expect((await outcome(task.id)).status).toBe("cancelled");
  });

  test("of work that was not delivered yet ends it at once", async () => {
    outside.answer("down");
    await called();
    const task = await system.task("x");
    await Task.cancel(system.admin, task.id, {});
    await system.pass(4);
    expect((await outcome(task.id)).status).toBe("cancelled");
    expect(outside.assigned().length).toBe(1);
  });
});

describe("pause, drain, removal and change", () => {
  test("a paused agent gets nothing new, what it has goes on, and resume brings the rest", async () => {
    const id = await called("h", { maxConcurrency: 2 });
    const first = await system.task("x");
    await Agent.pause(system.admin, id);
    const second = await system.task("x");
    expect(outside.calls.length).toBe(1);
    await Task.complete(system.as(id), first.id, { fence: 1 });
    await Agent.resume(system.admin, id);
    await system.quiet();
    expect(outside.calls[1]?.body.data.task.id).toBe(second.id);
  });

  test("a draining agent is drained when its last task ends, a removed one is gone", async () => {
    const id = await called();
    const task = await system.task("x");
    await Agent.remove(system.admin, id, { mode: "graceful", graceSeconds: 100 });
    await Task.complete(system.as(id), task.id, { fence: 1 });
    await system.quiet();
    expect((await Agent.get(system.admin, id)).status).toBe("stopped");
    await system.task("x");
    expect(outside.calls.length).toBe(1);
  });

  test("another URL is where work goes from then on, the secret is kept, and neither shows it", async () => {
    const id = await called();
    const changed = await Agent.update(
      system.admin,
      id,
      Agent.Patch.parse({ delivery: { type: "webhook", url: "https://new.example.com" } }),
    );
    expect(changed.secret).toBeUndefined();
    expect(JSON.stringify(changed)).not.toContain("whsec");
    await system.task("x");
    expect(outside.calls[0]?.to).toBe("https://new.example.com");
  });

  test("from webhook to pull and back, what was not begun goes the new way", async () => {
    outside.answer("down");
    const id = await called();
    const task = await system.task("x");
    await Agent.update(system.admin, id, Agent.Patch.parse({ delivery: { type: "pull" } }));
    await system.quiet();
    expect((await system.lease(id)).task.id).toBe(task.id);
    outside.answer(ok({ result: 1 }));
    const { secret } = await Agent.update(system.admin, id, Agent.Patch.parse({ delivery: webhook }));
    expect(secret).toMatch(/^whsec_/);
    await system.quiet();
    expect((await outcome(task.id)).status).toBe("completed");
  });

  test.each([
    ["changed", (id: string) => Agent.update(system.admin, id, Agent.Patch.parse({ delivery: webhook }))],
    ["replaced by another", () => called("hook", { onConflict: "replace" })],
  ])(
    "from pull to webhook, %s, the new way brings all it had, begun or not, though the server is killed at once",
    async (_how, turn) => {
      outside.answer(ok({ result: 1 }));
      const id = await system.agent("hook", { maxConcurrency: 2 });
      const [waits, begun] = [await system.task("x"), await system.task("x")];
      await system.lease(id);
      await system.lease(id);
      await Task.start(system.as(id), begun.id, { fence: 1 });
      system.clock.advance(1000);
      system = await killedAfter(system, "transact", () => turn(id));
      expect(await outcome(waits.id)).toMatchObject({ status: "completed", attempt: 1 });
      expect(await outcome(begun.id)).toMatchObject({ status: "completed", attempt: 1 });
    },
  );

  test("is not an agent's own to change: it could have anything called that this server may call", async () => {
    const id = await called();
    const patch = Agent.Patch.parse({
      delivery: { type: "queue", queueUrl: "https://sqs.eu-west-1.amazonaws.com/1/q" },
    });
    expect(await code(Agent.update(system.as(id), id, patch))).toBe("auth.forbidden");
  });

  test("to a target that may not be called is refused, and nothing changes", async () => {
    const id = await called();
    const bad = { type: "webhook", url: "https://bad.example.com" } as const;
    expect(await code(Agent.update(system.admin, id, Agent.Patch.parse({ delivery: bad })))).toBe("request.invalid");
    expect((await Agent.get(system.admin, id)).delivery).toEqual(webhook);
    expect(await code(called("b", { delivery: bad }))).toBe("request.invalid");
  });
});

describe("a function", () => {
  const delivery = { type: "lambda", functionArn: "arn:aws:lambda:eu-west-1:123456789012:function:worker" };
  test.each([
    ["a result", { result: { a: 1 } }, { status: "completed", result: '{"a":1}' }],
    ["any other value", [1, 2], { status: "completed", result: "[1,2]" }],
    ["nothing", null, { status: "completed", result: "null" }],
    ["an error", { error: { code: "e", message: "m" } }, { status: "failed", error: { code: "e", message: "m" } }],
    ["that it accepted", { accepted: true }, { status: "running" }],
  ])("that returns %s", async (_, value, expected) => {
    outside.returns(value);
    await called("f", { delivery });
    const task = await system.task("x", { retry: { maxAttempts: 1 } });
    expect(await outcome(task.id)).toMatchObject(expected);
    expect(outside.calls[0]).toMatchObject({ to: delivery.functionArn, body: { type: "task.assigned" } });
  });
  test("that throws has failed the attempt, with its message", async () => {
    outside.returns({ errorType: "TypeError", errorMessage: "x is undefined", trace: [] }, true);
    const id = await called("f", { delivery });
    const task = await system.task("x", { retry: { maxAttempts: 1 } });
    expect(await outcome(task.id)).toMatchObject({
      status: "failed",
      error: { code: "agent.function_error", message: "TypeError: x is undefined" },
    });
    expect((await Agent.get(system.admin, id)).deliveryFailures).toBeUndefined();
  });
});

describe("a queue", () => {
  const delivery = { type: "queue", queueUrl: "https://sqs.eu-west-1.amazonaws.com/123456789012/work" };
  test("has accepted a task once it was sent, and hears of a cancel", async () => {
    const id = await called("q", { delivery });
    const task = await system.task("x");
    expect((await outcome(task.id)).status).toBe("running");
    expect(outside.calls[0]).toMatchObject({ to: delivery.queueUrl, body: { type: "task.assigned" } });
    await Task.cancel(system.admin, task.id, {});
    await system.quiet();
    expect(outside.calls[1]?.body).toMatchObject({ type: "task.cancelled", data: { taskId: task.id, fence: 1 } });
    await Task.fail(system.as(id), task.id, { fence: 1, error: { code: "stopped", message: "" } });
    expect((await outcome(task.id)).status).toBe("cancelled");
  });
  testTries("that is not there is tried again, as others are", async () => {
    outside.breakQueue();
    await called("q", { delivery });
    const task = await system.task("x", { retry: { maxAttempts: 1 } });
    await system.pass(60);
    expect(outside.calls.length).toBe(5);
    expect(await outcome(task.id)).toMatchObject({ status: "failed", error: { code: "agent.unreachable" } });
  });
});
