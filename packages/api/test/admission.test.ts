import { mkdtempSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createServer } from "@waggle/api";
import { Key } from "@waggle/core";
import { openEmbedded } from "@waggle/engine-embedded";
import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually } from "./support.ts";

const mib = 1024 * 1024;
const dataDir = mkdtempSync(join(tmpdir(), "waggle-admission-"));
let url: string;
let key: string;
let close: () => Promise<void>;
const sockets: Socket[] = [];

beforeAll(async () => {
  const engine = await openEmbedded({ dataDir });
  key = await Key.bootstrap(engine.ports);
  const admission = { requests: 3, bodyBytes: 2 * mib };
  const server = await createServer({ ports: engine.ports, version: "1.0.0", admission });
  url = server.url;
  close = async () => {
    for (const socket of sockets) socket.destroy();
    await server.close();
    await engine.close();
  };
});
afterAll(async () => {
  await close();
  rmSync(dataDir, { recursive: true, force: true });
});

const call = async (method: string, path: string, body?: unknown, bearer = key) => {
  const response = await fetch(url + path, {
    method,
    headers: { authorization: `Bearer ${bearer}`, "content-type": "application/json" },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  return { status: response.status, headers: response.headers, text };
};
const submit = () => call("POST", "/v1/tasks", { type: "t" });
const held = async () => Number(/^waggle_requests_held (\d+)$/m.exec((await call("GET", "/metrics")).text)?.[1]);

/** A submit that has sent all but the end of its body. @returns finishes it and gives the answer */
function half(pad = 0): () => Promise<string> {
  const body = JSON.stringify({ type: "t", input: "x".repeat(pad) });
  const socket = connect({ host: "127.0.0.1", port: Number(new URL(url).port) });
  sockets.push(socket);
  let text = "";
  socket.on("data", (chunk) => {
    text += chunk;
  });
  socket.on("error", () => {});
  socket.write(
    `POST /v1/tasks HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${key}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body.slice(0, -1)}`,
  );
  return async () => {
    socket.write(body.slice(-1));
    return eventually(() => (text.includes("\r\n\r\n") ? text : undefined));
  };
}

test("refuses new work while it holds as much as it may, and takes what it let in", async () => {
  const { agent, token } = JSON.parse((await call("POST", "/v1/agents", { name: "a", capabilities: [] })).text);
  const before = JSON.parse((await submit()).text).task;
  const halves = [half(), half(), half()];
  await eventually(async () => ((await held()) === 3 ? true : undefined));
  const refused = await submit();
  expect(refused.status).toBe(429);
  expect(refused.headers.get("retry-after")).toBe("1");
  expect(JSON.parse(refused.text)).toMatchObject({ code: "server.overloaded", status: 429 });
  expect((await call("POST", "/v1/tasks/batch", { tasks: [{ type: "t" }] })).status).toBe(429);
  expect((await call("POST", "/v1/agents", { name: "b", capabilities: [] })).status).toBe(429);
  // What works off is let in all the same.
  const { assignments } = JSON.parse((await call("POST", `/v1/agents/${agent.id}/lease`, {}, token)).text);
  expect(assignments[0].task.id).toBe(before.id);
  const { fence } = assignments[0];
  expect((await call("POST", `/v1/tasks/${before.id}/complete`, { fence }, token)).status).toBe(200);
  for (const finish of halves) expect(await finish()).toContain("HTTP/1.1 201");
  expect(await held()).toBe(0);
  expect((await submit()).status).toBe(201);
});

test("refuses any body while bodies take all the memory they may, new work from half of it on", async () => {
  const halves = [half(0.9 * mib)];
  await eventually(async () => ((await held()) === 1 ? true : undefined));
  const large = { tasks: [{ type: "t", input: "x".repeat(0.2 * mib) }] };
  expect((await call("POST", "/v1/tasks/batch", large)).status).toBe(429);
  expect((await submit()).status).toBe(201);
  for (const finish of halves) expect(await finish()).toContain("HTTP/1.1 201");
  expect((await call("POST", "/v1/tasks/batch", large)).status).toBe(207);
});

test("counts of an agent that waits for work what it sent, though it did not say how much that would be", async () => {
  const { agent, token } = JSON.parse((await call("POST", "/v1/agents", { name: "polls", capabilities: [] })).text);
  // What others left is not for it.
  expect((await call("POST", `/v1/agents/${agent.id}/pause`)).status).toBe(200);
  const bytes = async () =>
    Number(/^waggle_request_bytes_held (\d+)$/m.exec((await call("GET", "/metrics")).text)?.[1]);
  const body = '{"waitSeconds":20}';
  for (let n = 0; n < 3; n++) {
    const socket = connect({ host: "127.0.0.1", port: Number(new URL(url).port) });
    sockets.push(socket);
    socket.on("error", () => {});
    socket.write(
      `POST /v1/agents/${agent.id}/lease HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${token}\r\n` +
        `Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`,
    );
    await eventually(async () => ((await bytes()) === body.length * (n + 1) ? true : undefined));
  }
  expect((await submit()).status).toBe(201);
});

test("counts a caller who waits for the end of a task no longer than its task takes to be stored", async () => {
  const stop = new AbortController();
  const waiting: Promise<unknown>[] = [];
  const stored = async () => {
    const { items } = JSON.parse((await call("GET", "/v1/tasks?limit=200")).text);
    return items.filter(({ status }: { status: string }) => status === "scheduled").length;
  };
  for (let n = 1; n <= 5; n++) {
    const answer = fetch(`${url}/v1/tasks?waitSeconds=20`, {
      method: "POST",
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
      body: JSON.stringify({ type: "t", delaySeconds: 100 }),
      signal: stop.signal,
    });
    waiting.push(answer.catch(() => undefined));
    await eventually(async () => ((await stored()) === n ? true : undefined));
  }
  await eventually(async () => ((await held()) === 0 ? true : undefined));
  expect((await submit()).status).toBe(201);
  stop.abort();
  await Promise.all(waiting);
});
