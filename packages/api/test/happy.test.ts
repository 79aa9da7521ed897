import { beforeAll, describe, expect, test } from "vitest";
import { eventually, good, startApi, type TestApi, unique } from "./support.ts";

let api: TestApi;
beforeAll(async () => {
  api = await startApi();
});

describe("a task, from submit to result", () => {
  test("by lease, start, heartbeat and complete, its payloads as they were written", async () => {
    const agent = await api.agent({ capabilities: [{ name: "a" }] });
    const input = `{"__proto__": {"n":12345678901234567890},\t"s":"\\u0000"}`;
    const created = await api.call("POST", "/v1/tasks", {
      raw: `{"type":"test","requires":[{"capability":"a"}],"input":${input},"metadata": [1.0]}`,
    });
    expect(created.status).toBe(201);
    expect(created.text).toContain(`"input":${input}`);
    const { id } = created.body.task;
    const { task, fence } = await api.lease(agent);
    expect(task.id).toBe(id);
    const as = { key: agent.token };
    expect(good(200, await api.call("POST", `/v1/tasks/${id}/start`, { ...as, body: { fence } })).task.status).toBe(
      "running",
    );
    const beat = await api.call("POST", `/v1/tasks/${id}/heartbeat`, {
      ...as,
      body: { fence, progress: { percent: 50, message: "half" } },
    });
    expect(good(200, beat).commands).toEqual({ cancel: [], pause: false, drain: false });
    const waiting = api.call("GET", `/v1/tasks/${id}?waitSeconds=20`);
    const done = await api.call("POST", `/v1/tasks/${id}/complete`, {
      ...as,
      raw: `{"fence":${fence},"result":1e400,"take":1}`,
    });
    expect(good(200, { ...done, body: JSON.parse(done.text) }).assignments).toEqual([]);
    expect((await waiting).text).toContain('"result":1e400');
    expect((await api.call("GET", `/v1/tasks/${id}`)).text).toContain('"metadata":[1.0]');
    const again = await api.call("POST", `/v1/tasks/${id}/complete`, { ...as, body: { fence, result: "other" } });
    expect(again.status).toBe(200);
    expect(again.text).toContain('"result":1e400');
  });

  test("is cancelled, retried and explained", async () => {
    const { id } = await api.task({ requires: [{ capability: "nobody" }] });
    expect(good(200, await api.call("GET", `/v1/tasks/${id}/explain`)).summary).toBeTypeOf("string");
    const cancelled = await api.call("POST", `/v1/tasks/${id}/cancel`, { body: { reason: "changed my mind" } });
    expect(good(200, cancelled).task.status).toBe("cancelled");
    expect(good(200, await api.call("POST", `/v1/tasks/${id}/cancel`)).task.status).toBe("cancelled");
    expect(good(200, await api.call("POST", `/v1/tasks/${id}/retry`)).task.status).toBe("queued");
  });

  test("answers for each entry of a batch, one bad entry spoiling no other", async () => {
    const tasks = [{ type: "test", ref: "a" }, { type: 7 }, { type: "test", dependsOn: ["ref:a"], input: [1] }];
    const reply = await api.call("POST", "/v1/tasks/batch", { body: { tasks } });
    const { results } = good(207, reply);
    expect(results[0].task.status).toBe("queued");
    expect(results[1].problem).toMatchObject({ code: "request.invalid", status: 400, errors: [{ path: "type" }] });
    expect(results[2].task).toMatchObject({ dependsOn: [results[0].task.id], input: [1] });
  });
});

