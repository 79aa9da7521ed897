import { routes } from "@waggle/api";
import { beforeAll, describe, expect, test } from "vitest";
import { limits } from "../src/auth.ts";
import { good, startApi, type TestApi, unique } from "./support.ts";

let api: TestApi;
const keys: Record<string, string> = {};
beforeAll(async () => {
  api = await startApi();
  for (const role of ["admin", "operator", "client", "reader"]) keys[role] = await api.key(role);
});

const nothing = "0".repeat(22);
const fill = (path: string, agentId: string) =>
  path
    .replace("/agents/{id}", `/agents/${agentId}`)
    .replace("/tasks/{id}", `/tasks/tsk_${nothing}`)
    .replace("/keys/{id}", `/keys/key_${nothing}`)
    .replace("{key}", "some-limit");

describe.each(routes.map((route) => [`${route.method} ${route.path}`, route] as const))("%s", (_, route) => {
  const body = route.body === undefined ? {} : { body: {} };

  test("is safe to show in a browser", async () => {
    const { headers } = await api.call(route.method, fill(route.path, `agt_${nothing}`), { ...body, key: null });
    expect(headers.get("x-content-type-options")).toBe("nosniff");
    expect(headers.get("content-security-policy")).toMatch(/default-src 'none'.*frame-ancestors 'none'/);
    expect(headers.get("cache-control")).toBe("no-store");
    expect(headers.get("referrer-policy")).toBe("no-referrer");
    expect(headers.has("access-control-allow-origin")).toBe(false);
  });
});

describe("tenants", () => {
  test("do not see one another's tasks, agents, keys, events or limits", async () => {
    const [mine, yours] = [await api.key("admin", unique("a")), await api.key("admin", unique("b"))];
    const task = await api.task({}, mine);
    const agent = await api.agent({}, mine);
    const key = good(201, await api.call("POST", "/v1/keys", { body: { role: "reader" }, key: mine }));
    good(200, await api.call("PUT", "/v1/limits/shared", { body: { concurrency: 7 }, key: mine }));
    for (const [method, path] of [
      ["GET", `/v1/tasks/${task.id}`],
      ["GET", `/v1/tasks/${task.id}/events`],
      ["GET", `/v1/tasks/${task.id}/explain`],
      ["POST", `/v1/tasks/${task.id}/cancel`],
      ["POST", `/v1/tasks/${task.id}/retry`],
      ["GET", `/v1/agents/${agent.id}`],
      ["POST", `/v1/agents/${agent.id}/pause`],
      ["DELETE", `/v1/agents/${agent.id}`],
      ["DELETE", `/v1/keys/${key.id}`],
    ] as const) {
      expect([path, (await api.call(method, path, { key: yours })).status]).toEqual([path, 404]);
    }
    for (const path of ["/v1/tasks", "/v1/agents", "/v1/events", "/v1/limits"]) {
      expect(good(200, await api.call("GET", path, { key: yours })).items).toEqual([]);
    }
    expect(good(200, await api.call("GET", "/v1/limits/shared", { key: yours })).limit.concurrency).toBeUndefined();
    const stream = await api.call("GET", `/v1/tasks/${task.id}/events`, {
      key: yours,
      headers: { accept: "text/event-stream" },
    });
    expect(stream.status).toBe(404);
  });

  test("may use the same Idempotency-Key for their own", async () => {
    const headers = { "idempotency-key": unique("shared") };
    const ids = new Set<string>();
    for (const tenant of [unique("c"), unique("d")]) {
      const key = await api.key("client", tenant);
      ids.add(good(201, await api.call("POST", "/v1/tasks", { body: { type: "a" }, key, headers })).task.id);
    }
    expect(ids.size).toBe(2);
  });

  test("only the first makes keys for others", async () => {
    const key = await api.key("admin", unique("e"));
    const reply = await api.call("POST", "/v1/keys", { body: { role: "admin", tenant: "default" }, key });
    expect([reply.status, reply.body.code]).toEqual([403, "auth.forbidden"]);
  });
});

