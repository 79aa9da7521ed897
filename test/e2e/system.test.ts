import { afterAll, beforeAll, expect, test } from "vitest";
import { openServer, type TestServer } from "../support/api.ts";
import { eventually } from "../support/eventually.ts";

let server: TestServer;
beforeAll(async () => {
  server = await openServer();
});
afterAll(() => server?.stop());

interface Status {
  readonly version: string;
  readonly agents: { total: number; byStatus: Record<string, number>; byRole: Record<string, number> };
  readonly tasks: { byStatus: Record<string, number> };
  readonly rates: { readonly seconds: number; readonly perSecond: Record<string, number> };
  readonly queues: readonly { capability: string; waiting: number; oldestSeconds: number }[];
}

test("health needs no key and tells the version and the parts", async () => {
  const { status, body } = await server.admin.as(undefined).get<Record<string, unknown>>("/health");
  expect(status).toBe(200);
  expect(body).toMatchObject({
    status: expect.stringMatching(/^(healthy|degraded|no_agents)$/),
    version: expect.stringMatching(/^\d+\.\d+\.\d+/),
    uptimeSeconds: expect.any(Number),
    components: expect.any(Object),
  });
});

test("the status counts agents, tasks and what waits for each capability", async () => {
  const api = await server.tenant();
  const agent = await api.register({ capabilities: [{ name: "x" }], role: "worker" });
  for (let n = 0; n < 3; n++) await api.delegate({ requires: [{ capability: "x" }] });
  await api.delegate({ delaySeconds: 600 });
  await agent.complete(await agent.take());
  const status = await eventually("the counts are right", async () => {
    const { body } = await api.get<Status>("/v1/status");
    const { completed, queued = 0, scheduled } = body.tasks.byStatus;
    return completed === 1 && queued === 2 && scheduled === 1 && body;
  });
  expect(status.agents).toMatchObject({ total: 1, byRole: { worker: 1 } });
  expect(status.queues.find(({ capability }) => capability === "x")).toMatchObject({ waiting: 2 });
});

test("what needs no capability, and what needs one named any, wait in one queue: no metric comes twice", async () => {
  const api = await server.tenant();
  for (const requires of [[], [{ capability: "any" }], [{ capability: "any" }]]) await api.delegate({ requires });
  const queues = await eventually("all are counted", async () => {
    const { body } = await api.get<Status>("/v1/status");
    return body.tasks.byStatus.queued === 3 && body.queues;
  });
  expect(queues).toMatchObject([{ capability: "any", waiting: 3 }]);
});

test("the status says how many tasks a second came and ended in the last minute", async () => {
  const api = await server.tenant();
  const agent = await api.register({ capabilities: [{ name: "x" }] });
  for (let n = 0; n < 6; n++) await api.delegate({ requires: [{ capability: "x" }] });
  await agent.complete(await agent.take());
  await agent.complete(await agent.take());
  await agent.fail(await agent.take(), { code: "no", message: "no", retryable: false });
  const rates = await eventually("the events of all are counted", async () => {
    const { body } = await api.get<Status>("/v1/status");
    return body.rates.perSecond.failed ? body.rates : false;
  });
  expect(rates.seconds).toBe(60);
  expect(rates.perSecond).toEqual({
    created: 0.1,
    assigned: 0.05,
    completed: 0.033,
    failed: 0.017,
    cancelled: 0,
    expired: 0,
  });
});

test("metrics are Prometheus text with help and type for every family", async () => {
  const { status, headers, text } = await server.admin.get("/metrics");
  expect(status).toBe(200);
  expect(headers.get("content-type")).toMatch(/^text\/plain/);
  const lines = text.split("\n").filter(Boolean);
  const families = new Set(lines.filter((line) => line.startsWith("# TYPE ")).map((line) => line.split(" ")[2]));
  expect(families.size).toBeGreaterThan(3);
  const sample = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{.*\})? (-?[0-9.e+-]+|NaN|\+Inf)$/;
  for (const line of lines.filter((entry) => !entry.startsWith("#"))) {
    const name = sample.exec(line)?.[1];
    expect(line).toMatch(sample);
    expect(
      [...families].some((family) => name === family || name?.replace(/_(bucket|sum|count|total)$/, "") === family),
    ).toBe(true);
  }
});

