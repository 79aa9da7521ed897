import { connect } from "node:net";
import { createServer, type RunningServer } from "@waggle/api";
import { idempotencyKey, Key } from "@waggle/core";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import { openSystem, type System } from "../../../test/support/system.ts";
import { eventually } from "./support.ts";

/** What takes seconds or a day, with a clock in hand. */
let system: System;
let server: RunningServer;
let key: string;
beforeEach(async () => {
  system = await openSystem();
  key = await Key.bootstrap(system.engine.ports);
  server = await createServer({ ports: system.engine.ports, version: "1" });
});
afterEach(async () => {
  await server.close({ graceSeconds: 0.1 });
  await system.close();
});

const call = async (method: string, path: string, body?: object, headers: Record<string, string> = {}) => {
  const response = await fetch(server.url + path, {
    method,
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json", ...headers },
    ...(body && { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  // biome-ignore lint/suspicious/noExplicitAny: each test knows what it asked for
  return { status: response.status, headers: response.headers, body: (text ? JSON.parse(text) : undefined) as any };
};
const register = async () => (await call("POST", "/v1/agents", { name: "a", capabilities: [] })).body;

describe("an Idempotency-Key", () => {
  const headers = { "idempotency-key": "k1" };
  const body = { name: "one", capabilities: [] };

  test.each([
    ["an agent", "/v1/agents", body],
    ["a task", "/v1/tasks", { type: "a" }],
  ])("of %s is kept for 24 h and then free", async (_, path, content) => {
    expect((await call("POST", path, content, headers)).status).toBe(201);
    system.clock.advance(24 * 3600 * 1000 - 1000);
    expect((await call("POST", path, content, headers)).headers.get("idempotency-replayed")).toBe("true");
    system.clock.advance(2000);
    const later = await call("POST", path, content, headers);
    expect(later.headers.has("idempotency-replayed")).toBe(false);
    expect(later.body.code ?? later.body.task.status).toBe(path === "/v1/agents" ? "agent.exists" : "queued");
  });

  test("whose first call died midway may be used again after 30 s", async () => {
    const { store } = system.engine.ports;
    const row = idempotencyKey("default", "k1");
    expect((await call("POST", "/v1/agents", body, headers)).status).toBe(201);
    await call("DELETE", `/v1/agents/${(await call("GET", "/v1/agents")).body.items[0].id}?mode=force`);
    // As the process leaves it that dies before it answers.
    const changed = await store.write({
      update: row,
      kind: "idempotency",
      set: { state: "pending" },
      remove: ["answer"],
    });
    expect(changed.ok).toBe(true);
    const busy = await call("POST", "/v1/agents", body, headers);
    expect([busy.status, busy.body.code, busy.headers.get("retry-after")]).toEqual([
      409,
      "idempotency.in_progress",
      "30",
    ]);
    system.clock.advance(30_000);
    const again = await call("POST", "/v1/agents", body, headers);
    expect([again.status, again.headers.has("idempotency-replayed")]).toEqual([201, false]);
    expect((await call("POST", "/v1/agents", body, headers)).body).toEqual(again.body);
  });

  test("used twice at once makes one agent", async () => {
    const all = await Promise.all(Array.from({ length: 8 }, () => call("POST", "/v1/agents", body, headers)));
    const made = all.filter(({ status }) => status === 201);
    expect(made.filter((reply) => !reply.headers.has("idempotency-replayed"))).toHaveLength(1);
    const others = all.filter(({ status }) => status !== 201);
    expect(others.every(({ body }) => body.code === "idempotency.in_progress")).toBe(true);
    expect((await call("GET", "/v1/agents")).body.items).toHaveLength(1);
  });
});

describe("a WebSocket", () => {
  const open = async ({ agent, token }: { agent: { id: string }; token: string }) => {
    const ws = new WebSocket(`${server.url.replace("http", "ws")}/v1/agents/${agent.id}/connect`, ["waggle.v1"], {
      headers: { authorization: `Bearer ${token}` },
    });
    const closed = new Promise<number>((resolve) => ws.once("close", resolve));
    await new Promise((resolve, reject) => ws.once("open", resolve).once("error", reject));
    return { ws, closed };
  };
  const hello = async (ws: WebSocket) => {
    const welcomed = new Promise((resolve) => ws.once("message", resolve));
    ws.send('{"op":"hello"}');
    await welcomed;
  };

  test("without a hello is closed after 10 s", async () => {
    const { closed } = await open(await register());
    system.clock.advance(10_000);
    expect(await closed).toBe(1008);
  });

  test("is pinged, and keeps its agent alive for as long as it answers", async () => {
    const registered = await register();
    const { ws } = await open(registered);
    await hello(ws);
    let pings = 0;
    ws.on("ping", () => pings++);
    system.clock.advance(10_000);
    for (let i = 1; i <= 20; i++) {
      await eventually(() => (pings >= i ? true : undefined));
      await system.quiet();
      // The pong is on its way: it is in once a frame sent after it is answered.
      const answered = new Promise((resolve) => ws.once("message", resolve));
      ws.send('{"op":"heartbeat","re":1}');
      await answered;
      system.clock.advance(15_000);
    }
    expect((await call("GET", `/v1/agents/${registered.agent.id}`)).body.agent.status).toBe("ready");
    ws.terminate();
  });

  test("whose peer answers no ping is cut", async () => {
    const { agent, token } = await register();
    const { hostname, port } = new URL(server.url);
    const socket = connect(Number(port), hostname);
    const closed = new Promise((resolve) => socket.once("close", resolve));
    socket.on("error", () => {});
    socket.write(
      `GET /v1/agents/${agent.id}/connect HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n` +
        `Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer ${token}\r\n\r\n`,
    );
    await new Promise((resolve) => socket.once("data", resolve));
    const frame = Buffer.from('{"op":"hello"}');
    socket.write(Buffer.concat([Buffer.from([0x81, 0x80 | frame.length, 0, 0, 0, 0]), frame]));
    await new Promise((resolve) => socket.once("data", resolve));
    system.clock.advance(10_000);
    system.clock.advance(15_000);
    await closed;
  });

  test("is closed when its token is no longer valid", async () => {
    const registered = await register();
    const { ws, closed } = await open(registered);
    await hello(ws);
    const { hashOf } = await import("../../core/src/secret.ts");
    const { bearerKey } = await import("../../core/src/rows.ts");
    system.damaged.add("agent.token");
    await system.engine.ports.store.write({ delete: bearerKey(hashOf(registered.token)) });
    system.clock.advance(10_000);
    expect(await closed).toBe(1008);
  });
});

describe("an event stream", () => {
  test("sends a comment every 15 s, and ends when its key is revoked", async () => {
    const made = (await call("POST", "/v1/keys", { role: "reader" })).body;
    const response = await fetch(`${server.url}/v1/events?types=agent.lost`, {
      headers: { authorization: `Bearer ${made.key}`, accept: "text/event-stream" },
    });
    let text = "";
    let ended = false;
    const reading = (async () => {
      const decoder = new TextDecoder();
      for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) text += decoder.decode(chunk);
      ended = true;
    })();
    for (let comments = 1; comments <= 3; comments++) {
      await eventually(() => {
        system.clock.advance(15_000);
        return text.split("\n").filter((line) => line === ":").length >= comments ? true : undefined;
      });
    }
    await call("DELETE", `/v1/keys/${made.id}`);
    await eventually(() => {
      system.clock.advance(15_000);
      return ended || undefined;
    });
    await reading;
  });

  test("of a task ends when the task is deleted", async () => {
    const { id } = (await call("POST", "/v1/tasks", { type: "t" })).body.task;
    await call("POST", `/v1/tasks/${id}/cancel`, {});
    const response = await fetch(`${server.url}/v1/tasks/${id}/events`, {
      headers: { authorization: `Bearer ${key}`, accept: "text/event-stream" },
    });
    let ended = false;
    const reading = response.text().then((text) => {
      ended = true;
      return text;
    });
    await system.pass(120);
    expect((await call("PUT", "/v1/retention", { taskSeconds: 60 })).status).toBe(200);
    await eventually(async () => {
      system.clock.advance(5_000);
      await system.quiet();
      return ended || undefined;
    });
    expect((await call("GET", `/v1/tasks/${id}`)).status).toBe(404);
    expect(await reading).toContain("task.cancelled");
  });

  test("tells nothing more to whose key another process revoked, once it has looked", async () => {
    const made = (await call("POST", "/v1/keys", { role: "reader" })).body;
    const response = await fetch(`${server.url}/v1/events?types=task.created`, {
      headers: { authorization: `Bearer ${made.key}`, accept: "text/event-stream" },
    });
    let text = "";
    const reading = (async () => {
      const decoder = new TextDecoder();
      for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) text += decoder.decode(chunk);
    })();
    const submit = async () => (await call("POST", "/v1/tasks", { type: "t" })).body.task.id as string;
    const told = async () => {
      const id = await submit();
      await eventually(() => text.includes(id) || undefined);
    };
    await told();
    system.clock.advance(10_000);
    await told();
    const { hashOf } = await import("../../core/src/secret.ts");
    const { bearerKey } = await import("../../core/src/rows.ts");
    await system.engine.ports.store.write({ delete: bearerKey(hashOf(made.key)) });
    system.damaged.add("key.bearer");
    system.clock.advance(6_000);
    const id = await submit();
    await reading;
    expect(text).not.toContain(id);
  });
});
