import { createApp } from "@waggle/api";
import { Key, type Ports } from "@waggle/core";
import manifest from "../packages/cli/package.json" with { type: "json" };
import { report } from "./support/lambda.ts";
import { streamed } from "./support/url.ts";

let app: ReturnType<typeof createApp> | undefined;
let adopted: Promise<unknown> | undefined;

/** Sees to it that the key this deployment was given is one. What goes wrong here must not keep the others out. */
function adopt(ports: Ports): Promise<unknown> {
  const hash = process.env.WAGGLE_ADMIN_KEY_HASH;
  adopted ??= (hash ? Key.adopt(ports, hash) : Promise.resolve()).catch((error) => {
    adopted = undefined;
    report("api", error);
  });
  return adopted;
}

export const handler = streamed("api", async (request, remoteAddress, ports) => {
  await adopt(ports);
  app ??= createApp({
    ports,
    version: manifest.version,
    socketUrl: process.env.WAGGLE_SOCKET_URL,
    onError: (error, id) => report(`api ${id}`, error),
  });
  return app.hono.fetch(request, { remoteAddress });
});
