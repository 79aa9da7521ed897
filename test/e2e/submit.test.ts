import type { Task } from "@waggle/sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Api, listed, openServer, type Problem, type TestServer, unique } from "../support/api.ts";

let server: TestServer;
beforeAll(async () => {
  server = await openServer();
});
afterAll(() => server?.stop());

type Batch = { results: ({ task: Task; problem?: undefined } | { task?: undefined; problem: Problem })[] } & Problem;
type List = { items: Task[]; nextCursor?: string };

const idsOf = async (api: Api, query = "") =>
  (await api.get<List>(`/v1/tasks?${query}`)).body.items.map(({ id }) => id);

/** `tsk_` and 22 characters, as a client may choose them. */
const chosenId = () =>
  `tsk_${Array.from({ length: 22 }, () => "0123456789abcdefghjkmnpqrstvwxyz"[Math.floor(Math.random() * 32)]).join("")}`;

test("a task answers what was asked and what was assumed", async () => {
  const api = await server.tenant();
  const said = {
    type: "review",
    input: { a: [1, null, "x"] },
    description: "look at it",
    priority: 7,
    requires: [{ capability: "code", minLevel: 0.5 }],
    tags: ["nightly"],
    fairKey: "team",
    metadata: { ticket: 7 },
    retry: { maxAttempts: 2 },
  };
  const task = await api.delegate(said);
  expect(task).toMatchObject({ ...said, status: "queued", depth: 0 });
  expect(task.retry).toMatchObject({ maxAttempts: 2, initialSeconds: 1, factor: 2, maxSeconds: 60 });
  expect(task.id).toMatch(/^tsk_/);
  expect(task.createdAt).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  expect((await api.delegate()).priority).toBe(5);
});

test("the same idempotency key and body answer the first task again, however many ask at once", async () => {
  const api = await server.tenant();
  const headers = { "idempotency-key": unique("key") };
  const content = { type: "once", input: { n: 1 } };
  const answers = await Promise.all(
    Array.from({ length: 10 }, () => api.post<{ task: Task }>("/v1/tasks", content, headers)),
  );
  const settled = answers.filter(({ status }) => status === 201);
  // One that meets the first still at work may be told to come again.
  expect(answers.filter(({ status }) => status !== 201 && status !== 409)).toEqual([]);
  expect(new Set(settled.map(({ body }) => body.task.id)).size).toBe(1);
  expect(settled.filter((answer) => answer.headers.get("idempotency-replayed") !== "true")).toHaveLength(1);
  const later = await api.post<{ task: Task }>("/v1/tasks", content, headers);
  expect([later.status, later.headers.get("idempotency-replayed")]).toEqual([201, "true"]);
  expect(later.body.task.id).toBe(settled[0]?.body.task.id);
  await listed(
    () => idsOf(api, "type=once"),
    (ids) => expect(ids).toHaveLength(1),
  );
});

test("the same idempotency key with another body is refused", async () => {
  const api = await server.tenant();
  const headers = { "idempotency-key": unique("key") };
  await api.post("/v1/tasks", { type: "a" }, headers);
  const other = await api.post("/v1/tasks", { type: "b" }, headers);
  expect([other.status, other.body.code]).toEqual([422, "idempotency.mismatch"]);
});

test("idempotency keys are a tenant's own", async () => {
  const [one, two] = [await server.tenant(), await server.tenant()];
  const headers = { "idempotency-key": "shared" };
  const first = await one.post<{ task: Task }>("/v1/tasks", { type: "a" }, headers);
  const second = await two.post<{ task: Task }>("/v1/tasks", { type: "b" }, headers);
  expect([first.status, second.status]).toEqual([201, 201]);
  expect(second.body.task.type).toBe("b");
});

test("a task with an id of the caller's own is taken once, however many ask at once, and answered as it stands", async () => {
  const api = await server.tenant();
  const content = { id: chosenId(), type: "once", input: { n: 1 } };
  const answers = await Promise.all(Array.from({ length: 10 }, () => api.post<{ task: Task }>("/v1/tasks", content)));
  expect(answers.map(({ status, body }) => [status, body.task.id])).toEqual(answers.map(() => [201, content.id]));
  expect(answers.filter((answer) => answer.headers.get("idempotency-replayed") !== "true")).toHaveLength(1);
  await api.post(`/v1/tasks/${content.id}/cancel`);
  const later = await api.post<{ task: Task }>("/v1/tasks", content);
  expect([later.status, later.body.task.status]).toEqual([201, "cancelled"]);
  await listed(
    () => idsOf(api, "type=once"),
    (ids) => expect(ids).toHaveLength(1),
  );
});

