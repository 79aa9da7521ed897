import { connect } from "node:net";
import { beforeAll, describe, expect, test } from "vitest";
import { good, startApi, type TestApi, unique } from "./support.ts";

let api: TestApi;
beforeAll(async () => {
  api = await startApi();
});

/** What a server answers to exactly these bytes, until it closes the connection. */
const raw = (...parts: (string | Buffer)[]): Promise<string> =>
  new Promise((resolve, reject) => {
    const { hostname, port } = new URL(api.url);
    const socket = connect(Number(port), hostname, () => {
      for (const part of parts) socket.write(part);
    });
    let text = "";
    socket.setEncoding("latin1").on("data", (chunk) => {
      text += chunk;
    });
    socket.on("close", () => resolve(text)).on("error", (error) => (text ? resolve(text) : reject(error)));
  });
const head = (line: string, headers: string[]) =>
  `${[line, "Host: x", `Authorization: Bearer ${api.adminKey}`, "Connection: close", ...headers].join("\r\n")}\r\n\r\n`;

const wide = Object.fromEntries(Array.from({ length: 100_000 }, (_, n) => [`${n}`, 0]));

describe("a wrong request is refused with what and where", () => {
  test.each([
    ["an unknown field", { type: "a", colour: "red" }, "colour", "unknown field"],
    ["an unknown field further down", { type: "a", retry: { tries: 1 } }, "retry.tries", "unknown field"],
    ["a field named __proto__", JSON.parse('{"type":"a","__proto__":{"x":1}}'), "__proto__", /^unknown field$/],
    ["a missing field", {}, "type", /required: expected string/],
    ["a wrong type", { type: 7 }, "type", /expected string, received number/],
    ["a wrong type in a list", { type: "a", tags: ["x", null] }, "tags.1", /expected string, received null/],
    ["a number out of range", { type: "a", priority: 10 }, "priority", /<=9/],
    ["a fraction", { type: "a", priority: 1.5 }, "priority", /int/],
    ["a word that is none of the choices", { type: "a", strategy: "magic" }, "strategy", /"best_fit"/],
    ["two ways to start", { type: "a", delaySeconds: 1, notBefore: "2030-01-01T00:00:00Z" }, "notBefore", /not both/],
    ["a time that is none", { type: "a", notBefore: "tomorrow" }, "notBefore", /^expected an RFC 3339 time/],
    [
      "a value of no fitting type",
      { type: "a", labels: [{ key: "k", op: "eq", value: {} }] },
      "labels.0.value",
      /string or number/,
    ],
    ["a dependency that is not there", { type: "a", dependsOn: ["tsk_x"] }, "dependsOn.0", /no task/],
    ["a list as body", [], "", /expected object/],
    ["a number too small to store", { type: "a", cancelGraceSeconds: 5e-324 }, "cancelGraceSeconds", /1e-130/],
    [
      "a number too large to store",
      { type: "a", labels: [{ key: "k", op: "gt", value: 1e200 }] },
      "labels.0.value",
      /below 1e126/,
    ],
    ["a NUL in the id of an agent", { type: "a", agentId: "a\0" }, "agentId", /no control characters/],
    ["a NUL in the id of a parent", { type: "a", parentId: "\0" }, "parentId", /no control characters/],
    ["a NUL in a dependency", { type: "a", dependsOn: ["\0"] }, "dependsOn.0", /no control characters/],
    ["more members than any schema has", { type: "a", retry: wide }, "retry", /at most 1000 members, not 100000/],
  ])("%s", async (_, body, path, message) => {
    const reply = await api.call("POST", "/v1/tasks", { raw: JSON.stringify(body) });
    expect(reply.status, reply.text).toBe(400);
    expect(reply.headers.get("content-type")).toBe("application/problem+json");
    const found = reply.body.errors.find((error: { path: string }) => error.path === path);
    expect(found?.message, reply.text).toMatch(message);
  });

  test("names every wrong field at once", async () => {
    const reply = await api.call("POST", "/v1/tasks", { body: { priority: "high", x: 1 } });
    expect(reply.body.errors.map(({ path }: { path: string }) => path).sort()).toEqual(["priority", "type", "x"]);
  });

  test("a delivery of an unknown type", async () => {
    const body = { name: unique("d"), capabilities: [], delivery: { type: "pigeon" } };
    const reply = await api.call("POST", "/v1/agents", { body });
    expect(reply.body.errors).toEqual([{ path: "delivery.type", message: expect.stringContaining("pull") }]);
  });

  test.each([
    ["what is not JSON", '{"type":', ""],
    ["nothing", "", ""],
    [
      "too many levels",
      `{"type":"a","input":${"[".repeat(64)}${"]".repeat(64)}}`,
      "input.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0",
    ],
    ["a lone surrogate", '{"type":"a","input":["\\ud800"]}', "input.0"],
    ["bytes that are not UTF-8", Buffer.from('{"type":"\xff"}', "latin1"), ""],
    ["a surrogate in CESU-8", Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22]), ""],
  ])("%s", async (_, content, path) => {
    const reply = await api.call("POST", "/v1/tasks", {
      raw: content,
      headers: { "content-type": "application/json" },
    });
    expect([reply.status, reply.body.code, reply.body.errors[0].path]).toEqual([400, "request.invalid", path]);
  });

  test.each([
    ["unknown", "?colour=red", "colour"],
    ["given twice", "?limit=1&limit=2", "limit"],
    ["empty", "?limit=", "limit"],
    ["no number", "?limit=0x10", "limit"],
    ["out of range", "?limit=201", "limit"],
    ["none of the choices", "?status=sleeping", "status"],
    ["not UTF-8", "?type=%ff", ""],
    ["a cursor of somewhere else", "?cursor=bm9wZQ", "cursor"],
    ["a cursor of no place", `?cursor=${btoa("tasks:")}`, "cursor"],
    ["a cursor longer than any place", `?cursor=${btoa(`tasks:${"a".repeat(1025)}`)}`, "cursor"],
    ["a cursor with a NUL", `?cursor=${btoa("tasks:%00")}`, "cursor"],
    ["named as what every object has", "?constructor=1", "constructor"],
    ["named __proto__", "?__proto__=1", "__proto__"],
    ["an id with a NUL", "?agentId=%00", "agentId"],
  ])("a query parameter that is %s", async (_, query, path) => {
    const reply = await api.call("GET", `/v1/tasks${query}`);
    expect([reply.status, reply.body.code, reply.body.errors[0].path]).toEqual([400, "request.invalid", path]);
  });

  test.each(["task.craeted", "task.created,agents.*"])(
    "a filter of events by %s, which no event has",
    async (types) => {
      const reply = await api.call("GET", `/v1/events?types=${types}`);
      expect([reply.status, reply.body.errors[0].path]).toEqual([400, "types"]);
      expect(reply.body.errors[0].message).toContain(types.split(",").at(-1));
    },
  );

  test("a query where none is taken", async () => {
    expect((await api.call("GET", "/health?verbose=1", { key: null })).status).toBe(400);
  });

  test.each(["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1", ""])(
    "a body of type %j with 415",
    async (type) => {
      const reply = await api.call("POST", "/v1/tasks", { body: { type: "a" }, headers: { "content-type": type } });
      expect([reply.status, reply.body.code]).toEqual([415, "request.unsupported_media_type"]);
    },
  );

  test.each(["; charset=UTF-8", ';charset="utf-8"', "; charset=utf8", ";"])(
    "takes JSON in UTF-8 of type …%s",
    async (more) => {
      const headers = { "content-type": `application/json${more}` };
      good(201, await api.call("POST", "/v1/tasks", { body: { type: "a" }, headers }));
    },
  );

  test.each(["%E0%A4", "100%"])(
    "a path with %s, which is no encoded UTF-8, and makes nothing of that name",
    async (key) => {
      const reply = await api.call("PUT", `/v1/limits/${key}`, { body: { concurrency: 1 } });
      expect([reply.status, reply.body.code, reply.body.errors[0].path]).toEqual([400, "request.invalid", "key"]);
      const { limit } = good(200, await api.call("PUT", "/v1/limits/100%25", { body: { concurrency: 1 } }));
      expect(limit.key).toBe("100%");
    },
  );

  test.each(["", "a\0b", " x"])("a key named %j", async (name) => {
    const reply = await api.call("POST", "/v1/keys", { body: { role: "reader", name } });
    expect([reply.status, reply.body.errors[0].path]).toEqual([400, "name"]);
  });

  test.each(["", "a".repeat(256), "tab\there"])("an Idempotency-Key of %j", async (key) => {
    const sent = head("POST /v1/tasks HTTP/1.1", [
      "Content-Type: application/json",
      "Content-Length: 12",
      `Idempotency-Key: ${key}`,
    ]);
    const answer = await raw(sent, '{"type":"a"}');
    expect(answer).toMatch(/^HTTP\/1\.1 400 /);
    expect(answer).toContain('"path":"Idempotency-Key"');
  });
});

