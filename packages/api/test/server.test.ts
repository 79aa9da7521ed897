import { getEventListeners, once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { getRequestListener } from "@hono/node-server";
import { createApp, createServer, type RunningServer } from "@waggle/api";
import { type Engine, forget, Key, type Live } from "@waggle/core";
import { openEmbedded } from "@waggle/engine-embedded";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import { eventually } from "./support.ts";

let dataDir: string;
let engine: Engine;
let server: RunningServer | undefined;
let key: string;
beforeEach(async () => {
  dataDir = mkdtempSync(join(tmpdir(), "waggle-api-"));
  const opened = await openEmbedded({ dataDir });
  opened.onReset(() => forget(opened.ports));
  engine = opened;
  key = await Key.bootstrap(engine.ports);
});
afterEach(async () => {
  await server?.close({ graceSeconds: 0.1 });
  server = undefined;
  await engine.close();
  rmSync(dataDir, { recursive: true, force: true });
});
const start = async () => {
  server = await createServer({ ports: engine.ports, version: "1" });
  return server;
};
const headers = () => ({ authorization: `Bearer ${key}`, "content-type": "application/json" });
const post = async (url: string, path: string, body: object) =>
  (await fetch(url + path, { method: "POST", headers: headers(), body: JSON.stringify(body) })).json() as Promise<
    // biome-ignore lint/suspicious/noExplicitAny: each test knows what it asked for
    any
  >;

/** A connection on which this was said. */
function dial(url: string, text: string) {
  const { hostname, port } = new URL(url);
  const socket = connect({ host: hostname, port: Number(port), allowHalfOpen: true });
  socket.on("error", () => {});
  socket.write(text);
  return socket;
}

describe("a server that stops", () => {
  test("answers what waits, tells streams and agents, and takes no more", async () => {
    const { url, close } = await start();
    const { task } = await post(url, "/v1/tasks", { type: "a", requires: [{ capability: "nobody has" }] });
    const { agent, token } = await post(url, "/v1/agents", { name: "a", capabilities: [{ name: "x" }], role: "r" });
    const other = await post(url, "/v1/agents", { name: "b", capabilities: [] });
    const waiting = fetch(`${url}/v1/tasks/${task.id}?waitSeconds=20`, { headers: headers() });
    const leasing = fetch(`${url}/v1/agents/${other.agent.id}/lease`, {
      method: "POST",
      headers: { ...headers(), authorization: `Bearer ${other.token}` },
      body: '{"waitSeconds":20}',
    });
    const stream = await fetch(`${url}/v1/events`, { headers: { ...headers(), accept: "text/event-stream" } });
    const ws = new WebSocket(`${url.replace("http", "ws")}/v1/agents/${agent.id}/connect`, ["waggle.v1"], {
      headers: { authorization: `Bearer ${token}` },
    });
    const closed = new Promise<number>((resolve) => ws.once("close", resolve));
    const welcomed = new Promise((resolve) => ws.once("message", resolve));
    await new Promise((resolve) => ws.once("open", resolve));
    ws.send('{"op":"hello"}');
    await welcomed;
    await eventually(async () => {
      const answer = await fetch(`${url}/v1/agents?limit=10`, { headers: headers() });
      const { items } = (await answer.json()) as { items: { lastSeenAt?: string }[] };
      return items.every(({ lastSeenAt }) => lastSeenAt !== undefined) || undefined;
    });
    const from = performance.now();
    await close();
    expect(performance.now() - from).toBeLessThan(5000);
    expect(await closed).toBe(1001);
    const answers = await Promise.all([waiting, leasing]);
    expect(answers.map(({ status }) => status)).toEqual([200, 200]);
    expect(answers.map((answer) => answer.headers.get("connection"))).toEqual(["close", "close"]);
    expect(await stream.text()).toContain("retry:");
    await expect(fetch(`${url}/health`)).rejects.toThrow();
  });

  test("waits no longer than it is told to", async () => {
    const { url, close } = await start();
    const { hostname, port } = new URL(url);
    const socket = connect(Number(port), hostname);
    const gone = new Promise((resolve) => socket.once("close", resolve));
    socket.on("error", () => {});
    socket.write(`POST /v1/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${key}\r\nContent-Length: 10\r\n\r\n{`);
    await eventually(async () => ((await fetch(`${url}/health`)).ok ? true : undefined));
    await close({ graceSeconds: 0.2 });
    await gone;
  });

  test("waits for nobody whom it has refused and who stays all the same", async () => {
    const { url, close } = await start();
    const refused = [
      "CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n",
      "GET /v1/agents/a/connect HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ].map((text) => {
      const socket = dial(url, text);
      return once(socket, "data").then(() => socket);
    });
    const left = await Promise.all(refused);
    await close({ graceSeconds: 5 });
    for (const socket of left) socket.destroy();
  });

  test("lets in no agent whose handshake is under way, which would be told of no stop and hold it up", async () => {
    const { store } = engine.ports;
    let onDisk = () => {};
    const settles = new Promise<void>((resolve) => {
      onDisk = resolve;
    });
    let slow = false;
    let waits = 0;
    const settled: typeof store.settled = async (...given) => {
      if (slow) {
        waits++;
        await settles;
      }
      await store.settled(...given);
    };
    server = await createServer({ ports: { ...engine.ports, store: { ...store, settled } }, version: "1" });
    const { url, close } = server;
    const { agent, token } = await post(url, "/v1/agents", { name: "a", capabilities: [] });
    const shake = () => {
      const ws = new WebSocket(`${url.replace("http", "ws")}/v1/agents/${agent.id}/connect`, ["waggle.v1"], {
        headers: { authorization: `Bearer ${token}` },
      });
      ws.on("error", () => {});
      return ws;
    };
    // The stop waits for this one to end.
    await once(shake(), "open");
    slow = true;
    const ws = shake();
    const refused = new Promise<number | undefined>((resolve) => {
      ws.once("unexpected-response", (_, response) => resolve(response.statusCode));
      ws.once("open", () => resolve(101));
    });
    await eventually(async () => waits > 0 || undefined);
    const closing = close();
    onDisk();
    expect(await refused).toBe(503);
    ws.terminate();
    await closing;
  });
});

