import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { freePort, launch, type Process } from "./process.ts";
import { root } from "./root.ts";

export interface ServerOptions {
  /** Kept when given; else a temporary folder, removed by `stop`. */
  readonly dataDir?: string;
  readonly port?: number;
  readonly env?: Readonly<Record<string, string>>;
}

export interface Server {
  readonly url: string;
  /** The admin key the server made at its first start. */
  readonly key: string;
  readonly dataDir: string;
  readonly process: Process;
  /** kill -9, then a new process with the same data and port. */
  restart(signal?: NodeJS.Signals): Promise<void>;
  stop(): Promise<void>;
}

export const serverProgram = join(root, "packages/cli/dist/main.mjs");

/** What starts a server; `WAGGLE_SERVER` replaces the program. */
export function serverCommand(dataDir: string, port: number): [string, string[]] {
  const [program = process.execPath, ...before] = process.env.WAGGLE_SERVER?.split(" ").filter(Boolean) ?? [
    process.execPath,
    join(root, "packages/cli/bin/waggle.mjs"),
  ];
  return [program, [...before, "dev", "--host", "127.0.0.1", "--port", String(port), "--data", dataDir]];
}

export const adminKey = (dataDir: string): string => readFileSync(join(dataDir, "admin.key"), "utf8").trim();

async function ready(url: string, server: Process): Promise<void> {
  const end = performance.now() + 20_000;
  while (performance.now() < end && server.running) {
    const answer = await fetch(`${url}/health`).catch(() => undefined);
    await answer?.body?.cancel();
    if (answer?.ok) return;
    await sleep(5);
  }
  throw new Error(`the server did not come up at ${url}:\n${server.output()}`);
}

/** Starts the server a user would start, in a process of its own. */
export async function startServer(options: ServerOptions = {}): Promise<Server> {
  const dataDir = options.dataDir ?? mkdtempSync(join(tmpdir(), "waggle-"));
  const port = options.port ?? (await freePort());
  const url = `http://127.0.0.1:${port}`;
  const start = async () => {
    const [program, args] = serverCommand(dataDir, port);
    const server = launch(program, args, options.env ? { env: options.env } : {});
    await ready(url, server);
    return server;
  };
  let current = await start();
  return {
    url,
    key: adminKey(dataDir),
    dataDir,
    get process() {
      return current;
    },
    async restart(signal = "SIGKILL") {
      await current.end(signal);
      current = await start();
    },
    async stop() {
      const { running } = current;
      await current.end("SIGTERM", 20);
      if (running && current.child.exitCode !== 0)
        throw new Error(`the server was asked to stop, and did not:\n${current.output()}`);
      if (options.dataDir === undefined) rmSync(dataDir, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}
