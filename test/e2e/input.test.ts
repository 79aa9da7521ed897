import { afterAll, beforeAll, expect, test } from "vitest";
import { type Api, openServer, type Problem, type TestServer } from "../support/api.ts";

let server: TestServer;
let api: Api;
beforeAll(async () => {
  server = await openServer();
  api = await server.tenant();
});
afterAll(() => server?.stop());

const task = (more: object) => ({ type: "t", ...more });
const agent = (more: object) => ({ name: "a", capabilities: [], ...more });

/** What is asked, and the field the answer must name. */
const wrong: readonly [string, string, unknown, string][] = [
  ["a task without a type", "/v1/tasks", {}, "type"],
  ["an empty type", "/v1/tasks", task({ type: "" }), "type"],
  ["a type that is a number", "/v1/tasks", task({ type: 1 }), "type"],
  ["a control character in a type", "/v1/tasks", task({ type: "a\nb" }), "type"],
  ["a type of 129 characters", "/v1/tasks", task({ type: "x".repeat(129) }), "type"],
  ["an unknown field", "/v1/tasks", task({ prioritie: 3 }), "prioritie"],
  ["a priority of 10", "/v1/tasks", task({ priority: 10 }), "priority"],
  ["a priority of -1", "/v1/tasks", task({ priority: -1 }), "priority"],
  ["a priority of 1.5", "/v1/tasks", task({ priority: 1.5 }), "priority"],
  ["a level above 1", "/v1/tasks", task({ requires: [{ capability: "x", minLevel: 1.1 }] }), "requires.0.minLevel"],
  ["an unknown field deep down", "/v1/tasks", task({ requires: [{ capability: "x", min: 1 }] }), "requires.0.min"],
  ["a delay and a time", "/v1/tasks", task({ delaySeconds: 1, notBefore: "2030-01-01T00:00:00Z" }), "notBefore"],
  ["a negative delay", "/v1/tasks", task({ delaySeconds: -1 }), "delaySeconds"],
  ["a time that is none", "/v1/tasks", task({ notBefore: "tomorrow" }), "notBefore"],
  ["a time no answer can tell", "/v1/tasks", task({ notBefore: "9999-12-31T23:59:59-01:00" }), "notBefore"],
  ["a timeout of 0", "/v1/tasks", task({ timeouts: { runSeconds: 0 } }), "timeouts.runSeconds"],
  ["no attempt at all", "/v1/tasks", task({ retry: { maxAttempts: 0 } }), "retry.maxAttempts"],
  ["an unknown strategy", "/v1/tasks", task({ strategy: "best" }), "strategy"],
  ["a selector without its value", "/v1/tasks", task({ labels: [{ key: "a", op: "gt" }] }), "labels.0.value"],
  [
    "101 dependencies",
    "/v1/tasks",
    task({ dependsOn: Array.from({ length: 101 }, (_, n) => `tsk_${n}`) }),
    "dependsOn",
  ],
  ["an agent without a name", "/v1/agents", { capabilities: [] }, "name"],
  ["an agent without capabilities", "/v1/agents", { name: "a" }, "capabilities"],
  [
    "65 capabilities",
    "/v1/agents",
    agent({ capabilities: Array.from({ length: 65 }, (_, n) => ({ name: `c${n}` })) }),
    "capabilities",
  ],
  ["one capability twice", "/v1/agents", agent({ capabilities: [{ name: "x" }, { name: "x" }] }), "capabilities"],
  ["a concurrency of 0", "/v1/agents", agent({ maxConcurrency: 0 }), "maxConcurrency"],
  ["a lease of 2 s", "/v1/agents", agent({ leaseSeconds: 2 }), "leaseSeconds"],
  ["a lease of more than an hour", "/v1/agents", agent({ leaseSeconds: 3601 }), "leaseSeconds"],
  ["a delivery that is not served", "/v1/agents", agent({ delivery: { type: "pigeon" } }), "delivery.type"],
  ["a key of an unknown role", "/v1/keys", { role: "root" }, "role"],
  ["a tenant with a space", "/v1/keys", { role: "client", tenant: "a b" }, "tenant"],
  ["a redrive of nothing in particular", "/v1/dead-letters/redrive", {}, ""],
];
test.each(wrong)("%s is refused with 400, naming the field", async (_, path, content, field) => {
  const { status, headers, body } = await api.post(path, content);
  expect([status, body.code]).toEqual([400, "request.invalid"]);
  expect(headers.get("content-type")).toMatch(/^application\/problem\+json/);
  expect(body).toMatchObject({
    type: expect.any(String),
    title: expect.any(String),
    status: 400,
    detail: expect.any(String),
  });
  const named = (body.errors ?? []).map((error) => [error.path, error.message].join(" "));
  expect(named.some((text) => text.includes(field.split(".").at(-1) ?? ""))).toBe(true);
  if (field.includes(".")) expect(body.errors?.map(({ path: at }) => at).join(" ")).toContain(field.split(".")[0]);
});