describe("what is not there", () => {
  test.each([
    ["GET", "/nowhere", "route.not_found"],
    ["GET", "/v1/workflows", "route.not_found"],
    ["GET", "/v1/tasks/", "route.not_found"],
    ["GET", "/v1/tasks/tsk_0000000000000000000000", "task.not_found"],
    ["GET", "/v1/tasks/garbage", "task.not_found"],
    ["GET", `/v1/tasks/${"x".repeat(3000)}`, "task.not_found"],
    ["GET", "/v1/tasks/%00", "task.not_found"],
    ["GET", "/v1/tasks/%E0%A4%A", "task.not_found"],
    ["GET", "/v1/tasks/..%2f..%2fetc", "task.not_found"],
    ["GET", "/v1/agents/tsk_0000000000000000000000", "agent.not_found"],
    ["DELETE", "/v1/keys/agt_0000000000000000000000", "key.not_found"],
    ["POST", "/v1/tasks/garbage/cancel", "task.not_found"],
  ])("%s %s is 404", async (method, path, code) => {
    const reply = await api.call(method, path);
    expect([reply.status, reply.body.code]).toEqual([404, code]);
  });

  test.each([
    ["PUT", "/v1/tasks", "GET, HEAD, POST, OPTIONS"],
    ["POST", "/health", "GET, HEAD, OPTIONS"],
    ["DELETE", "/v1/tasks/tsk_0000000000000000000000", "GET, HEAD, OPTIONS"],
  ])("%s %s is 405 and says what is possible", async (method, path, allow) => {
    const reply = await api.call(method, path);
    expect([reply.status, reply.body.code]).toEqual([405, "route.method_not_allowed"]);
    expect(reply.headers.get("allow")?.split(", ").sort()).toEqual(allow.split(", ").sort());
  });

  test("OPTIONS says what is possible, HEAD what GET would", async () => {
    const options = await api.call("OPTIONS", "/v1/tasks", { key: null });
    expect([options.status, options.headers.get("allow")]).toEqual([204, "POST, GET, HEAD, OPTIONS"]);
    const { status, headers, text } = await api.call("HEAD", "/v1/status");
    expect([status, headers.get("content-type"), text]).toEqual([200, "application/json", ""]);
    const stream = await api.call("HEAD", "/v1/events", { headers: { accept: "text/event-stream" } });
    expect([stream.status, stream.headers.get("content-type")]).toEqual([200, "text/event-stream"]);
  });

  test("a plain GET of the WebSocket is 426", async () => {
    const agent = await api.agent();
    const reply = await api.call("GET", `/v1/agents/${agent.id}/connect`, { key: agent.token });
    expect([reply.status, reply.body.code]).toEqual([426, "request.upgrade_required"]);
    expect([reply.headers.get("upgrade"), reply.headers.get("connection")]).toEqual(["websocket", "Upgrade"]);
  });
});

