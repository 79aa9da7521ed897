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

test("health is waited for no longer than was asked for", async () => {
  const client = await clientOf(() => {});
  await expect(client.status.health({ timeoutSeconds: 0.05 })).rejects.toMatchObject({ code: "client.timeout" });
});
