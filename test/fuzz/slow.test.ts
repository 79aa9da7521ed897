import type { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Api, apiOf, unique } from "../support/api.ts";
import { eventually } from "../support/eventually.ts";
import { memoryMiB } from "../support/process.ts";
import { type Server, startServer } from "../support/server.ts";
import { dial, exchange } from "../support/wire.ts";

/* Peers that take their time. The server's patience: 10 s for headers, 20 s for a request, looked at every 2 s. */

let server: Server;
let admin: Api;
beforeAll(async () => {
  server = await startServer();
  const root = apiOf(server.url, server.key);
  const { body } = await root.post<{ key: string }>("/v1/keys", { role: "admin", tenant: unique("slow") });
  admin = root.as(body.key);
});
afterAll(() => server?.stop());

const patience = { timeout: 60_000 };

/** Sends the first part, then a byte of the rest a second, for ever. */
async function drip(first: string, rest: string): Promise<string> {
  const socket = await dial(server.url);
  let text = "";
  let over = false;
  socket.setEncoding("latin1").on("data", (chunk: string) => {
    text += chunk;
  });
  socket.once("close", () => {
    over = true;
  });
  socket.write(first);
  for (let n = 0; !over; n++) {
    socket.write(rest[n % rest.length] as string);
    await sleep(1000);
  }
  return text;
}

test.concurrent("headers that come a byte a second are given up with 408", patience, async () => {
  expect(await drip("GET /health HTTP/1.1\r\nHost: x\r\nX: ", "y")).toMatch(/^HTTP\/1\.1 408 [\s\S]*problem\+json/);
});

test.concurrent("a body that comes a byte a second is given up, and is no task", patience, async () => {
  const head = `POST /v1/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${admin.key}\r\nContent-Type: application/json\r\n`;
  const text = await drip(`${head}Content-Length: 1000\r\n\r\n{"type":"`, "y");
  expect(text).not.toMatch(/^HTTP\/1\.1 2/);
  expect((await admin.get<{ items: unknown[] }>("/v1/tasks")).body.items).toEqual([]);
});

test.concurrent("a connection on which nothing is said is closed", patience, async () => {
  const { closed } = await exchange(server.url, [], { seconds: 40 });
  expect(closed).toBe(true);
});

test.concurrent("a client that asks for much and reads nothing is not answered without end", patience, async () => {
  const greedy = await startServer();
  try {
    const socket = await dial(greedy.url);
    socket.pause();
    const ask = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n";
    let sent = 0;
    // 20,000 answers of 60 KB each: the server may make no more than the kernel takes off it, and reads no more.
    while (sent < 20_000 && socket.write(ask.repeat(100))) sent += 100;
    expect((await apiOf(greedy.url, greedy.key).get("/health")).status).toBe(200);
    expect(memoryMiB(greedy.process.pid).peak).toBeLessThan(256);
    socket.destroy();
  } finally {
    await greedy.stop();
  }
});

test.concurrent(
  "10,000 idle connections: others are served, memory is bounded, and all are closed",
  patience,
  async () => {
    const idle: Socket[] = [];
    let closed = 0;
    const before = memoryMiB(server.process.pid).now;
    while (idle.length < 10_000) {
      const opened = await Promise.all(Array.from({ length: 250 }, () => dial(server.url)));
      for (const socket of opened) {
        socket.resume().once("close", () => {
          closed++;
        });
        idle.push(socket);
      }
    }
    expect((await admin.post("/v1/agents", { name: unique("idle"), capabilities: [] })).status).toBe(201);
    expect((await admin.get("/v1/agents")).status).toBe(200);
    // About 20 KiB each is what Node takes for a socket, its parser and their buffers.
    expect(memoryMiB(server.process.pid).peak - before).toBeLessThan(300);
    await eventually("all are closed", () => closed === idle.length, { seconds: 45 });
  },
);
