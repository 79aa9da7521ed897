import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Api, apiOf, unique } from "../support/api.ts";
import { eventually } from "../support/eventually.ts";
import { type Server, startServer } from "../support/server.ts";
import { dial, exchange } from "../support/wire.ts";

let server: Server;
let admin: Api;
beforeAll(async () => {
  server = await startServer();
  const root = apiOf(server.url, server.key);
  const { body } = await root.post<{ key: string }>("/v1/keys", { role: "admin", tenant: unique("wire") });
  admin = root.as(body.key);
});
afterAll(() => server?.stop());

const lines = (...all: string[]) => `${all.join("\r\n")}\r\n\r\n`;
const head = (first: string, ...more: string[]) =>
  lines(first, "Host: x", `Authorization: Bearer ${admin.key}`, "Content-Type: application/json", ...more);
const submit = (...more: string[]) => head("POST /v1/tasks HTTP/1.1", ...more);
const task = '{"type":"wire"}';
const close = "Connection: close";

/** The statuses of all answers, and whether each refusal is a problem. */
function answers(text: string): { statuses: number[]; problems: boolean } {
  const statuses = [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status));
  const refused = statuses.filter((status) => status >= 400).length;
  const problems = [...text.matchAll(/content-type: application\/problem\+json/gi)].length === refused;
  return { statuses, problems };
}

const tasks = async () => (await admin.get<{ items: unknown[] }>("/v1/tasks")).body.items.length;

/** What is sent, and the statuses of the answers; empty: the connection ends without one. */
const refused: readonly [string, () => (string | Uint8Array)[], readonly number[]][] = [
  ["two lengths", () => [submit("Content-Length: 15", "Content-Length: 16"), task], [400]],
  ["a length and chunks", () => [submit("Content-Length: 15", "Transfer-Encoding: chunked"), task], [400]],
  ["a negative length", () => [submit("Content-Length: -1"), task], [400]],
  ["a length that is no number", () => [submit("Content-Length: 1e1"), task], [400]],
  ["a length beyond all bounds", () => [submit("Content-Length: 99999999999999999999999"), task], [400]],
  ["an unknown transfer encoding", () => [submit("Transfer-Encoding: gzip"), task], [400]],
  ["a chunk of no size", () => [submit("Transfer-Encoding: chunked"), "zz\r\n{}\r\n0\r\n\r\n"], [400]],
  ["a chunk beyond all bounds", () => [submit("Transfer-Encoding: chunked"), "ffffffffffffffffff\r\n{}"], [400]],
  ["a chunk longer than it says", () => [submit("Transfer-Encoding: chunked"), `1\r\n${task}\r\n0\r\n\r\n`], [400]],
  [
    "a chunk with extensions without end",
    () => [submit("Transfer-Encoding: chunked"), `1;${"x".repeat(20_000)}`],
    [413],
  ],
  [
    "a body that is gzip",
    () => [submit("Content-Encoding: gzip", "Content-Length: 20", close), new Uint8Array(20)],
    [415],
  ],
  ["a body that says it is gzip", () => [submit("Content-Encoding: gzip", "Content-Length: 15", close), task], [415]],
  ["no Host", () => [lines("GET /health HTTP/1.1")], [400]],
  ["a Host that is none", () => [lines("GET /health HTTP/1.1", "Host: a b", close)], [400]],
  ["a Host with a path", () => [lines("GET /health HTTP/1.1", "Host: a/b", close)], [400]],
  ["an expectation", () => [submit("Expect: wonders", "Content-Length: 15"), task], [417]],
  ["a header without a colon", () => [lines("GET /health HTTP/1.1", "Host: x", "nonsense")], [400]],
  ["a space before the colon", () => [lines("GET /health HTTP/1.1", "Host: x", "A : b")], [400]],
  ["a NUL in a header", () => [lines("GET /health HTTP/1.1", "Host: x", "A: b\0c")], [400]],
  ["a bare carriage return in a header", () => [lines("GET /health HTTP/1.1", "Host: x", "A: b\rC: d")], [400]],
  ["16 KiB of headers", () => [lines("GET /health HTTP/1.1", "Host: x", ...Array(3000).fill("A: bcdefgh"))], [431]],
  ["a target of 20,000 characters", () => [lines(`GET /${"x".repeat(20_000)} HTTP/1.1`, "Host: x")], [431]],
  ["a target with a space", () => [lines("GET /a b HTTP/1.1", "Host: x")], [400]],
  ["another version", () => [lines("GET /health HTTP/9.9", "Host: x")], [400]],
  ["an unknown method", () => [lines("FETCH /health HTTP/1.1", "Host: x")], [400]],
  ["TRACE", () => [lines("TRACE /health HTTP/1.1", "Host: x", close)], [405]],
  [
    "another protocol asked for, and the length of the body behind a hundred headers",
    () => [
      submit("Connection: Upgrade", "Upgrade: h2c", ...Array(200).fill("X: y"), `Content-Length: ${task.length}`),
      task,
    ],
    [431],
  ],
  ["CONNECT", () => [lines("CONNECT example.com:443 HTTP/1.1", "Host: x")], [405]],
  ["TLS", () => [Buffer.from("16030100e0010000dc0303", "hex"), new Uint8Array(300)], [400]],
  ["HTTP/2 by prior knowledge", () => ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], [400]],
  [
    "a WebSocket without a key",
    () => [lines("GET /v1/agents/x/connect HTTP/1.1", "Host: x", "Connection: Upgrade", "Upgrade: websocket")],
    [401],
  ],
  ["nothing but line ends", () => ["\r\n".repeat(20_000)], []],
];