describe("agents", () => {
  test("are registered, listed, changed, drained, paused, resumed and removed", async () => {
    const name = unique("worker");
    const label = unique("zone");
    const reply = await api.call("POST", "/v1/agents", {
      raw: `{"name":"${name}","capabilities":[{"name":"b","level":0.5}],"labels":{"zone":"${label}"},"metadata":{"n": 1.0}}`,
    });
    const { agent, token } = good(201, reply);
    expect(reply.text).toContain('"metadata":{"n": 1.0}');
    const listed = await api.call("GET", `/v1/agents?label=zone:${label}&limit=1`);
    expect(good(200, listed).items.map(({ id }: { id: string }) => id)).toEqual([agent.id]);
    const path = `/v1/agents/${agent.id}`;
    const patched = await api.call("PATCH", path, { body: { maxConcurrency: 4 }, key: token });
    expect(good(200, patched).agent.maxConcurrency).toBe(4);
    expect(good(200, await api.call("POST", `${path}/pause`)).agent.status).toBe("paused");
    expect(good(200, await api.call("POST", `${path}/resume`, { body: {} })).agent.status).not.toBe("paused");
    expect(good(200, await api.call("POST", `${path}/drain`, { key: token })).agent.status).toBe("draining");
    const beat = await api.call("POST", `${path}/heartbeat`, { key: token });
    expect(good(200, beat).commands.drain).toBe(true);
    expect(good(200, await api.call("DELETE", `${path}?mode=force`)).agent.status).toBe("stopped");
    expect((await api.call("GET", path, { key: token })).status).toBe(401);
  });

  test("pages through a list without a gap or a repeat", async () => {
    const tenant = unique("t");
    const key = await api.key("admin", tenant);
    const made = new Set<string>();
    for (let i = 0; i < 5; i++) made.add((await api.agent({}, key)).id);
    const seen: string[] = [];
    for (let cursor = ""; ; ) {
      const page = good(200, await api.call("GET", `/v1/agents?limit=2${cursor && `&cursor=${cursor}`}`, { key }));
      seen.push(...page.items.map(({ id }: { id: string }) => id));
      if (page.nextCursor === undefined) break;
      cursor = page.nextCursor;
    }
    expect(seen).toHaveLength(5);
    expect(new Set(seen)).toEqual(made);
  });
});

describe("repeating a call with its Idempotency-Key", () => {
  test.each([
    ["a task", "/v1/tasks", () => ({ type: "test", input: { a: 1 } }), "task"],
    ["a batch", "/v1/tasks/batch", () => ({ tasks: [{ type: "test" }] }), "results"],
    ["an agent", "/v1/agents", () => ({ name: unique("again"), capabilities: [] }), "token"],
    ["a key", "/v1/keys", () => ({ role: "reader" }), "key"],
  ])("makes %s once and answers the same", async (_, path, make, member) => {
    const headers = { "idempotency-key": unique("idem") };
    const body = make();
    const first = await api.call("POST", path, { body, headers });
    expect(first.status).toBeLessThan(300);
    expect(first.headers.has("idempotency-replayed")).toBe(false);
    const reordered = JSON.stringify(Object.fromEntries(Object.entries(body).reverse()), null, 1);
    const payload = path === "/v1/tasks" ? JSON.stringify(body) : reordered;
    const second = await api.call("POST", path, { raw: payload, headers });
    expect(second.status).toBe(first.status);
    expect(second.headers.get("idempotency-replayed")).toBe("true");
    expect(second.body[member]).toEqual(first.body[member]);
    const other = await api.call("POST", path, { body: { ...body, extra: 1 }, headers });
    expect(other.status).toBe(400);
  });

  test("refuses another body under the same key, across calls", async () => {
    const headers = { "idempotency-key": unique("idem") };
    good(201, await api.call("POST", "/v1/tasks", { body: { type: "a" }, headers }));
    for (const [path, body] of [
      ["/v1/tasks", { type: "b" }],
      ["/v1/agents", { name: unique("x"), capabilities: [] }],
    ] as const) {
      const reply = await api.call("POST", path, { body, headers });
      expect([reply.status, reply.body.code]).toEqual([422, "idempotency.mismatch"]);
    }
  });

  test("keeps no trace of a call that failed", async () => {
    const name = unique("taken");
    const { id } = await api.agent({ name });
    const headers = { "idempotency-key": unique("idem") };
    const body = { name, capabilities: [] };
    expect((await api.call("POST", "/v1/agents", { body, headers })).body.code).toBe("agent.exists");
    good(200, await api.call("DELETE", `/v1/agents/${id}?mode=force`));
    expect((await api.call("POST", "/v1/agents", { body, headers })).status).toBe(201);
  });
});