describe("a state that does not allow it", () => {
  test("is 409 with what stands in the way", async () => {
    const name = unique("twice");
    await api.agent({ name });
    const again = await api.call("POST", "/v1/agents", { body: { name, capabilities: [] } });
    expect([again.status, again.body.code]).toEqual([409, "agent.exists"]);
    const { id } = await api.task({ requires: [{ capability: unique("none") }] });
    const retried = await api.call("POST", `/v1/tasks/${id}/retry`);
    expect([retried.status, retried.body.code]).toEqual([409, "task.not_retryable"]);
  });

  test("a stale fence is 409 with the task as it is", async () => {
    const key = await api.key("admin", unique("f"));
    const agent = await api.agent({}, key);
    const { id } = await api.task({}, key);
    const { fence } = await api.lease(agent);
    const as = { key: agent.token };
    good(200, await api.call("POST", `/v1/tasks/${id}/release`, { ...as, body: { fence } }));
    await api.lease(agent);
    const stale = await api.call("POST", `/v1/tasks/${id}/complete`, { ...as, body: { fence } });
    expect([stale.status, stale.body.code, stale.body.task.id]).toEqual([409, "task.lease_lost", id]);
  });
});

test("a task too large for a row is 413, and in a batch spoils no other", async () => {
  const large = { type: "a", metadata: "x".repeat(500_000) };
  const alone = await api.call("POST", "/v1/tasks", { body: large });
  expect([alone.status, alone.body.code, alone.body.errors[0].path]).toEqual([413, "store.item_too_large", "metadata"]);
  const batch = await api.call("POST", "/v1/tasks/batch", { body: { tasks: [{ type: "a" }, large, { type: "b" }] } });
  const codes = good(207, batch).results.map((result: { problem?: { code: string } }) => result.problem?.code);
  expect(codes).toEqual([undefined, "store.item_too_large", undefined]);
});

