import { once } from "node:events";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, test } from "vitest";
import { createClient as createBrowserClient } from "../src/browser.ts";
import { createClient, type Task } from "../src/node.ts";

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});

async function clientOf(answer: RequestListener, create: typeof createClient = createClient) {
  const server = createServer(answer);
  await once(server.listen(0, "127.0.0.1"), "listening");
  const client = create({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, key: "k" });
  cleanups.push(() => {
    client.close();
    server.closeAllConnections();
    server.close();
  });
  return client;
}

test.each([
  ["the answer was lost", undefined],
  ["the server could not say whether it was stored", 503],
])("what is gone when its removal is asked for again, since %s, was removed", async (_, status) => {
  let asked = 0;
  const client = await clientOf((request, response) => {
    if (++asked === 1) return void (status ? response.writeHead(status).end() : request.socket.destroy());
    response.writeHead(404, { "content-type": "application/json" }).end('{"code":"limit.not_found"}');
  });
  expect(await client.limits.remove("mine")).toBeUndefined();
  expect(asked).toBe(2);
  await expect(client.limits.remove("none")).rejects.toMatchObject({ code: "limit.not_found" });
});

test("a stream of rare events goes on after a break, though those in between are past their retention", async () => {
  const asked: (string | null)[] = [];
  const client = await clientOf((request, response) => {
    const after = new URL(request.url ?? "", "http://log").searchParams.get("after");
    asked.push(after);
    const sequence = after === "5" ? 6 : 101;
    if (after === "6") {
      response.writeHead(410, { "content-type": "application/json" });
      return void response.end('{"code":"event.gone","firstSequence":101}');
    }
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.end(`id: ${sequence}\ndata: {"sequence":${sequence}}\n\n`);
  });
  const seen: number[] = [];
  const events = client.events.follow({ after: 5, types: "task.failed" });
  for await (const { sequence } of events) if (seen.push(sequence) === 2) break;
  expect({ seen, asked }).toEqual({ seen: [6, 101], asked: ["5", "6", "100"] });
});

test.each([
  ["ends with an error where it has missed some", 9, [6, 410]],
  ["begins with the first where the log is another one", 1, [6, 1]],
])("a stream of all events %s", async (_, firstSequence, told) => {
  const client = await clientOf((request, response) => {
    const after = new URL(request.url ?? "", "http://log").searchParams.get("after");
    if (after === "6") {
      response.writeHead(410, { "content-type": "application/json" });
      return void response.end(JSON.stringify({ code: "event.gone", firstSequence }));
    }
    const sequence = Number(after) + 1;
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.end(`id: ${sequence}\ndata: {"sequence":${sequence}}\n\n`);
  });
  const events = client.events.follow({ after: 5 })[Symbol.asyncIterator]();
  const next = () =>
    events.next().then(
      ({ value }) => value?.sequence,
      ({ status }) => status,
    );
  expect([await next(), await next()]).toEqual(told);
  await events.return?.(undefined);
});

test("a stream that begins past the retention is refused", async () => {
  const client = await clientOf((_, response) => {
    response.writeHead(410, { "content-type": "application/json" }).end('{"code":"event.gone","firstSequence":101}');
  });
  const events = client.events.follow({ after: 5 })[Symbol.asyncIterator]();
  await expect(events.next()).rejects.toMatchObject({ status: 410 });
});

test("health is waited for no longer than was asked for", async () => {
  const client = await clientOf(() => {});
  await expect(client.status.health({ timeoutSeconds: 0.05 })).rejects.toMatchObject({ code: "client.timeout" });
});

test.each([
  ["Node", createClient],
  ["browsers", createBrowserClient],
])("in %s a client that is closed ends what it follows, and tries no call again", async (_, create) => {
  let refused = () => {};
  const trying = new Promise<void>((resolve) => {
    refused = resolve;
  });
  const client = await clientOf((request, response) => {
    if (request.url?.startsWith("/v1/events")) {
      response.writeHead(200, { "content-type": "text/event-stream" });
      return void response.write('id: 1\ndata: {"sequence":1}\n\n');
    }
    response.writeHead(503, { "content-type": "application/json" }).end('{"code":"store.unavailable"}');
    refused();
  }, create);
  const events = client.events.follow()[Symbol.asyncIterator]();
  expect(await events.next()).toMatchObject({ value: { sequence: 1 } });
  const call = expect(client.limits.list()).rejects.toThrow();
  await trying;
  client.close();
  expect(await events.next()).toMatchObject({ done: true });
  await call;
});

test("a result is waited for no longer than was asked for, though the server cannot answer", async () => {
  const client = await clientOf((_, response) => void response.writeHead(503).end());
  const wait = { timeoutSeconds: 0.05 };
  await expect(client.tasks.run({ type: "x" }, wait)).rejects.toMatchObject({ code: "client.timeout" });
  const given = new AbortController();
  const aborted = client.tasks.run({ type: "x" }, { signal: given.signal, timeoutSeconds: 60 });
  given.abort(new Error("enough"));
  await expect(aborted).rejects.toThrow("enough");
});

test("a list that is read to its end, and what is asked of a handle, can be given up", async () => {
  const client = await clientOf(() => {});
  const gone = { signal: AbortSignal.abort(new Error("enough")) };
  await expect(client.tasks.all({}, gone).next()).rejects.toThrow("enough");
  await expect(client.limits.all(gone).next()).rejects.toThrow("enough");
  await expect(client.agents.pause("agt_1", gone)).rejects.toThrow("enough");
  await expect(client.tasks.handle({ id: "tsk_1" } as Task).get(gone)).rejects.toThrow("enough");
});
