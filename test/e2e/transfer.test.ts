import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Task } from "@waggle/sdk";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Api, agentOf, apiOf, openServer, remote, type TestServer, unique } from "../support/api.ts";
import { eventually } from "../support/eventually.ts";
import { launch } from "../support/process.ts";
import { root } from "../support/root.ts";
import { type Server, startServer } from "../support/server.ts";

/*
 * From an embedded server to the one under test, whatever its engine, and home to another embedded one. The commands run
 * as processes of their own.
 */
let dir: string;
let from: Server;
let home: Server;
let middle: TestServer;
beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "waggle-transfer-"));
  [from, home, middle] = await Promise.all([startServer(), startServer(), openServer()]);
});
afterAll(async () => {
  await Promise.all([from?.stop(), home?.stop(), middle?.stop()]);
  rmSync(dir, { recursive: true, force: true });
});

const begin = (api: Api, ...argv: string[]) =>
  launch(process.execPath, [join(root, "packages/cli/bin/waggle.mjs"), ...argv], {
    env: { WAGGLE_URL: api.url, WAGGLE_API_KEY: api.key },
  });
async function waggle(api: Api, ...argv: string[]): Promise<{ code: number | null; output: string }> {
  const { child, output } = begin(api, ...argv);
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { code, output: output() };
}
async function summary(api: Api, ...argv: string[]) {
  const { code, output } = await waggle(api, ...argv, "--json", "-q");
  expect(code, output).toBe(0);
  return JSON.parse(output);
}
const tasksOf = async (api: Api) =>
  (await api.get<{ tasks: { byStatus: Record<string, number> } }>("/v1/status")).body.tasks.byStatus;
const many = async (api: Api, count: number, type: string) => {
  for (let done = 0; done < count; done += 100)
    await api.post("/v1/tasks/batch", {
      tasks: Array.from({ length: 100 }, (_, n) => ({ type, input: { n: done + n } })),
    });
};