describe("an agent", () => {
  test("reads its tasks and their children, and nobody else's", async () => {
    const key = await api.key("admin", unique("g"));
    const [mine, other] = [await api.agent({}, key), await api.agent({}, key)];
    const parent = await api.task({}, key);
    const { fence } = await api.lease(mine);
    const as = { key: mine.token };
    const child = good(
      201,
      await api.call("POST", "/v1/tasks", { ...as, body: { type: "child", parentId: parent.id, role: "nobody" } }),
    ).task;
    expect(child).toMatchObject({ parentId: parent.id, depth: 1 });
    for (const { id } of [parent, child]) {
      for (const path of [`/v1/tasks/${id}`, `/v1/tasks/${id}/events`]) {
        expect((await api.call("GET", path, as)).status).toBe(200);
        const strange = await api.call("GET", path, { key: other.token });
        expect([strange.status, strange.body.code]).toEqual([404, "task.not_found"]);
      }
    }
    for (const verb of ["start", "heartbeat", "complete", "release"]) {
      const strange = await api.call("POST", `/v1/tasks/${parent.id}/${verb}`, { key: other.token, body: { fence } });
      expect([verb, strange.status, strange.body.code]).toEqual([verb, 404, "task.not_found"]);
    }
    const orphan = await api.call("POST", "/v1/tasks", { ...as, body: { type: "child" } });
    expect([orphan.status, orphan.body.code]).toEqual([403, "auth.forbidden"]);
    const stolen = await api.call("POST", "/v1/tasks", {
      key: other.token,
      body: { type: "child", parentId: parent.id },
    });
    expect([stolen.status, stolen.body.code]).toEqual([400, "task.parent_not_found"]);
  });

  test("is turned away once another took its name", async () => {
    const name = unique("name");
    const old = await api.agent({ name });
    const next = await api.agent({ name, onConflict: "replace" });
    expect(next.id).toBe(old.id);
    expect((await api.call("GET", `/v1/agents/${old.id}`, { key: old.token })).status).toBe(401);
    expect((await api.call("GET", `/v1/agents/${old.id}`, { key: next.token })).status).toBe(200);
  });
});

describe("secrets", () => {
  test("of a replayed answer are kept so that only its caller reads them", async () => {
    const headers = { "idempotency-key": unique("secret") };
    const body = { name: unique("s"), capabilities: [] };
    const { token } = good(201, await api.call("POST", "/v1/agents", { body, headers }));
    const row = await api.local.engine.ports.store.get({ pk: `default#I#${headers["idempotency-key"]}`, sk: "key" });
    expect(row?.state).toBe("done");
    expect(JSON.stringify(row)).not.toContain(token);
    expect(Buffer.from(row?.answer as string, "base64").toString("latin1")).not.toContain(token);
    const other = await api.call("POST", "/v1/agents", { body, headers, key: keys.operator as string });
    expect([other.status, other.body.code]).toEqual([422, "idempotency.mismatch"]);
  });
});

describe("wrong keys", () => {
  test("are limited by address, while good ones pass", async () => {
    const { call } = await startApi();
    const wrong = () => call("GET", "/v1/tasks", { key: "wgk_wrong" });
    const all = await Promise.all(Array.from({ length: limits.failures + 5 }, wrong));
    expect(all.slice(0, limits.failures).map(({ status }) => status)).toEqual(Array(limits.failures).fill(401));
    const refused = all.at(-1);
    expect([refused?.status, refused?.body.code]).toEqual([429, "request.rate_limited"]);
    expect(Number(refused?.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
    expect((await call("GET", "/v1/tasks")).status).toBe(200);
  });

  test.each(["Basic abc", "Bearer", "Bearer a b", "bearer\tx"])("%j is no bearer", async (authorization) => {
    const reply = await api.call("GET", "/v1/tasks", { key: null, headers: { authorization } });
    expect(reply.status).toBe(401);
  });
});