test("a tenant's metrics show nothing of another tenant", async () => {
  const [one, two] = [await server.tenant(), await server.tenant()];
  await one.register({ capabilities: [{ name: "x" }] });
  const name = (await one.get<{ items: { tenant: string }[] }>("/v1/keys")).body.items[0]?.tenant as string;
  expect((await two.get("/metrics")).text).not.toContain(name);
});

test("the OpenAPI document names every call of the contract", async () => {
  interface Document {
    openapi: string;
    paths: Record<string, Record<string, { operationId: string; responses: object }>>;
    components: { schemas: object };
  }
  const { body } = await server.admin.as(undefined).get<Document>("/openapi.json");
  expect(body.openapi).toMatch(/^3\.1/);
  const calls = Object.entries(body.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method} ${path}`),
  );
  const promised = [
    "post /v1/agents",
    "get /v1/agents",
    "get /v1/agents/{id}",
    "patch /v1/agents/{id}",
    "delete /v1/agents/{id}",
    "post /v1/agents/{id}/lease",
    "post /v1/agents/{id}/heartbeat",
    "post /v1/agents/{id}/drain",
    "post /v1/agents/{id}/pause",
    "post /v1/agents/{id}/resume",
    "post /v1/tasks",
    "post /v1/tasks/batch",
    "get /v1/tasks",
    "get /v1/tasks/{id}",
    "post /v1/tasks/{id}/cancel",
    "post /v1/tasks/{id}/start",
    "post /v1/tasks/{id}/heartbeat",
    "post /v1/tasks/{id}/complete",
    "post /v1/tasks/{id}/fail",
    "post /v1/tasks/{id}/release",
    "post /v1/tasks/{id}/retry",
    "get /v1/tasks/{id}/events",
    "get /v1/tasks/{id}/explain",
    "get /v1/dead-letters",
    "post /v1/dead-letters/redrive",
    "get /health",
    "get /v1/status",
    "get /v1/events",
    "get /metrics",
    "post /v1/keys",
    "get /v1/keys",
    "delete /v1/keys/{id}",
    "put /v1/limits/{key}",
    "get /v1/limits/{key}",
  ];
  expect(promised.filter((call) => !calls.includes(call))).toEqual([]);
  const ids = Object.values(body.paths).flatMap((methods) =>
    Object.values(methods).map(({ operationId }) => operationId),
  );
  expect(new Set(ids).size).toBe(ids.length);
  const references = [...JSON.stringify(body).matchAll(/"\$ref":"#\/components\/schemas\/([^"]+)"/g)].map(
    ([, name]) => name as string,
  );
  expect(references.filter((name) => !(name in body.components.schemas))).toEqual([]);
});

test("the docs are a page that loads nothing from elsewhere", async () => {
  const { status, headers, text } = await server.admin.as(undefined).get("/docs");
  expect(status).toBe(200);
  expect(headers.get("content-type")).toMatch(/^text\/html/);
  expect(text).not.toMatch(/(?:src|href)="(?:https?:)?\/\//);
});

test("the first tenant's admin may ask whether one tenant's rows agree, another of its own alone", async () => {
  const api = await server.tenant();
  const { body } = await api.get<{ tenants: string[] }>("/v1/audit");
  expect(body).toMatchObject({ tenants: [expect.any(String)], found: 0 });
  const [own] = body.tenants;
  expect((await server.admin.get(`/v1/audit?tenant=${own}`)).body).toMatchObject({ tenants: [own], found: 0 });
  expect((await api.get(`/v1/audit?tenant=${own}`)).status).toBe(200);
  expect((await api.get("/v1/audit?tenant=default")).status).toBe(403);
  expect((await server.admin.get("/v1/audit?tenant=A%23B")).status).toBe(400);
});