test("a caller that hangs up hard on its refusal harms nobody", async () => {
  const { url } = await start();
  for (let n = 0; n < 5; n++) {
    const socket = dial(url, "CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n");
    // What reaches the server then is a reset, not an end.
    await once(socket, "connect");
    await new Promise((resolve) => setImmediate(resolve));
    socket.resetAndDestroy();
    await once(socket, "close");
  }
  expect((await fetch(`${url}/health`)).status).toBe(200);
});

test("any number may wait, and each costs the same: none looks through the others to hear of the server's end", async () => {
  const closing = new AbortController();
  let waits = 0;
  const subscribe: Live["subscribe"] = (channel, listener) => {
    if (channel.startsWith("task/")) waits++;
    return engine.ports.live.subscribe(channel, listener);
  };
  const ports = { ...engine.ports, live: { ...engine.ports.live, subscribe } };
  const { hono } = createApp({ ports, version: "1", closing: closing.signal });
  const http = createHttpServer(getRequestListener(hono.fetch)).listen(0, "127.0.0.1");
  await once(http, "listening");
  const url = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
  const { task } = await post(url, "/v1/tasks", { type: "a", requires: [{ capability: "nobody has" }] });
  const wait = () => fetch(`${url}/v1/tasks/${task.id}?waitSeconds=20`, { headers: headers() });
  const waiting = Array.from({ length: 30 }, wait);
  await eventually(async () => waits === waiting.length || undefined);
  expect(getEventListeners(closing.signal, "abort").length).toBeLessThanOrEqual(1);
  closing.abort();
  expect((await Promise.all(waiting)).map(({ status }) => status)).toEqual(waiting.map(() => 200));
  http.close();
});

test("fails loudly when the port is taken", async () => {
  const { url } = await start();
  await expect(createServer({ ports: engine.ports, version: "1", port: Number(new URL(url).port) })).rejects.toThrow(
    /EADDRINUSE/,
  );
});

describe("the app without a server", () => {
  test("takes web requests as they are, with the same limits", async () => {
    const { hono } = createApp({ ports: engine.ports, version: "1" });
    const call = (body: string | Uint8Array) => hono.request("/v1/tasks", { method: "POST", headers: headers(), body });
    expect((await call('{"type":"a","input":1.0}')).status).toBe(201);
    expect((await call(new Uint8Array(1024 * 1024 + 1))).status).toBe(413);
    expect((await call(Buffer.from('{"type":"\xff"}', "latin1"))).status).toBe(400);
    expect((await hono.request("/health")).status).toBe(200);
  });

  test("lets pages of the origins it is told of call it, and no others", async () => {
    const origin = "https://console.example.com";
    const { hono } = createApp({ ports: engine.ports, version: "1", corsOrigins: [origin] });
    const call = (from: string, method = "GET") =>
      hono.request("/v1/tasks", {
        method,
        headers: { ...headers(), origin: from, "access-control-request-method": "POST" },
      });
    const allowed = await call(origin);
    expect(allowed.headers.get("access-control-allow-origin")).toBe(origin);
    expect(allowed.headers.get("vary")).toBe("origin");
    expect((await call("https://evil.example.com")).headers.has("access-control-allow-origin")).toBe(false);
    const preflight = await call(origin, "OPTIONS");
    expect(preflight.status).toBe(204);
    expect(preflight.headers.get("access-control-allow-headers")).toContain("authorization");
    expect(preflight.headers.get("access-control-allow-methods")).toContain("POST");
  });

  test("answers 503 with Retry-After when it stops or cannot store", async () => {
    const closing = new AbortController();
    const { hono } = createApp({ ports: engine.ports, version: "1", closing: closing.signal });
    closing.abort();
    const refused = await hono.request("/v1/tasks", { headers: headers() });
    expect([refused.status, refused.headers.get("retry-after")]).toEqual([503, "1"]);
    expect((await hono.request("/health")).status).toBe(503);
    await engine.close();
    const broken = createApp({ ports: engine.ports, version: "1" });
    const reply = await broken.hono.request("/v1/tasks", { headers: headers() });
    expect([reply.status, ((await reply.json()) as { code: string }).code]).toEqual([503, "store.unavailable"]);
    expect(((await (await broken.hono.request("/health")).json()) as { status: string }).status).toBe("unhealthy");
  });
});

test("an app that takes no connections sends agents, and nobody else, where they connect", async () => {
  const socketUrl = "wss://sockets.example.com/stage";
  const { hono } = createApp({ ports: engine.ports, version: "1", socketUrl });
  const register = await hono.request("/v1/agents", {
    method: "POST",
    headers: headers(),
    body: JSON.stringify({ name: "a", capabilities: [] }),
  });
  const { agent, token } = (await register.json()) as { agent: { id: string }; token: string };
  const ask = (bearer: string) =>
    hono.request(`/v1/agents/${agent.id}/connect`, { headers: { authorization: `Bearer ${bearer}` } });
  const sent = await ask(token);
  expect([sent.status, sent.headers.get("location")]).toEqual([307, socketUrl]);
  expect((await ask(key)).status).toBe(403);
  expect((await ask("wga_nobody")).status).toBe(401);
});