describe("a tenant that moves", () => {
  test("has there what it had here: states, payloads, limits, dependencies, and tokens and keys that go on working", async () => {
    const here = apiOf(from.url, from.key);
    const there = await middle.tenant();
    await here.call("PUT", "/v1/limits/model", { concurrency: 7 });
    const { body: client } = await here.post<{ key: string }>("/v1/keys", { role: "client" });
    const agent = await here.register({ capabilities: [{ name: "x" }], maxConcurrency: 10 });
    const gone = await here.register();
    await here.call("DELETE", `/v1/agents/${gone.id}?mode=force`);
    const requires = [{ capability: "x" }];
    const large = { text: "bee 🐝 ".repeat(30_000) };
    const completed = await here.delegate({ requires, input: large, tags: ["moved"] });
    await agent.complete(await agent.take(), large);
    const failed = await here.delegate({ requires, retry: { maxAttempts: 1 } });
    await agent.fail(await agent.take());
    const cancelled = await here.delegate({ requires: [{ capability: "nobody" }] });
    await here.post(`/v1/tasks/${cancelled.id}/cancel`);
    const expired = await here.delegate({ requires: [{ capability: "nobody" }], timeouts: { queueSeconds: 0.1 } });
    await here.taskWhen(expired.id, "expired");
    const running = await here.delegate({ requires });
    const held = await agent.take();
    await agent.start(held);
    const assigned = await here.delegate({ requires });
    await agent.take();
    const next = await here.delegate({ requires, dependsOn: [running.id] });
    const scheduled = await here.delegate({ requires, delaySeconds: 3600 });
    const queued = await here.delegate({ requires: [{ capability: "nobody" }] });

    const file = join(dir, "fleet.jsonl");
    const written = await summary(here, "export", file);
    expect(written.records).toMatchObject({ limit: 1, agent: 2, task: 9 });
    expect((await waggle(here, "export", "--verify", file)).code).toBe(0);
    const text = readFileSync(file, "utf8");
    for (const secret of [client.key, agent.token, from.key]) expect(text).not.toContain(secret.slice(8));
    const taken = await summary(there, "import", file);
    expect(taken).toMatchObject({ there: 0, differs: 0, records: written.records });

    const states = { completed, failed, cancelled, expired, scheduled, queued };
    for (const [status, { id }] of Object.entries(states)) {
      const [before, after] = [await here.task(id), await there.task(id)];
      expect([after.status, after.input, after.history]).toEqual([status, before.input, before.history]);
      expect([after.result, after.error, after.finishedAt]).toEqual([before.result, before.error, before.finishedAt]);
    }
    expect((await there.task(completed.id)).result).toEqual(large);
    const dead = await eventually("it is among the dead letters", async () => {
      const { items } = (await there.get<{ items: Task[] }>("/v1/dead-letters")).body;
      return items.length > 0 && items;
    });
    expect(dead.map(({ id }) => id)).toEqual([failed.id]);
    expect((await there.get<{ limit: object }>("/v1/limits/model")).body.limit).toMatchObject({ concurrency: 7 });
    expect((await there.as(client.key).get(`/v1/tasks/${queued.id}`)).status).toBe(200);
    expect((await there.as(gone.token).post(`/v1/agents/${gone.id}/heartbeat`, {})).status).toBe(401);

    const moved = agentOf(agent.id, agent.token, there.as(agent.token));
    expect((await moved.complete(held)).body.code).toBe("task.lease_lost");
    const again = [await moved.take(), await moved.take()];
    expect(new Set(again.map(({ task }) => task.id))).toEqual(new Set([running.id, assigned.id]));
    for (const assignment of again) {
      expect([assignment.task.attempt, assignment.fence]).toEqual([1, 3]);
      await moved.complete(assignment);
    }
    const last = await moved.take();
    expect(last.task.id).toBe(next.id);
    await moved.complete(last);
    const counts = {
      completed: 4,
      failed: 1,
      cancelled: 1,
      expired: 1,
      scheduled: 1,
      queued: 1,
      assigned: 0,
      running: 0,
    };
    await eventually("the counters are right", async () => {
      expect(await tasksOf(there)).toMatchObject(counts);
      return true;
    });

    const back = join(dir, "back.jsonl");
    await summary(there, "export", back);
    const house = apiOf(home.url, home.key);
    await summary(house, "import", back);
    expect(await tasksOf(house)).toMatchObject(counts);
    expect((await house.task(completed.id)).result).toEqual(large);
  });

  test("whose import is killed goes on after its last checkpoint; a second import changes nothing", async () => {
    const here = (await openSource()).api;
    const there = await middle.tenant();
    // An emulator looks for agents for some ten tasks a second, and its other tests wait for that.
    const count = remote ? 500 : 3000;
    await many(here, count, "many");
    const file = join(dir, "many.jsonl");
    await summary(here, "export", file);
    const importing = begin(there, "import", file, "-q");
    await eventually("a checkpoint is reached", () => existsSync(`${file}.position`), { everyMs: 1 });
    await importing.end("SIGKILL");
    expect(importing.output()).not.toContain("the file is whole");
    const resumed = await summary(there, "import", file, "--resume");
    expect(resumed).toMatchObject({ resumed: true, differs: 0 });
    expect(resumed.taken).toBeLessThan(count);
    expect(existsSync(`${file}.position`)).toBe(false);
    await eventually("every task is counted once", async () => {
      const { queued } = await tasksOf(there);
      return queued === count;
    });
    const events = async () => (await there.events()).length;
    await eventually("all is told", async () => (await events()) >= 2 * count);
    const before = await events();
    const twice = await waggle(there, "import", file, "-q");
    expect(twice).toMatchObject({ code: 0, output: expect.stringContaining("nothing changed") });
    expect(await events()).toBe(before);
  }, 60_000);

  test("whose export was cut short goes on, and its file is as good as one made in one go", async () => {
    const { api: here } = await openSource();
    await many(here, 700, "t");
    const whole = join(dir, "whole.jsonl");
    await summary(here, "export", whole);
    const bytes = readFileSync(whole);
    const file = join(dir, "cut.jsonl");
    for (const share of [0, 0.02, 0.5, 0.99]) {
      writeFileSync(file, bytes.subarray(0, Math.floor(bytes.length * share)));
      expect((await waggle(here, "import", file, "-q")).code).toBe(1);
      await summary(here, "export", file, "--resume");
      expect((await waggle(here, "export", "--verify", file)).code).toBe(0);
      const lines = (text: string) =>
        text
          .split("\n")
          .slice(1)
          .filter((line) => /^{"kind":"(task|limit|key|agent)"/.test(line));
      expect(lines(readFileSync(file, "utf8"))).toEqual(lines(bytes.toString()));
    }
  }, 60_000);

  test("is not moved by a file with one byte changed: it says where, and nothing of that part is sent", async () => {
    const { api: here } = await openSource();
    const there = await middle.tenant();
    await many(here, 100, "changed");
    const file = join(dir, "changed.jsonl");
    await summary(here, "export", file);
    const bytes = readFileSync(file);
    bytes[bytes.lastIndexOf('"changed"') + 1] = 67;
    writeFileSync(file, bytes);
    for (const argv of [
      ["export", "--verify", file],
      ["import", file],
    ]) {
      const { code, output } = await waggle(there, ...argv);
      expect(code).toBe(1);
      expect(output).toMatch(/line \d+: the bytes before it are not those that were written/);
    }
    expect((await tasksOf(there)).queued).toBe(0);
  });

  test("is moved by its admin alone, over nothing that is there", async () => {
    const { api: here } = await openSource();
    const { body } = await here.post<{ key: string }>("/v1/keys", { role: "operator" });
    const file = join(dir, "refused.jsonl");
    expect((await waggle(here.as(body.key), "export", file)).code).toBe(4);
    await summary(here, "export", file, "--force");
    expect((await waggle(here, "export", file)).code).toBe(4);
    expect((await waggle(here.as(body.key), "import", file)).code).toBe(4);
    expect((await waggle(here, "import", join(dir, "none.jsonl"))).code).toBe(3);
    expect((await waggle(apiOf("http://127.0.0.1:9", here.key), "import", file, "-q")).code).toBe(5);
    expect((await waggle(here, "export", "--resume")).code).toBe(2);
    const piped = await waggle(here, "export");
    expect(piped.output).toMatch(/^{"kind":"header"/);
  }, 60_000);

  test("is told what is another thing there under the same name, and all the rest is taken", async () => {
    const { api: here } = await openSource();
    const there = await middle.tenant();
    const key = unique("limit");
    await here.call("PUT", `/v1/limits/${key}`, { concurrency: 1 });
    await there.call("PUT", `/v1/limits/${key}`, { concurrency: 2 });
    const task = await here.delegate();
    const file = join(dir, "differs.jsonl");
    await summary(here, "export", file);
    const { code, output } = await waggle(there, "import", file, "-q");
    expect(code).toBe(4);
    expect(output).toMatch(/^line 2: limit .* is set to something else here/);
    expect((await there.task(task.id)).status).toBe("queued");
  });
});

/** A tenant of its own on the first server. */
async function openSource(): Promise<{ api: Api }> {
  const admin = apiOf(from.url, from.key);
  const { body } = await admin.post<{ key: string }>("/v1/keys", { role: "admin", tenant: unique("t").toLowerCase() });
  return { api: admin.as(body.key) };
}
