import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startLocal } from "@waggle/local";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { untilPasses } from "../../../test/support/eventually.ts";
import { createClient as createBrowserClient } from "../src/browser.ts";
import { newTaskId } from "../src/id.ts";
import { type AgentOptions, type Client, createAgent, createClient, isTerminal, WaggleTaskError } from "../src/node.ts";

const quiet = { debug() {}, info() {}, warn() {}, error() {} };
let dataDir: string;
let server: Awaited<ReturnType<typeof startLocal>>;
let client: Client;
const cleanups: (() => Promise<unknown>)[] = [];
beforeAll(async () => {
  dataDir = mkdtempSync(join(tmpdir(), "waggle-sdk-"));
  server = await startLocal({ dataDir, port: 0, version: "0.1.0" });
  client = createClient({ url: server.url, key: server.adminKey });
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});
afterAll(async () => {
  client.close();
  await server.stop();
  rmSync(dataDir, { recursive: true, force: true });
});

let made = 0;
/** An agent with a capability of its own, so that tests do not meet. */
async function agentFor(handlers: AgentOptions["handlers"], more: Partial<AgentOptions> = {}) {
  const can = `can-${++made}`;
  const agent = createAgent({
    name: `agent-${made}`,
    capabilities: [can],
    concurrency: 5,
    url: server.url,
    key: server.adminKey,
    handlers,
    log: quiet,
    ...more,
  });
  cleanups.push(() => agent.stop({ graceSeconds: 0 }));
  await agent.start();
  return { agent, requires: [{ capability: can }] };
}
const heeding =
  (started?: () => void) =>
  (_task: unknown, { signal }: { signal: AbortSignal }) =>
    new Promise((_, reject) => {
      started?.();
      signal.addEventListener("abort", () => reject(signal.reason));
    });

for (const transport of ["socket", "poll"] as const) {
  describe(`an agent by ${transport}`, () => {
    test("returns the result of a delegated task", async () => {
      const { requires } = await agentFor({ add: async ({ input }) => input.a + input.b }, { transport });
      expect(await client.tasks.delegate({ type: "add", input: { a: 1, b: 2 }, requires }).result<number>()).toBe(3);
    });

    test("runs a task like a function", async () => {
      const { requires } = await agentFor({ add: async ({ input }) => input.a + input.b }, { transport });
      expect(await client.tasks.run<number>({ type: "add", input: { a: 1, b: 2 }, requires })).toBe(3);
    });

    test("does many tasks, each once", async () => {
      const runs = new Map<number, number>();
      const { requires } = await agentFor(
        {
          count: async ({ input }) => {
            runs.set(input, (runs.get(input) ?? 0) + 1);
            return input;
          },
        },
        { transport },
      );
      const handles = await client.tasks.delegateMany(
        Array.from({ length: 150 }, (_, i) => ({ type: "count", input: i, requires })),
      );
      expect(await Promise.all(handles.map((handle) => handle.result()))).toEqual(
        Array.from({ length: 150 }, (_, i) => i),
      );
      expect([...runs.values()].every((times) => times === 1)).toBe(true);
    });

    test("fails a task whose result no server reads, and has its slot for the next", async () => {
      const { requires } = await agentFor(
        { cut: () => "a bee 🐝".slice(0, -1), whole: () => "a bee 🐝" },
        { transport, concurrency: 1 },
      );
      const retry = { maxAttempts: 1 };
      const [cut, whole] = await client.tasks.delegateMany(["cut", "whole"].map((type) => ({ type, requires, retry })));
      expect(await cut?.ended()).toMatchObject({ status: "failed", error: { code: "result.invalid" } });
      expect(await whole?.result()).toBe("a bee 🐝");
    });

    test("has for the next attempt what one saved just before it failed", async () => {
      const { requires } = await agentFor(
        {
          pages: async (_task, { attempt, details, progress }) => {
            if (attempt > 1) return details;
            await null;
            progress({ percent: 50 }, { page: 2 });
            throw new Error("no luck");
          },
        },
        { transport },
      );
      const retry = { maxAttempts: 2, initialSeconds: 0 };
      expect(await client.tasks.delegate({ type: "pages", requires, retry }).result()).toEqual({ page: 2 });
    });

    test("is told to stop a cancelled task", async () => {
      let started = false;
      const { requires } = await agentFor(
        {
          wait: heeding(() => {
            started = true;
          }),
        },
        { transport, leaseSeconds: 3 },
      );
      const handle = await client.tasks.delegate({ type: "wait", requires });
      await untilPasses(() => expect(started).toBe(true));
      await handle.cancel("changed my mind");
      expect(await handle.ended()).toMatchObject({ status: "cancelled" });
    });

    test("tries again after a failure, with the details saved before", async () => {
      const { requires } = await agentFor(
        {
          page: async (_task, { attempt, details, progress }) => {
            if (attempt === 1) {
              progress({ percent: 50 }, { page: 7 });
              await new Promise((done) => setTimeout(done, 20));
              throw new Error("stumbled");
            }
            return { attempt, details };
          },
        },
        { transport },
      );
      const result = client.tasks.delegate({ type: "page", requires, retry: { initialSeconds: 0 } }).result();
      expect(await result).toEqual({ attempt: 2, details: { page: 7 } });
    });

    test("finishes what it has when it stops, and is gone afterwards", async () => {
      let started = false;
      let finish = () => {};
      const { agent, requires } = await agentFor(
        {
          slow: () =>
            new Promise((done) => {
              started = true;
              finish = () => done("finished");
            }),
        },
        { transport },
      );
      const handle = await client.tasks.delegate({ type: "slow", requires });
      await untilPasses(() => expect(started).toBe(true));
      const stopping = agent.stop();
      await untilPasses(async () => expect((await client.agents.get(agent.id as string)).status).toBe("draining"));
      finish();
      await stopping;
      expect(await handle.result()).toBe("finished");
      expect((await client.agents.get(agent.id as string)).status).toBe("stopped");
    });
  });
}

