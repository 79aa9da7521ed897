import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { apiOf } from "../support/api.ts";
import { launch } from "../support/process.ts";
import { root } from "../support/root.ts";
import { type Server, startServer } from "../support/server.ts";

/* The command as it is installed: bundled, in a process of its own. */
let server: Server;
beforeAll(async () => {
  server = await startServer();
});
afterAll(() => server?.stop());

async function waggle(...argv: string[]): Promise<{ code: number | null; output: string }> {
  const { child, output } = launch(process.execPath, [join(root, "packages/cli/bin/waggle.mjs"), ...argv], {
    env: { WAGGLE_URL: server.url, WAGGLE_API_KEY: server.key },
  });
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { code, output: output() };
}

test("the command prints YAML, which it loads only then", async () => {
  const { id } = await apiOf(server.url, server.key).delegate({ type: "printed" });
  const { code, output } = await waggle("get", "task", id, "-o", "yaml");
  expect({ code, lines: output.split("\n") }).toMatchObject({ code: 0, lines: expect.arrayContaining([`id: ${id}`]) });
});