describe("bytes that are not a request this server takes", () => {
  test.each(refused)("%s: one problem, an end, and nothing changed", async (_, parts, statuses) => {
    const before = await tasks();
    const { text, closed } = await exchange(server.url, parts(), { halfClose: true });
    expect({ ...answers(text), closed }).toEqual({ statuses, problems: true, closed: true });
    expect(await tasks()).toBe(before);
  });
});

test("a body longer than its length is a request and rubbish, not a longer body", async () => {
  const before = await tasks();
  const { text } = await exchange(server.url, [submit(`Content-Length: ${task.length}`), `${task}${task}`]);
  expect(answers(text)).toEqual({ statuses: [201, 400], problems: true });
  expect(await tasks()).toBe(before + 1);
});

test("a body that ends before its length, or before its last chunk, is no task", async () => {
  const before = await tasks();
  for (const sent of [
    [submit("Content-Length: 100"), task],
    [submit("Transfer-Encoding: chunked"), `f\r\n${task}\r\n`],
  ]) {
    const { text, closed } = await exchange(server.url, sent, { halfClose: true });
    expect(answers(text).statuses.filter((status) => status < 400)).toEqual([]);
    expect(closed).toBe(true);
  }
  expect(await tasks()).toBe(before);
});

test("a body that comes byte by byte is a task like any other", async () => {
  const chunks = [...task].map((char) => `1\r\n${char}\r\n`);
  const { text } = await exchange(server.url, [submit("Transfer-Encoding: chunked", close), ...chunks, "0\r\n\r\n"]);
  expect(answers(text).statuses).toEqual([201]);
});

test("a compressed body is not unpacked: 100 MiB of zeros in 100 KiB cost no memory", async () => {
  const bomb = gzipSync(Buffer.alloc(100 * 1024 * 1024), { level: 9 });
  const { text } = await exchange(server.url, [
    submit("Content-Encoding: gzip", `Content-Length: ${bomb.length}`, close),
    bomb,
  ]);
  expect(answers(text)).toEqual({ statuses: [415], problems: true });
});

test("requests sent without waiting are answered in order, each once", async () => {
  const paths = Array.from({ length: 200 }, (_, n) => (n % 2 ? "/health" : `/nowhere/${n}`));
  const all = paths.map((path, n) => head(`GET ${path} HTTP/1.1`, ...(n === paths.length - 1 ? [close] : [])));
  const { text } = await exchange(server.url, [all.join("")]);
  expect(answers(text)).toEqual({ statuses: paths.map((_, n) => (n % 2 ? 200 : 404)), problems: true });
});

test("what comes while an event stream is sent does not appear in it", async () => {
  const socket = await dial(server.url);
  let text = "";
  socket.setEncoding("latin1").on("data", (chunk: string) => {
    text += chunk;
  });
  const closed = new Promise((resolve) => socket.once("close", resolve));
  socket.write(head("GET /v1/events HTTP/1.1", "Accept: text/event-stream"));
  await eventually("the stream begins", () => text.includes("retry:"));
  socket.write("rubbish\r\n\r\n");
  await closed;
  expect(answers(text).statuses).toEqual([200]);
});

test("a request that asks for another protocol is answered in this one, body included, in its turn", async () => {
  const before = await tasks();
  const other = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"];
  const { text } = await exchange(server.url, [
    head("GET /nowhere HTTP/1.1"),
    submit(...other, `Content-Length: ${task.length}`),
    task,
    head("GET /health HTTP/1.1", "Connection: Upgrade, close", "Upgrade: TLS/1.0"),
  ]);
  expect(answers(text)).toEqual({ statuses: [404, 201, 200], problems: true });
  expect(await tasks()).toBe(before + 1);
});

test("HTTP/1.0 without a Host is answered: load balancers ask so", async () => {
  const { text } = await exchange(server.url, ["GET /health HTTP/1.0\r\n\r\n"]);
  expect(answers(text).statuses).toEqual([200]);
});