describe("a body above 1 MiB is 413", () => {
  const large = Buffer.alloc(1024 * 1024 + 1, " ");

  test("by its length, before it is sent", async () => {
    const lines = ["Content-Type: application/json", `Content-Length: ${large.length}`];
    expect(await raw(head("POST /v1/tasks HTTP/1.1", lines))).toMatch(/^HTTP\/1\.1 413 [\s\S]*request\.too_large/);
  });

  test("in chunks, while it is sent", async () => {
    const lines = ["Content-Type: application/json", "Transfer-Encoding: chunked"];
    const chunk = Buffer.concat([Buffer.from("80000\r\n"), Buffer.alloc(0x80000, " "), Buffer.from("\r\n")]);
    const answer = await raw(head("POST /v1/tasks HTTP/1.1", lines), chunk, chunk, chunk);
    expect(answer).toMatch(/^HTTP\/1\.1 413 [\s\S]*request\.too_large/);
  });

  test("and one of exactly 1 MiB is read", async () => {
    const start = '{"type":"a","input":"';
    const text = `${start}${"x".repeat(1024 * 1024 - start.length - 2)}"}`;
    expect(good(201, await api.call("POST", "/v1/tasks", { raw: text })).task.status).toBe("queued");
  });
});

describe("what is not HTTP", () => {
  test("is answered with a problem and an end", async () => {
    expect(await raw("NONSENSE\r\n\r\n")).toMatch(/^HTTP\/1\.1 400 [\s\S]*application\/problem\+json/);
    expect(await raw(head("GET /health HTTP/1.1", [`X: ${"y".repeat(20_000)}`]))).toMatch(/^HTTP\/1\.1 431 /);
  });

  const own = "X-Request-Id: mine";
  const upgrade = ["Connection: Upgrade", "Upgrade: websocket"];
  test.each([
    ["not HTTP at all", () => "NONSENSE\r\n\r\n", /^req_\w{22}$/],
    ["without a Host", () => `GET /health HTTP/1.1\r\n${own}\r\n\r\n`, /^mine$/],
    ["with an unknown Expect", () => head("GET /health HTTP/1.1", ["Expect: more", own]), /^mine$/],
    ["for another server", () => head("CONNECT a:1 HTTP/1.1", [own]), /^mine$/],
    ["to a socket that is not there", () => head("GET /v1/x HTTP/1.1", [...upgrade, own]), /^mine$/],
  ])("carries a request id, in the problem too, and its time: %s", async (_, request, id) => {
    const answer = await raw(request());
    expect(/^x-request-id: (.+)$/im.exec(answer)?.[1]?.trim()).toMatch(id);
    expect(/"requestId":"(.+?)"/.exec(answer)?.[1]).toMatch(id);
    expect(answer).toMatch(/^server-timing: app;dur=\d+\.\d\d\r$/im);
  });
});

describe("every answer", () => {
  test("carries the caller's request id, or a new one when that is unfit", async () => {
    const call = (id?: string) =>
      api.call("GET", "/v1/status", id === undefined ? {} : { headers: { "x-request-id": id } });
    expect((await call("my id-1")).headers.get("x-request-id")).toBe("my id-1");
    for (const unfit of [undefined, "é", "x".repeat(129)])
      expect((await call(unfit)).headers.get("x-request-id")).toMatch(/^req_\w{22}$/);
    const refused = await api.call("GET", "/v1/tasks/x", { headers: { "x-request-id": "mine" } });
    expect(refused.body.requestId).toBe("mine");
    expect(refused.headers.get("x-request-id")).toBe("mine");
  });

  test("says how long it took and carries the trace into tasks", async () => {
    const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const reply = await api.call("POST", "/v1/tasks", { body: { type: "a" }, headers: { traceparent } });
    expect(reply.headers.get("server-timing")).toMatch(/^app;dur=\d+\.\d\d$/);
    expect(good(201, reply).task.traceparent).toBe(traceparent);
    const [, trace, span] = traceparent.split("-");
    for (const unfit of [
      "00-x",
      `ff-${trace}-${span}-01`,
      `00-${"0".repeat(32)}-${span}-01`,
      `00-${trace}-${"0".repeat(16)}-01`,
    ]) {
      const reply = await api.call("POST", "/v1/tasks", { body: { type: "a" }, headers: { traceparent: unfit } });
      expect(good(201, reply).task.traceparent).toBeUndefined();
    }
  });
});
