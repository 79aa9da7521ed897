import type { Task } from "@waggle/sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Api, openServer, type TestServer, unique } from "../support/api.ts";

let server: TestServer;
beforeAll(async () => {
  server = await openServer();
});
afterAll(() => server?.stop());

async function keyOf(admin: Api, role: string): Promise<Api & { id: string }> {
  const { status, body, text } = await admin.post<{ id: string; key: string }>("/v1/keys", { role });
  expect(status, text).toBe(201);
  return { ...admin.as(body.key), id: body.id };
}

test("without a key, with nonsense and with a key that never was, everything but health and the docs is 401", async () => {
  const { admin } = server;
  for (const key of [undefined, "nonsense", "", `${admin.key}x`]) {
    for (const path of ["/v1/tasks", "/v1/agents", "/v1/status", "/v1/events", "/v1/keys", "/metrics"]) {
      const { status, headers, body } = await admin.as(key).get(path);
      expect([path, status, body.code]).toEqual([path, 401, "auth.required"]);
      expect(headers.get("www-authenticate")).toMatch(/^Bearer/);
    }
  }
  for (const path of ["/health", "/openapi.json", "/docs"]) {
    expect([path, (await admin.as(undefined).get(path)).status]).toEqual([path, 200]);
  }
});

test("each role may do what it is for, and no more", async () => {
  const admin = await server.tenant();
  const roles: Record<string, Api> = { admin };
  for (const role of ["operator", "client", "reader"]) roles[role] = await keyOf(admin, role);
  const task = await admin.delegate({ delaySeconds: 600 });
  const agent = await admin.register();
  const may: readonly [string, string, string, unknown, readonly string[]][] = [
    ["read tasks", "GET", "/v1/tasks", undefined, ["admin", "operator", "client", "reader"]],
    ["read the status", "GET", "/v1/status", undefined, ["admin", "operator", "client", "reader"]],
    ["submit", "POST", "/v1/tasks", { type: "t", delaySeconds: 600 }, ["admin", "operator", "client"]],
    ["cancel", "POST", `/v1/tasks/${task.id}/cancel`, {}, ["admin", "operator", "client"]],
    ["pause an agent", "POST", `/v1/agents/${agent.id}/pause`, undefined, ["admin", "operator"]],
    ["set a limit", "PUT", "/v1/limits/x", { concurrency: 1 }, ["admin", "operator"]],
    ["make keys", "POST", "/v1/keys", { role: "reader" }, ["admin"]],
    ["list keys", "GET", "/v1/keys", undefined, ["admin"]],
  ];
  for (const [what, method, path, content, allowed] of may) {
    for (const [role, api] of Object.entries(roles)) {
      const { status, body } = await api.call(method, path, content);
      if (allowed.includes(role)) expect([what, role, status < 300]).toEqual([what, role, true]);
      else expect([what, role, status, body.code]).toEqual([what, role, 403, "auth.forbidden"]);
    }
  }
});

test("an agent's token is good for that agent alone", async () => {
  const admin = await server.tenant();
  const [one, two] = [await admin.register({ capabilities: [{ name: "x" }] }), await admin.register()];
  const task = await admin.delegate({ requires: [{ capability: "x" }] });
  const held = await one.take();
  const strange = await Promise.all([
    two.api.post(`/v1/agents/${one.id}/lease`, {}),
    two.api.post(`/v1/agents/${one.id}/heartbeat`, {}),
    two.api.post(`/v1/tasks/${task.id}/complete`, { fence: held.fence }),
    two.api.get(`/v1/tasks/${task.id}`),
    two.api.get("/v1/keys"),
    two.api.post("/v1/agents", { name: unique("a"), capabilities: [] }),
  ]);
  for (const { status } of strange) expect([403, 404]).toContain(status);
  expect((await admin.task(task.id)).status).toBe("assigned");
  expect((await one.complete(held)).status).toBe(200);
});

