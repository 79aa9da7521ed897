import type { Task } from "@waggle/sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openServer, remote, type TestServer } from "../support/api.ts";

let server: TestServer;
beforeAll(async () => {
  server = await openServer();
});
afterAll(() => server?.stop());

/** JSON that is lost or renamed when it is parsed and written again. */
const delicate: readonly string[] = [
  '{"a":1.0,"b":1e2,"c":-0,"d":0.10}',
  "12345678901234567890123",
  '{"__proto__":{"polluted":true},"constructor":{"prototype":1}}',
  '{"a":1,"a":2}',
  '"\\u0000\\u001f\\u00e9\\ud83d\\ude00/\\/"',
  '{"2":"b","1":"a","":null}',
  "[ 1 ,\t2 ]",
  "null",
  "false",
  '""',
  `"${"é😀".repeat(200)}"`,
  `${"[".repeat(60)}1${"]".repeat(60)}`,
];

test.each(delicate)("keeps the text of a payload exactly: %s", async (text) => {
  const api = await server.tenant();
  const created = await api.raw<{ task: { id: string } }>(
    "POST",
    "/v1/tasks",
    `{"type":"t","input":${text},"metadata":${text},"requires":[{"capability":"x"}]}`,
  );
  expect(created.status, created.text).toBe(201);
  const agent = await api.register({ capabilities: [{ name: "x" }] });
  const leased = await agent.api.raw("POST", `/v1/agents/${agent.id}/lease`, '{"waitSeconds":10}');
  expect(leased.text).toContain(`"input":${text}`);
  const { fence } = (JSON.parse(leased.text) as { assignments: { fence: number }[] }).assignments[0] as {
    fence: number;
  };
  const id = created.body.task.id;
  const done = await agent.api.raw("POST", `/v1/tasks/${id}/complete`, `{"fence":${fence},"result":${text}}`);
  expect(done.status, done.text).toBe(200);
  const read = await api.get(`/v1/tasks/${id}`);
  for (const name of ["input", "metadata", "result"]) expect(read.text).toContain(`"${name}":${text}`);
  const listed = await api.get("/v1/tasks");
  expect(listed.text).toContain(`"input":${text}`);
});

test("keeps the text of payloads in a batch exactly", async () => {
  const api = await server.tenant();
  const entries = delicate.map((text, index) => `{"type":"t${index}","input":${text}}`).join(",");
  const batch = await api.raw<{ results: { task: { id: string } }[] }>(
    "POST",
    "/v1/tasks/batch",
    `{"tasks":[${entries}]}`,
  );
  expect(batch.status, batch.text).toBe(207);
  for (const [index, { task }] of batch.body.results.entries()) {
    expect((await api.get(`/v1/tasks/${task.id}`)).text).toContain(`"input":${delicate[index]}`);
  }
});

test("an input above 64 KiB comes back whole", async () => {
  const api = await server.tenant();
  const big = { text: "aé".repeat(150_000), list: Array.from({ length: 1000 }, (_, n) => n) };
  const { id } = await api.delegate({ input: big, requires: [{ capability: "x" }] });
  expect((await api.task(id)).input).toEqual(big);
  const agent = await api.register({ capabilities: [{ name: "x" }] });
  const held = await agent.take();
  expect(held.task.input).toEqual(big);
  expect((await agent.complete(held, big)).status).toBe(200);
  expect((await api.task(id)).result).toEqual(big);
});

test("a body of more than 1 MiB is refused, and changes nothing", async () => {
  const api = await server.tenant();
  const { status, body } = await api.post("/v1/tasks", { type: "t", input: "x".repeat(1_100_000) });
  expect([status, body.code]).toEqual([413, "request.too_large"]);
  expect((await api.get<{ items: unknown[] }>("/v1/tasks")).body.items).toEqual([]);
});

const encode = (text: string) => new TextEncoder().encode(text);
const noText: readonly [string, Uint8Array][] = [
  ["bytes that are no UTF-8", new Uint8Array([...encode('{"type":"t","input":"'), 0xff, 0xfe, ...encode('"}')])],
  ["a UTF-8 surrogate half", new Uint8Array([...encode('{"type":"t","input":"'), 0xed, 0xa0, 0x80, ...encode('"}')])],
];
const refused: readonly [string, Uint8Array][] = [
  ["an escaped lone surrogate", encode('{"type":"t","input":"\\ud800"}')],
  ["surrogates the wrong way round", encode('{"type":"t","input":"\\udc00\\ud800"}')],
  ["text after the value", encode('{"type":"t"} {"type":"u"}')],
  ["half a value", encode('{"type":"t"')],
  ["nothing at all", encode(" ")],
  ["a list where an object belongs", encode("[]")],
  ["nesting without end", encode(`{"type":"t","input":${"[".repeat(5000)}${"]".repeat(5000)}}`)],
  ["NaN", encode('{"type":"t","input":NaN}')],
];
async function isRefused(_: string, bytes: Uint8Array): Promise<void> {
  const api = await server.tenant();
  const { status, body } = await api.raw("POST", "/v1/tasks", bytes);
  expect([status, body.code]).toEqual([400, "request.invalid"]);
  expect((await api.get<{ items: unknown[] }>("/v1/tasks")).body.items).toEqual([]);
}
test.each(refused)("%s is refused with 400", isRefused);
// A function URL hands a body on as text, in which such bytes have been replaced.
test.skipIf(remote).each(noText)("%s is refused with 400", isRefused);

test("a task is answered with its large input by whatever changes it, though no list shows it", async () => {
  const api = await server.tenant();
  const input = "x".repeat(100_000);
  const { id } = await api.delegate({ type: "large", input });
  const cancelled = await api.post<{ task: Task }>(`/v1/tasks/${id}/cancel`);
  expect([cancelled.body.task.status, cancelled.body.task.input]).toEqual(["cancelled", input]);
  const retried = await api.post<{ task: Task }>(`/v1/tasks/${id}/retry`);
  expect([retried.body.task.status, retried.body.task.input]).toEqual(["queued", input]);
  const again = await api.post<{ task: Task }>(`/v1/tasks/${id}/cancel`);
  const ended = await api.post<{ task: Task }>(`/v1/tasks/${id}/cancel`);
  expect(ended.body).toEqual(again.body);
  const { body } = await api.get<{ items: Task[] }>("/v1/tasks?type=large");
  expect(body.items.map((task) => [task.id, task.input])).toEqual([[id, undefined]]);
});

test("the large result that was recorded stays, whoever sends another: a stranger is refused, and the agent told what holds", async () => {
  const api = await server.tenant();
  const agent = await api.register({ capabilities: [{ name: "large" }] });
  const stranger = await api.register();
  const task = await api.delegate({ requires: [{ capability: "large" }] });
  const held = await agent.take();
  const [first, second] = ["x".repeat(100_000), "y".repeat(100_000)];
  const before = await stranger.complete(held, second);
  expect([before.status, before.body.code]).toEqual([404, "task.not_found"]);
  expect((await agent.complete(held, first)).body.task.result).toBe(first);
  expect((await stranger.complete(held, second)).status).toBe(404);
  const again = await agent.complete(held, second);
  expect([again.status, again.body.task.result]).toEqual([200, first]);
  expect((await api.task(task.id)).result).toBe(first);
});