test.each([
  ["another type", { type: "b" }],
  ["another input", { input: { n: 2 } }],
  ["another large input", { input: "y".repeat(100_000) }],
  ["other requirements", { requires: [{ capability: "x" }] }],
])("an id that was used is refused for a task with %s, and the first one stays", async (_, other) => {
  const api = await server.tenant();
  const content = { id: chosenId(), type: "a", input: "x".repeat(100_000) };
  await api.post("/v1/tasks", content);
  const second = await api.post("/v1/tasks", { ...content, ...other });
  expect([second.status, second.body.code, second.body.errors?.[0]?.path]).toEqual([422, "idempotency.mismatch", "id"]);
  const { body } = await api.get<{ task: Task }>(`/v1/tasks/${content.id}`);
  expect(body.task).toMatchObject({ type: "a", input: content.input, requires: [] });
});

test("an id of the caller's own is refused when it is none, and is a tenant's own", async () => {
  const [one, two] = [await server.tenant(), await server.tenant()];
  for (const id of ["", "tsk_1", `agt${chosenId().slice(3)}`, `${chosenId()}0`, chosenId().toUpperCase()]) {
    const refused = await one.post("/v1/tasks", { type: "a", id });
    expect([refused.status, refused.body.errors?.[0]?.path]).toEqual([400, "id"]);
  }
  const id = chosenId();
  await one.post("/v1/tasks", { type: "a", id });
  expect((await two.post("/v1/tasks", { type: "b", id })).status).toBe(201);
  expect((await one.get<{ task: Task }>(`/v1/tasks/${id}`)).body.task.type).toBe("a");
});

test("an idempotency key guards a batch and a registration too", async () => {
  const api = await server.tenant();
  const headers = { "idempotency-key": unique("key") };
  const batch = { tasks: [{ type: "a" }, { type: "b" }] };
  const ids = async () =>
    (await api.post<Batch>("/v1/tasks/batch", batch, headers)).body.results.map(({ task }) => task?.id);
  const first = await ids();
  expect(await ids()).toEqual(first);
  expect((await api.get<List>("/v1/tasks")).body.items).toHaveLength(2);
  const agent = { name: unique("a"), capabilities: [] };
  const own = { "idempotency-key": unique("key") };
  const [one, two] = [await api.post("/v1/agents", agent, own), await api.post("/v1/agents", agent, own)];
  expect([one.status, two.status]).toEqual([201, 201]);
  expect(two.text).toBe(one.text);
});

test("a key of 255 characters is taken, a longer one refused", async () => {
  const api = await server.tenant();
  const post = (length: number) => api.post("/v1/tasks", { type: "a" }, { "idempotency-key": "k".repeat(length) });
  expect((await post(255)).status).toBe(201);
  expect((await post(256)).status).toBe(400);
});

test("in a batch, one bad entry spoils no other, and the answers are in order", async () => {
  const api = await server.tenant();
  const { status, body } = await api.post<Batch>("/v1/tasks/batch", {
    tasks: [{ type: "a" }, { type: "b", priority: 99 }, { type: "c" }, 7, { type: "d", nonsense: 1 }],
  });
  expect(status).toBe(207);
  expect(body.results.map(({ task, problem }) => task?.type ?? problem?.status)).toEqual(["a", 400, "c", 400, 400]);
  const wrong = body.results[1]?.problem;
  expect(wrong?.code).toBe("request.invalid");
  expect(JSON.stringify(wrong?.errors)).toMatch(/priority/);
  expect((await api.get<List>("/v1/tasks")).body.items.map(({ type }) => type).sort()).toEqual(["a", "c"]);
});

test("in a batch, an entry whose JSON breaks a limit spoils no other", async () => {
  const api = await server.tenant();
  const bad = ['"\\ud800"', `${"[".repeat(70)}${"]".repeat(70)}`];
  const body = (more = "") =>
    `{"tasks":[{"type":"a","input":{ "n":1.0 }},${bad.map((input) => `{"type":"b","input":${input}}`)},{"type":"c"}]${more}}`;
  const { status, body: answer } = await api.raw<Batch>("POST", "/v1/tasks/batch", body());
  expect(status).toBe(207);
  const { results } = answer;
  expect(results.map(({ task, problem }) => (task ? "taken" : problem?.code))).toEqual([
    "taken",
    "request.invalid",
    "request.invalid",
    "taken",
  ]);
  expect(results[1]?.problem?.errors?.[0]?.path).toBe("input");
  const atomic = await api.raw("POST", "/v1/tasks/batch", body(',"atomic":true'));
  expect([atomic.status, atomic.body.errors?.[0]?.path]).toEqual([400, "tasks.1.input"]);
  const around = await api.raw("POST", "/v1/tasks/batch", body(',"more":"\\ud800"'));
  expect([around.status, around.body.errors?.[0]?.path]).toEqual([400, "more"]);
  expect((await api.get<{ items: unknown[] }>("/v1/tasks")).body.items).toHaveLength(2);
});