test("throws the agent's error when a task fails", async () => {
  const { requires } = await agentFor({
    no: () => {
      throw Object.assign(new Error("not today"), { code: "mood.bad" });
    },
  });
  const outcome = client.tasks.delegate({ type: "no", requires, retry: { maxAttempts: 1 } }).result();
  await expect(outcome).rejects.toBeInstanceOf(WaggleTaskError);
  await expect(outcome).rejects.toMatchObject({
    code: "mood.bad",
    message: "not today",
    task: { status: "failed", attempt: 1 },
  });
});

test("tells the events of a task in order, up to the one that ends it", async () => {
  const { requires } = await agentFor({
    steps: async (_task, { progress }) => {
      progress({ percent: 10, message: "begun" });
      await new Promise((done) => setTimeout(done, 20));
    },
  });
  const types: string[] = [];
  let last = 0;
  for await (const event of await client.tasks.delegate({ type: "steps", requires })) {
    types.push(event.type);
    expect(event.sequence).toBeGreaterThan(last);
    last = event.sequence;
  }
  expect(types[0]).toBe("task.created");
  expect(types).toContain("task.progress");
  expect(types.at(-1)).toBe("task.completed");
});

test("a delegation is a handle before it is awaited: it tells its events, and is cancelled", async () => {
  const { requires } = await agentFor({ quick: () => "done" });
  const types: string[] = [];
  for await (const event of client.tasks.delegate({ type: "quick", requires })) types.push(event.type);
  expect(types.at(-1)).toBe("task.completed");
  const waiting = client.tasks.delegate({ type: "never", requires: [{ capability: "nobody" }] });
  expect((await waiting.get()).status).toBe("queued");
  expect(await waiting.cancel("changed my mind")).toMatchObject({ status: "cancelled" });
});

test("makes a child of the task in whose handler it is delegated", async () => {
  const { requires } = await agentFor({
    parent: async (_task, { delegate }) => {
      const child = await delegate({ type: "child", requires: [{ capability: `can-${made}` }] });
      return { childParent: child.task.parentId, answer: await child.result() };
    },
    child: () => "from the child",
  });
  const handle = await client.tasks.delegate({ type: "parent", requires });
  expect(await handle.result()).toEqual({ childParent: handle.id, answer: "from the child" });
});

test("agents stop when their process is asked to end, and leave a program that listens itself to exit by itself", async () => {
  const before = process.listenerCount("SIGTERM");
  const own = () => {};
  process.on("SIGTERM", own);
  try {
    const all = [await agentFor({}), await agentFor({}), await agentFor({}, { handleSignals: false })];
    expect(process.listenerCount("SIGTERM")).toBe(before + 2);
    process.emit("SIGTERM", "SIGTERM");
    const [first, second, third] = all.map(({ agent }) => agent);
    expect(await Promise.all([first?.stopped, second?.stopped])).toEqual(["stopped", "stopped"]);
    expect(third?.state).toBe("running");
    expect(process.listenerCount("SIGTERM")).toBe(before + 1);
  } finally {
    process.off("SIGTERM", own);
  }
});