describe("the system", () => {
  test("says how it is, without a key", async () => {
    const reply = await api.call("GET", "/health", { key: null });
    expect(good(200, reply)).toMatchObject({ version: "1.2.3", components: { store: { status: "healthy" } } });
    expect(["healthy", "no_agents", "degraded"]).toContain(reply.body.status);
  });

  test("shows the fleet and the work", async () => {
    const reply = await api.call("GET", "/v1/status");
    expect(good(200, reply)).toMatchObject({ version: "1.2.3", agents: { total: expect.any(Number) } });
  });

  test("keeps limits by key, whatever characters it has", async () => {
    const path = `/v1/limits/${encodeURIComponent("model:a/b?#é")}`;
    const put = await api.call("PUT", path, { body: { concurrency: 3, rate: { limit: 10, perSeconds: 1 } } });
    expect(good(200, put).limit).toMatchObject({ key: "model:a/b?#é", concurrency: 3, running: 0 });
    expect(good(200, await api.call("GET", path)).limit).toEqual(put.body.limit);
    expect(good(200, await api.call("GET", "/v1/limits")).items).toContainEqual(put.body.limit);
  });

  test("makes, lists and revokes keys; a revoked one is void at once", async () => {
    const made = good(201, await api.call("POST", "/v1/keys", { body: { role: "client", name: "ci" } }));
    expect((await api.call("GET", "/v1/tasks", { key: made.key })).status).toBe(200);
    const listed = await api.call("GET", "/v1/keys");
    expect(good(200, listed).items.map(({ id }: { id: string }) => id)).toContain(made.id);
    expect(listed.text).not.toContain(made.key);
    expect((await api.call("DELETE", `/v1/keys/${made.id}`)).status).toBe(204);
    expect((await api.call("GET", "/v1/tasks", { key: made.key })).status).toBe(401);
    expect((await api.call("DELETE", `/v1/keys/${made.id}`)).body.code).toBe("key.not_found");
  });

  test("gives metrics that Prometheus reads, another tenant's not among them", async () => {
    const reply = await api.call("GET", "/metrics");
    expect(reply.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
    for (const line of reply.text.trimEnd().split("\n"))
      expect(line).toMatch(/^(# (HELP|TYPE) \w+ .+|\w+(\{(\w+="[^"]*",?)+\})? [-+\d.e]+)$/);
    expect(reply.text).toMatch(/^waggle_http_requests_total\{method="POST",route="\/v1\/tasks",status="201"\} \d+$/m);
    const tenant = unique("m");
    const other = await api.call("GET", "/metrics", { key: await api.key("reader", tenant) });
    expect(other.text).not.toContain('tenant="default"');
    expect(other.text).not.toContain("process_cpu_seconds_total");
  });

  test("redrives dead letters", async () => {
    const key = await api.key("admin", unique("d"));
    const agent = await api.agent({}, key);
    const { id } = await api.task({ retry: { maxAttempts: 1 } }, key);
    const { fence } = await api.lease(agent);
    const error = { code: "broken", message: "no" };
    good(200, await api.call("POST", `/v1/tasks/${id}/fail`, { key: agent.token, body: { fence, error } }));
    await eventually(async () => {
      const { items } = good(200, await api.call("GET", "/v1/dead-letters", { key }));
      return items.find((task: { id: string }) => task.id === id);
    });
    const redriven = await api.call("POST", "/v1/dead-letters/redrive", { key, body: { taskIds: [id, id] } });
    expect(good(200, redriven)).toEqual({ redriven: 1, skipped: [] });
  });
});
