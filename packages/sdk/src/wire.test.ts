import { getEventListeners } from "node:events";
import { createServer, type Server } from "node:http";
import net, { type AddressInfo } from "node:net";
import { afterEach, expect, test } from "vitest";
import { openWire } from "./wire.ts";

const ends: (() => void)[] = [];
afterEach(() => {
  for (const end of ends.splice(0)) end();
});

const listen = (server: net.Server | Server) =>
  new Promise<string>((resolve) => {
    server.listen(0, "127.0.0.1", () => resolve(`http://127.0.0.1:${(server.address() as AddressInfo).port}`));
    ends.push(() => server.close());
  });
const wireTo = (url: string, most = 4) => {
  const wire = openWire(new URL(url), url, most);
  ends.push(() => wire.close());
  return wire;
};
const ask = { method: "GET", path: "/", headers: {}, timeoutMs: 5_000 } as const;

/** A server that says these bytes to each request, a piece at a time. */
async function says(...pieces: (string | Buffer)[]) {
  let connections = 0;
  const heard: string[] = [];
  const server = net.createServer((socket) => {
    connections++;
    socket.on("error", () => {});
    socket.on("data", async (chunk) => {
      heard.push(chunk.toString());
      for (const piece of pieces) {
        await new Promise((resolve) => setImmediate(resolve));
        if (piece === "") socket.end();
        else socket.write(piece);
      }
    });
  });
  const url = await listen(server);
  return { url, heard, connections: () => connections };
}

test("an answer is read whole however its bytes are cut", async () => {
  const answer = Buffer.from('HTTP/1.1 201 Created\r\nContent-Length: 10\r\nX-A: 1\r\nx-a: 2\r\n\r\n{"a":"ü"}');
  for (let cut = 1; cut < answer.length; cut += 3) {
    const { url } = await says(answer.subarray(0, cut), answer.subarray(cut));
    const reply = await wireTo(url).send(ask);
    expect([reply.status, reply.text, reply.header("x-a")]).toEqual([201, '{"a":"ü"}', "1, 2"]);
  }
});

test.each([
  [
    "in chunks",
    ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", "c\r\n2;x=y\r\nde\r\n0\r", "\n\r\n"],
    "abcde",
  ],
  [
    "in chunks with a trailer",
    ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\n", "\r\n"],
    "a",
  ],
  ["up to the end of the connection", ["HTTP/1.1 200 OK\r\n\r\nab", "cd", ""], "abcd"],
  ["after an interim one", ["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"], "a"],
  ["without a body", ["HTTP/1.1 204 No Content\r\n\r\n"], ""],
])("an answer %s is read", async (_, pieces, text) => {
  const { url } = await says(...pieces);
  expect((await wireTo(url).send(ask)).text).toBe(text);
});

test.each([
  ["is not HTTP", ["SSH-2.0-x\r\n\r\n"]],
  ["has no end to its head", ["HTTP/1.1 200 OK\r\n", "a".repeat(70_000)]],
  ["has a length that is none", ["HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"]],
  ["has a chunk without a size", ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"]],
  ["is cut short", ["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", ""]],
])("an answer that %s is an unreachable server, not a wait", async (_, pieces) => {
  const { url } = await says(...pieces);
  await expect(wireTo(url).send(ask)).rejects.toMatchObject({ code: "client.unreachable" });
});

test("calls one after another share a connection, at once have one each, and never more than the most", async () => {
  let open = 0;
  let peak = 0;
  const sockets = new Set<net.Socket>();
  const server = createServer((_, response) => {
    peak = Math.max(peak, ++open);
    setImmediate(() => {
      open--;
      response.end("{}");
    });
  });
  server.on("connection", (socket) => sockets.add(socket));
  const wire = wireTo(await listen(server), 3);
  for (let i = 0; i < 5; i++) await wire.send(ask);
  expect(sockets.size).toBe(1);
  const replies = await Promise.all(Array.from({ length: 20 }, () => wire.send(ask)));
  expect(replies.every(({ text }) => text === "{}")).toBe(true);
  expect(peak).toBeLessThanOrEqual(3);
  expect(sockets.size).toBe(3);
});

test("a connection the server says it closes is not used again", async () => {
  const { url, connections } = await says("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
  const wire = wireTo(url);
  await wire.send(ask);
  await wire.send(ask);
  expect(connections()).toBe(2);
});

test("a connection that rested while the process was frozen is not used again", async () => {
  const { url, connections } = await says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
  let now = 0;
  const wire = openWire(new URL(url), url, 4, () => now);
  ends.push(() => wire.close());
  for (const later of [1_000, 1_000, 60_000]) {
    now += later;
    await wire.send(ask);
  }
  expect(connections()).toBe(2);
});

test("a call ends with the reason of its signal, also while it waits for a connection", async () => {
  const { url } = await says();
  const wire = wireTo(url, 1);
  const first = new AbortController();
  const second = new AbortController();
  const calls = [first, second].map(({ signal }) => wire.send({ ...ask, signal }));
  second.abort(new Error("enough of the second"));
  await expect(calls[1]).rejects.toThrow("enough of the second");
  first.abort(new Error("enough of the first"));
  await expect(calls[0]).rejects.toThrow("enough of the first");
});

test("a signal that outlives its calls is left without their listeners", async () => {
  const { url } = await says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
  const wire = wireTo(url, 1);
  const { signal } = new AbortController();
  await Promise.all(Array.from({ length: 3 }, () => wire.send({ ...ask, signal })));
  expect(getEventListeners(signal, "abort")).toEqual([]);
});

test("a server that stays silent is a timeout", async () => {
  const { url } = await says();
  await expect(wireTo(url).send({ ...ask, timeoutMs: 30 })).rejects.toMatchObject({ code: "client.timeout" });
});

test("closing refuses what is under way and what waits", async () => {
  const { url } = await says();
  const wire = wireTo(url, 1);
  const calls = [wire.send(ask), wire.send(ask)];
  wire.close();
  for (const call of calls) await expect(call).rejects.toMatchObject({ code: "client.unreachable" });
});

test("a header can carry no second one", async () => {
  const { url, heard } = await says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  const wire = wireTo(url);
  await expect(wire.send({ ...ask, headers: { "x-a": "1\r\nx-b: 2" } })).rejects.toThrow("x-a");
  await wire.send({ ...ask, method: "POST", headers: { "x-a": "1" }, body: "ü" });
  expect(heard).toEqual([expect.stringMatching(/^POST \/ HTTP\/1\.1\r\n[\s\S]*x-a: 1\r\ncontent-length: 2\r\n\r\nü$/)]);
});

test("a call made just as a connection that rested is lost is answered or refused, whichever moment it is", async () => {
  const answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
  const server = net.createServer((socket) => {
    socket.on("error", () => {});
    socket.on("data", () => socket.write(answer, () => setImmediate(() => socket.resetAndDestroy())));
  });
  const wire = wireTo(await listen(server), 64);
  const called = () => wire.send(ask).catch((error) => expect(error.code).toBe("client.unreachable"));
  for (let round = 0; round < 200; round++) {
    await called();
    const calls: Promise<unknown>[] = [];
    // One in each turn: among these is the one between the loss of the connection and the end of its socket.
    for (let turns = 0; turns < 4; turns++) {
      await new Promise((resolve) => setImmediate(resolve));
      calls.push(called());
    }
    await Promise.all(calls);
  }
});
