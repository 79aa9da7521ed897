import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { root } from "./root.ts";

export interface Process {
  readonly pid: number;
  readonly child: ChildProcess;
  readonly running: boolean;
  /** The end of what it wrote to stdout and stderr, at most 64 KiB. */
  output(): string;
  /** Sends the signal and waits for the end; SIGKILL after `graceSeconds`. */
  end(signal?: NodeJS.Signals, graceSeconds?: number): Promise<void>;
}

interface LaunchOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly ipc?: boolean;
  readonly cwd?: string;
  /** Whom it runs as; only root may choose. */
  readonly user?: { readonly uid: number; readonly gid: number } | undefined;
}

const launched = new Set<ChildProcess>();
// Nothing that was started here outlives its parent, however that ends.
process.on("exit", () => {
  for (const child of launched) child.kill("SIGKILL");
});
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(130));

export function launch(command: string, args: readonly string[], options: LaunchOptions = {}): Process {
  const child = spawn(command, args, {
    cwd: options.cwd ?? root,
    ...options.user,
    // What is noted in a user's own folder is kept out of tests, and they out of it.
    env: { ...process.env, NO_COLOR: "1", WAGGLE_CONFIG: join(root, ".cache/config.json"), ...options.env },
    stdio: options.ipc ? ["ignore", "pipe", "pipe", "ipc"] : ["ignore", "pipe", "pipe"],
  });
  launched.add(child);
  let output = "";
  const keep = (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-65_536);
  };
  child.stdout?.on("data", keep);
  child.stderr?.on("data", keep);
  child.on("error", (error) => keep(Buffer.from(`${command}: ${error.message}\n`)));
  const gone = new Promise<void>((resolve) => {
    child.once("exit", () => resolve());
    child.once("error", () => resolve());
  }).then(() => {
    launched.delete(child);
  });
  const running = () => child.pid !== undefined && child.exitCode === null && child.signalCode === null;
  return {
    pid: child.pid ?? -1,
    child,
    get running() {
      return running();
    },
    output: () => output,
    async end(signal = "SIGTERM", graceSeconds = 8) {
      if (!running()) return;
      child.kill(signal);
      const slow = new AbortController();
      const late = sleep(graceSeconds * 1000, true, { signal: slow.signal }).catch(() => false);
      if (await Promise.race([gone.then(() => false), late])) child.kill("SIGKILL");
      slow.abort();
      await gone;
    },
  };
}

/** Starts a TypeScript file of ours in a process of its own. */
export const launchScript = (file: string, args: readonly string[], options: LaunchOptions = {}): Process =>
  launch(process.execPath, [join(root, "ts.mjs"), file, ...args], options);

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new Error("no port was given");
  return address.port;
}

/** What the kernel says of a process's memory now: MiB by the name of the field, e.g. `RssAnon`. @throws once it has ended */
export function memoryOf(pid: number): (field: string) => number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return (field) => Number(new RegExp(`^${field}:\\s+(\\d+)`, "m").exec(status)?.[1] ?? 0) / 1024;
}

/** Resident memory of the process in MiB, now and at its highest. */
export function memoryMiB(pid: number): { now: number; peak: number } {
  const mib = memoryOf(pid);
  return { now: mib("VmRSS"), peak: mib("VmHWM") };
}