test("makes one task for the same idempotency key", async () => {
  const make = () =>
    client.tasks.create({ type: "once", requires: [{ capability: "nobody" }] }, { idempotencyKey: "once-1" });
  const [first, second] = [await make(), await make()];
  expect(second.id).toBe(first.id);
});

test("gives up waiting after the time asked for, and leaves the task alone", async () => {
  const handle = await client.tasks.delegate({ type: "never", requires: [{ capability: "nobody" }] });
  await expect(handle.result({ timeoutSeconds: 0.05 })).rejects.toMatchObject({ code: "client.timeout" });
  expect(isTerminal((await handle.get()).status)).toBe(false);
});

test("a run that is given up or aborted leaves its task to go on", async () => {
  const { requires } = await agentFor({ wait: heeding() });
  const [late, aborted] = [newTaskId(Date.now()), newTaskId(Date.now())];
  const task = { type: "wait", requires };
  await expect(client.tasks.run({ ...task, id: late }, { timeoutSeconds: 0.05 })).rejects.toMatchObject({
    code: "client.timeout",
  });
  const controller = new AbortController();
  const run = client.tasks.run({ ...task, id: aborted }, { signal: controller.signal });
  const refused = expect(run).rejects.toThrow("enough");
  await untilPasses(async () => (await client.tasks.get(aborted)).status === "running");
  controller.abort(new Error("enough"));
  await refused;
  for (const id of [late, aborted]) expect(isTerminal((await client.tasks.get(id)).status)).toBe(false);
});

test("a run whose task fails says why", async () => {
  const { requires } = await agentFor({
    no: async () => {
      throw new Error("not today");
    },
  });
  const run = client.tasks.run({ type: "no", requires, retry: { maxAttempts: 1 } });
  await expect(run).rejects.toThrow("not today");
  await expect(run).rejects.toBeInstanceOf(WaggleTaskError);
});

test("refuses a bad task with the field that is wrong, alone or among others", async () => {
  const [good, bad] = await Promise.allSettled([
    client.tasks.create({ type: "fine", requires: [{ capability: "nobody" }] }),
    client.tasks.create({ type: "bad", priority: 12 }),
  ]);
  expect(good.status).toBe("fulfilled");
  expect(bad).toMatchObject({ reason: { status: 400, errors: [{ path: expect.stringContaining("priority") }] } });
  await expect(client.tasks.create({ type: "bad", priority: 12 })).rejects.toMatchObject({ status: 400 });
});

