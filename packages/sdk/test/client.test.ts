import { once } from "node:events";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, test } from "vitest";
import { createClient } from "../src/node.ts";

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});

async function clientOf(answer: RequestListener) {
  const server = createServer(answer);
  await once(server.listen(0, "127.0.0.1"), "listening");
  const client = createClient({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, key: "k" });
  cleanups.push(() => {
    client.close();
    server.closeAllConnections();
    server.close();
  });
  return client;
}

test("what is gone when its removal is asked for again, since the answer was lost, was removed", async () => {
  let asked = 0;
  const client = await clientOf((request, response) => {
    if (++asked === 1) return void request.socket.destroy();
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
  for await (const { sequence } of client.events.follow({ after: 5 })) if (seen.push(sequence) === 2) break;
  expect({ seen, asked }).toEqual({ seen: [6, 101], asked: ["5", "6", "100"] });
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