test("a client cannot do an agent's calls on a task", async () => {
  const admin = await server.tenant();
  const client = await keyOf(admin, "client");
  const agent = await admin.register({ capabilities: [{ name: "x" }] });
  await admin.delegate({ requires: [{ capability: "x" }] });
  const held = await agent.take();
  for (const verb of ["start", "complete", "fail", "release", "heartbeat"]) {
    const content = verb === "fail" ? { fence: held.fence, error: { code: "x", message: "x" } } : { fence: held.fence };
    expect((await client.post(`/v1/tasks/${held.task.id}/${verb}`, content)).status).toBe(403);
  }
});

test("what is another tenant's is not there: read, change, list, events, dependencies", async () => {
  const [mine, theirs] = [await server.tenant(), await server.tenant()];
  const task = await theirs.delegate({ delaySeconds: 600 });
  const agent = await theirs.register();
  const never = "tsk_00000000000000000000000000";
  for (const id of [task.id, never]) {
    for (const [method, path, content] of [
      ["GET", `/v1/tasks/${id}`, undefined],
      ["GET", `/v1/tasks/${id}/events`, undefined],
      ["GET", `/v1/tasks/${id}/explain`, undefined],
      ["POST", `/v1/tasks/${id}/cancel`, {}],
      ["POST", `/v1/tasks/${id}/retry`, undefined],
    ] as const) {
      const { status, body } = await mine.call(method, path, content);
      expect([path, status, body.code]).toEqual([path, 404, "task.not_found"]);
    }
  }
  expect((await mine.get(`/v1/agents/${agent.id}`)).status).toBe(404);
  expect((await mine.call("DELETE", `/v1/agents/${agent.id}?mode=force`)).status).toBe(404);
  expect((await mine.post("/v1/tasks", { type: "t", agentId: agent.id })).status).not.toBe(500);
  expect((await mine.get<{ items: Task[] }>("/v1/tasks")).body.items.filter(({ id }) => id === task.id)).toEqual([]);
  expect((await mine.get<{ items: unknown[] }>("/v1/agents")).body.items).toEqual([]);
  expect((await mine.events()).filter(({ taskId }) => taskId === task.id)).toEqual([]);
  expect((await theirs.task(task.id)).status).toBe("scheduled");
});

test("one tenant's agents are never given another's tasks", async () => {
  const [mine, theirs] = [await server.tenant(), await server.tenant()];
  const agent = await mine.register({ capabilities: [{ name: "x" }] });
  await theirs.delegate({ requires: [{ capability: "x" }] });
  expect(await agent.lease(1, 1)).toEqual([]);
});

test("a key is shown once, listed without its secret, and ends at once when revoked", async () => {
  const admin = await server.tenant();
  const client = await keyOf(admin, "client");
  expect((await client.get("/v1/tasks")).status).toBe(200);
  const listed = await admin.get<{ items: { id: string; role: string }[] }>("/v1/keys");
  expect(listed.text).not.toContain(client.key);
  expect(listed.text).not.toContain(admin.key);
  expect(listed.body.items.find(({ id }) => id === client.id)).toMatchObject({ role: "client" });
  expect((await admin.call("DELETE", `/v1/keys/${client.id}`)).status).toBe(204);
  expect((await client.get("/v1/tasks")).status).toBe(401);
  expect((await admin.call("DELETE", `/v1/keys/${client.id}`)).status).toBe(404);
});

test("only an admin of the first tenant makes keys for another tenant; each sees its own", async () => {
  const [one, two] = [await server.tenant(), await server.tenant()];
  const other = await one.post("/v1/keys", { role: "admin", tenant: unique("t") });
  expect([other.status, other.body.code]).toEqual([403, "auth.forbidden"]);
  const ids = async (api: Api) =>
    (await api.get<{ items: { id: string }[] }>("/v1/keys")).body.items.map(({ id }) => id);
  const mine = await ids(one);
  expect(mine).toHaveLength(1);
  expect((await ids(two)).some((id) => mine.includes(id))).toBe(false);
});