test("takes the tasks of one turn though one of them cannot be read at all", async () => {
  const requires = [{ capability: "nobody" }];
  const inputs = ["whole", "a bee 🐝".slice(0, -1), "whole too"];
  const made = await Promise.allSettled(inputs.map((input) => client.tasks.create({ type: "read", input, requires })));
  expect(made.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
  expect(made[1]).toMatchObject({ reason: { status: 400, message: expect.stringContaining("surrogate") } });
});

test("lists every task over all pages, none twice", async () => {
  await client.tasks.delegateMany(
    Array.from({ length: 12 }, () => ({ type: "paged", tags: ["paged"], requires: [{ capability: "nobody" }] })),
  );
  const ids = new Set<string>();
  await untilPasses(async () => {
    ids.clear();
    let count = 0;
    for await (const task of client.tasks.all({ tag: "paged", limit: 5 })) {
      ids.add(task.id);
      count++;
    }
    expect(count).toBe(12);
  });
  expect(ids.size).toBe(12);
});

test("takes the place of an agent of the same name, which stops", async () => {
  const first = await agentFor({ "*": () => 1 }, { name: "twin" });
  const second = await agentFor({ "*": () => 2 }, { name: "twin" });
  await first.agent.stopped;
  expect(second.agent.id).toBe(first.agent.id);
  expect(await client.tasks.delegate({ type: "who", requires: second.requires }).result()).toBe(2);
});

test("says no key, wrong key and unreachable apart", async () => {
  const stranger = createClient({ url: server.url, key: `wgk_${"x".repeat(27)}` });
  await expect(stranger.tasks.list()).rejects.toMatchObject({ status: 401, code: "auth.required" });
  stranger.close();
  const nowhere = createClient({ url: "http://127.0.0.1:9", key: "k", retrySeconds: 0 });
  await expect(nowhere.tasks.list()).rejects.toMatchObject({
    code: "client.unreachable",
    message: expect.stringContaining("ECONNREFUSED"),
  });
});

test("sets limits, makes and revokes keys, reads status and health", async () => {
  expect(await client.limits.put("model", { concurrency: 3 })).toMatchObject({ key: "model", concurrency: 3 });
  expect((await client.limits.list()).items).toContainEqual(await client.limits.get("model"));
  const { id, key } = await client.keys.create({ role: "reader", name: "eyes" });
  const reader = createClient({ url: server.url, key });
  expect((await reader.status.get()).agents.total).toBeGreaterThanOrEqual(0);
  await expect(reader.tasks.create({ type: "x" })).rejects.toMatchObject({ status: 403 });
  await client.keys.revoke(id);
  await expect(reader.status.get()).rejects.toMatchObject({ status: 401 });
  reader.close();
  expect(await client.status.health()).toMatchObject({ version: "0.1.0" });
});

test("redrives a dead letter", async () => {
  let luck = false;
  const { requires } = await agentFor({
    moody: () => {
      if (!luck) throw new Error("bad day");
      return "good day";
    },
  });
  const handle = await client.tasks.delegate({ type: "moody", requires, retry: { maxAttempts: 1 } });
  await expect(handle.result()).rejects.toThrow("bad day");
  await untilPasses(async () =>
    expect((await client.deadLetters.list()).items.map(({ id }) => id)).toContain(handle.id),
  );
  luck = true;
  expect(await client.deadLetters.redrive({ taskIds: [handle.id] })).toMatchObject({ redriven: 1 });
  expect(await client.tasks.handle(await handle.get()).result()).toBe("good day");
});

test("works over fetch alone, streams included, as in a browser", async () => {
  const browser = createBrowserClient({ url: server.url, key: server.adminKey });
  const { requires } = await agentFor({ hello: ({ input }) => `hello ${input}` });
  const handle = await browser.tasks.delegate({ type: "hello", input: "bees", requires });
  expect(await handle.result()).toBe("hello bees");
  const types: string[] = [];
  for await (const event of handle) types.push(event.type);
  expect(types.at(-1)).toBe("task.completed");
  await expect(browser.tasks.get("tsk_0000000000000000000000")).rejects.toMatchObject({ status: 404 });
});

test("calls what a browser has as a browser lets it be called", async () => {
  const names = ["queueMicrotask", "fetch", "setTimeout", "clearTimeout"] as const;
  const globals = globalThis as unknown as Record<string, (...args: unknown[]) => unknown>;
  const own = names.map((name) => [name, globals[name]] as const);
  try {
    for (const [name, call] of own) {
      globals[name] = function (this: unknown, ...args) {
        // https://webidl.spec.whatwg.org/#dfn-create-operation-function
        if (this !== undefined && this !== globalThis) throw new TypeError(`${name}: Illegal invocation`);
        return call?.(...args);
      };
    }
    const browser = createBrowserClient({ url: server.url, key: server.adminKey });
    const { requires } = await agentFor({ hello: () => "hello" });
    expect(await browser.tasks.delegate({ type: "hello", requires }).result()).toBe("hello");
  } finally {
    for (const [name, call] of own) if (call) globals[name] = call;
  }
});

test("keeps what it follows across a restart of the server, and loses no event", async () => {
  const dir = mkdtempSync(join(tmpdir(), "waggle-restart-"));
  let own = await startLocal({ dataDir: dir, port: 0, version: "0.1.0" });
  const { port } = new URL(own.url);
  const mine = createClient({ url: own.url, key: own.adminKey });
  const agent = createAgent({
    name: "survivor",
    capabilities: ["x"],
    url: own.url,
    key: own.adminKey,
    handlers: { "*": ({ input }) => input },
    log: quiet,
  });
  try {
    await agent.start();
    const seen: number[] = [];
    const over = new AbortController();
    const following = (async () => {
      for await (const event of mine.events.follow({ signal: over.signal })) seen.push(event.sequence);
    })();
    expect(await mine.tasks.delegate({ type: "a", input: 1, requires: [{ capability: "x" }] }).result()).toBe(1);
    await own.stop();
    const across = mine.tasks.delegate({ type: "a", input: 2, requires: [{ capability: "x" }] }).result();
    own = await startLocal({ dataDir: dir, port: Number(port), version: "0.1.0" });
    expect(await across).toBe(2);
    const end = (await mine.events.list({ limit: 200 })).items.length;
    await untilPasses(() => expect(seen.length).toBeGreaterThanOrEqual(end));
    over.abort();
    await following;
    expect(seen).toEqual(seen.map((_, i) => i + 1));
  } finally {
    await agent.stop({ graceSeconds: 0 });
    mine.close();
    await own.stop();
    rmSync(dir, { recursive: true, force: true });
  }
});