test("what was refused has changed nothing", async () => {
  expect((await api.get<{ items: unknown[] }>("/v1/tasks")).body.items).toEqual([]);
  expect((await api.get<{ items: unknown[] }>("/v1/agents")).body.items).toEqual([]);
});

test.each([
  ["/v1/tasks?limit=0", "limit"],
  ["/v1/tasks?limit=201", "limit"],
  ["/v1/tasks?limit=x", "limit"],
  ["/v1/tasks?status=done", "status"],
  ["/v1/tasks?colour=red", "colour"],
  ["/v1/tasks?cursor=nonsense", "cursor"],
  ["/v1/agents?label=nocolon", "label"],
  ["/v1/events?after=-1", "after"],
])("the query %s is refused, naming %s", async (path, field) => {
  const { status, body } = await api.get(path);
  expect([status, body.code]).toEqual([400, "request.invalid"]);
  expect(JSON.stringify(body)).toContain(field);
});

test("what is not there is 404, whether it never was or is no id at all", async () => {
  const found = await Promise.all(
    ["tsk_00000000000000000000000000", "nonsense", "agt_00000000000000000000000000", "..%2f..", "%00"].map((id) =>
      api.get(`/v1/tasks/${id}`),
    ),
  );
  expect(found.map(({ status, body }) => [status, body.code])).toEqual(found.map(() => [404, "task.not_found"]));
  const route = await api.get("/v1/nothing");
  expect([route.status, route.body.code]).toEqual([404, "route.not_found"]);
});

test("a method that a path does not have is 405 and says which it has", async () => {
  const { status, headers, body } = await api.call("DELETE", "/v1/tasks");
  expect([status, body.code]).toEqual([405, "route.method_not_allowed"]);
  expect(headers.get("allow")).toMatch(/GET/);
  expect(headers.get("allow")).toMatch(/POST/);
});

test("a body that is not JSON by its own word is refused", async () => {
  const { status } = await api.raw("POST", "/v1/tasks", "type=t", {
    "content-type": "application/x-www-form-urlencoded",
  });
  expect([400, 415]).toContain(status);
});

test("a request id goes out as it came in; without one there is a new one, in the problem too", async () => {
  const given = await api.get("/v1/tasks", { "x-request-id": "my-request-1" });
  expect(given.headers.get("x-request-id")).toBe("my-request-1");
  const made = await api.get<Problem>("/v1/nothing");
  expect(made.headers.get("x-request-id")).toBeTruthy();
  expect(made.body.requestId).toBe(made.headers.get("x-request-id"));
  const nasty = await api.get("/v1/tasks", { "x-request-id": "x".repeat(5000) });
  expect(nasty.status).toBe(200);
  expect(nasty.headers.get("x-request-id")?.length).toBeLessThan(5000);
});

test("every answer tells its time, and a traceparent is carried into the task", async () => {
  const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const { headers, body } = await api.post<{ task: { traceparent?: string } }>(
    "/v1/tasks",
    { type: "t", delaySeconds: 600 },
    { traceparent },
  );
  expect(headers.get("server-timing")).toMatch(/dur=/);
  expect(body.task.traceparent).toContain("0af7651916cd43dd8448eb211c80319c");
  const odd = await api.post("/v1/tasks", { type: "t", delaySeconds: 600 }, { traceparent: "rubbish" });
  expect(odd.status).toBe(201);
});
