import { spawn } from "node:child_process";
import { closeSync, existsSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { apiOf } from "../support/api.ts";
import { untilPasses } from "../support/eventually.ts";
import { freePort, launch } from "../support/process.ts";
import { root } from "../support/root.ts";
import { type Server, startServer } from "../support/server.ts";

/* The command as it is installed: bundled, in a process of its own. */
let server: Server;
beforeAll(async () => {
  server = await startServer();
});
afterAll(() => server?.stop());

const begin = (...argv: string[]) =>
  launch(process.execPath, [join(root, "packages/cli/bin/waggle.mjs"), ...argv], {
    env: { WAGGLE_URL: server.url, WAGGLE_API_KEY: server.key },
  });
async function waggle(...argv: string[]): Promise<{ code: number | null; output: string }> {
  const { child, output } = begin(...argv);
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { code, output: output() };
}

test("the command prints YAML, which it loads only then", async () => {
  const { id } = await apiOf(server.url, server.key).delegate({ type: "printed" });
  const { code, output } = await waggle("get", "task", id, "-o", "yaml");
  expect({ code, lines: output.split("\n") }).toMatchObject({ code: 0, lines: expect.arrayContaining([`id: ${id}`]) });
});

test("a Ctrl-C that npm passes on as well stops a server in order", async () => {
  const data = mkdtempSync(join(tmpdir(), "waggle-dev-"));
  const dev = begin("dev", "--port", "0", "--data", data, "--quiet");
  try {
    await untilPasses(() => expect(dev.output()).toMatch(/http:/));
    dev.child.kill("SIGINT");
    await dev.end("SIGTERM", 20);
    expect(dev.child.exitCode).toBe(0);
  } finally {
    await dev.end("SIGKILL");
    rmSync(data, { recursive: true });
  }
});

test.runIf(process.platform === "linux")(
  "a server's requests go before the threads that compile for it and collect its garbage",
  async () => {
    const data = mkdtempSync(join(tmpdir(), "waggle-dev-"));
    const dev = begin("dev", "--port", "0", "--data", data, "--quiet");
    try {
      await untilPasses(() => expect(dev.output()).toMatch(/http:/));
      const pid = (dev.child.pid as number).toString();
      /** Field 19 of stat, counted after the name, which may have spaces: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html */
      const niceOf = (thread: string) =>
        readFileSync(`/proc/${pid}/task/${thread}/stat`, "utf8").split(") ")[1]?.split(" ")[16];
      expect(niceOf(pid)).toBe("0");
      expect(readdirSync(`/proc/${pid}/task`).filter((thread) => niceOf(thread) === "10")).toHaveLength(4);
    } finally {
      await dev.end("SIGKILL");
      rmSync(data, { recursive: true });
    }
  },
);

test("a server goes on, and stops in order, when nobody reads what it says any more", async () => {
  const data = mkdtempSync(join(tmpdir(), "waggle-dev-"));
  const port = await freePort();
  const dev = begin("dev", "--port", String(port), "--data", data);
  try {
    dev.child.stdout?.destroy();
    dev.child.stderr?.destroy();
    await untilPasses(async () => expect((await fetch(`http://127.0.0.1:${port}/health`)).status).toBe(200));
    await dev.end("SIGTERM", 20);
    expect(dev.child.exitCode).toBe(0);
  } finally {
    await dev.end("SIGKILL");
    rmSync(data, { recursive: true });
  }
});

test.runIf(existsSync("/dev/full"))("what cannot be written is a failure that is told in a line", async () => {
  const full = openSync("/dev/full", "w");
  const { code, output } = await new Promise<{ code: number | null; output: string }>((resolve) => {
    const child = spawn(process.execPath, [join(root, "packages/cli/bin/waggle.mjs"), "--help"], {
      stdio: ["ignore", full, "pipe"],
    });
    let output = "";
    child.stderr?.on("data", (chunk: Buffer) => {
      output += chunk;
    });
    child.once("close", (code) => resolve({ code, output }));
  });
  closeSync(full);
  expect({ code, output }).toEqual({
    code: 1,
    output: expect.stringMatching(/^waggle: cannot write the output: .+\n$/),
  });
});

test("programs of an agent that is made to exit at once go with it", async () => {
  const agent = begin(
    ...["agent", "run", "--name", "hurried", "--capability", "hurry", "--"],
    ...["sh", "-c", "echo pid=$$ >&2; sleep 60"],
  );
  try {
    await apiOf(server.url, server.key).delegate({ type: "t", requires: [{ capability: "hurry" }] });
    const pid = await untilPasses(() => {
      const found = /pid=(\d+)/.exec(agent.output())?.[1];
      expect(found).toBeDefined();
      return Number(found);
    });
    await untilPasses(() => {
      agent.child.kill("SIGINT");
      expect(agent.child.exitCode).toBe(130);
    });
    await untilPasses(() => expect(() => process.kill(pid, 0)).toThrow());
  } finally {
    await agent.end("SIGKILL");
  }
});