test("an atomic batch is taken whole or not at all", async () => {
  const api = await server.tenant();
  const bad = await api.post("/v1/tasks/batch", { atomic: true, tasks: [{ type: "a" }, { type: "" }] });
  expect(bad.status).toBeGreaterThanOrEqual(207);
  expect((await api.get<List>("/v1/tasks")).body.items).toEqual([]);
  const good = await api.post<Batch>("/v1/tasks/batch", { atomic: true, tasks: [{ type: "a" }, { type: "b" }] });
  expect(good.status).toBe(207);
  expect((await api.get<List>("/v1/tasks")).body.items).toHaveLength(2);
});

test("a batch holds 1 to 100 tasks", async () => {
  const api = await server.tenant();
  const post = (count: number) =>
    api.post<Batch>("/v1/tasks/batch", { tasks: Array.from({ length: count }, (_, n) => ({ type: `t${n}` })) });
  expect((await post(0)).status).toBe(400);
  expect((await post(101)).status).toBe(400);
  const full = await post(100);
  expect([full.status, full.body.results.length]).toEqual([207, 100]);
  expect(full.body.results.every(({ task }) => task !== undefined)).toBe(true);
});

test("tasks are listed newest first, by status, type, tag, agent and parent", async () => {
  const api = await server.tenant();
  const agent = await api.register({ capabilities: [{ name: "x" }] });
  const requires = [{ capability: "x" }];
  const done = await api.delegate({ type: "one", requires, tags: ["red", "blue"] });
  await agent.complete(await agent.take());
  const waiting = await api.delegate({ type: "two", delaySeconds: 600, tags: ["blue"] });
  const parent = await api.delegate({ type: "parent", requires });
  const held = await agent.take();
  const child = await agent.api.delegate({ type: "child", parentId: parent.id, delaySeconds: 600 });
  const lists = {
    "": [child, parent, waiting, done],
    "status=completed": [done],
    "status=scheduled": [child, waiting],
    "type=two": [waiting],
    "tag=blue": [waiting, done],
    "tag=red": [done],
    [`agentId=${agent.id}`]: [parent, done],
    [`parentId=${parent.id}`]: [child],
    "type=two&status=completed": [],
  };
  for (const [query, tasks] of Object.entries(lists))
    await listed(
      () => idsOf(api, query),
      (ids) => expect(ids, query).toEqual(tasks.map(({ id }) => id)),
    );
  expect(child).toMatchObject({ depth: 1, parentId: parent.id });
  await agent.complete(held);
});

test("a cursor walks every task once while new ones come in", async () => {
  const api = await server.tenant();
  const made: string[] = [];
  for (let n = 0; n < 9; n++) made.push((await api.delegate({ delaySeconds: 600 })).id);
  await listed(
    () => idsOf(api),
    (ids) => expect(ids).toHaveLength(9),
  );
  const seen: string[] = [];
  for (let cursor: string | undefined = ""; cursor !== undefined; ) {
    const query: string = cursor === "" ? "" : `&cursor=${encodeURIComponent(cursor)}`;
    const { body } = await api.get<List>(`/v1/tasks?limit=2${query}`);
    seen.push(...body.items.map(({ id }) => id));
    cursor = body.nextCursor;
    await api.delegate({ delaySeconds: 600 });
  }
  expect(seen.filter((id) => made.includes(id))).toEqual([...made].reverse());
  expect(new Set(seen).size).toBe(seen.length);
});

test("a page of a list that is filtered is full as long as there is more", async () => {
  const api = await server.tenant();
  for (let n = 0; n < 12; n++) await api.delegate({ type: n % 3 === 0 ? "rare" : "common", delaySeconds: 600 });
  await listed(
    () => idsOf(api, "type=rare"),
    (ids) => expect(ids).toHaveLength(4),
  );
  const { body } = await api.get<List>("/v1/tasks?type=rare&limit=3");
  expect(body.items).toHaveLength(3);
  const next = await api.get<List>(`/v1/tasks?type=rare&limit=3&cursor=${encodeURIComponent(body.nextCursor ?? "")}`);
  expect(next.body.items).toHaveLength(1);
  expect(next.body.nextCursor).toBeUndefined();
});
