import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { setPriority } from "node:os";
import { join, relative, resolve } from "node:path";
import { setFlagsFromString } from "node:v8";
import { configPath, defaultPort, findConnection, isRunning, runningDir } from "@waggle/sdk";
import { exit, Failure } from "../failure.ts";
import { duration } from "../format.ts";
import { type Io, painter } from "../io.ts";

interface Options {
  port?: number;
  host: string;
  data: string;
  quiet?: boolean;
}

/**
 * V8 lets garbage grow to four times what is alive before it looks through the old of its heap. Looking at 1.6 times takes
 * 30 MiB off a busy server beside its agents on one machine, and 1 % of its time.
 */
const heapGrowth = "--heap-growing-percent=60";

/** A thread of this gets a tenth of a core that a thread of the usual 0 wants too; at 19, a collection of garbage waits for its turn. */
const behind = 10;

/**
 * Requests go before V8's helpers, which compile and collect: on two cores with an agent beside it, a server that has just begun
 * keeps them busy for as long as itself. Linux schedules threads, and lets a process name its own.
 */
function serveFirst(): void {
  if (process.platform !== "linux") return;
  try {
    const threads = readdirSync("/proc/self/task")
      .map(Number)
      .sort((a, b) => a - b);
    // Node begins with them: after the main thread one that keeps time, then these four. Those of the disk come later.
    for (const thread of threads.filter((thread) => thread !== process.pid).slice(1, 5)) setPriority(thread, behind);
  } catch {
    // Where that is not allowed the server is only slower in its first minutes.
  }
}

export async function dev(io: Io, options: Options, version: string): Promise<number> {
  const from = performance.now();
  setFlagsFromString(heapGrowth);
  serveFirst();
  const { startLocal } = await import("@waggle/local");
  const dataDir = resolve(options.data);
  const port = options.port ?? defaultPort;
  const paint = painter(io.colour);
  const stopped = io.interrupted();
  // Others work with it, whoever reads what it says.
  io.outlive();
  let server: Awaited<ReturnType<typeof startLocal>>;
  try {
    server = await startLocal({
      dataDir,
      host: options.host,
      port,
      version,
      log: (line) => io.err(`${line}\n`),
    });
  } catch (error) {
    throw startFailure(error, port, dataDir);
  }
  keepOutOfGit(dataDir);
  const gone = noteRunning(server.url, dataDir);
  const took = duration(performance.now() - from);
  if (options.quiet) io.out(`${server.url}\n`);
  else {
    const folder = relative(process.cwd(), dataDir) || ".";
    const shown = folder.startsWith("..") ? dataDir : folder;
    // Run by npx, the command is not on the PATH.
    const command = io.env.npm_command === "exec" ? "npx waggle" : "waggle";
    io.out(`
${paint("bold", "Waggle")} ${version} is ready in ${took}

  ${paint("dim", "API")}   ${paint("cyan", server.url)}
  ${paint("dim", "Docs")}  ${paint("cyan", `${server.url}/docs`)}
  ${paint("dim", "Data")}  ${shown}
  ${paint("dim", "Key")}   ${shown}/admin.key  (the command and the SDK find it by themselves)

Next, in another terminal:

  ${command} agent run --name echo --capability echo -- cat
  ${command} delegate greet --requires echo --input '{"hello":"bees"}' --wait

`);
    warnElsewhere(io, server.url);
    if (!/^(127\.|localhost$|::1$)/.test(options.host)) {
      io.err(
        `${paint("yellow", "Note:")} others can reach this server, and keys travel unencrypted. Put a TLS proxy before it.\n\n`,
      );
    }
  }
  await new Promise<void>((done) => {
    if (stopped.aborted) done();
    else stopped.addEventListener("abort", () => done(), { once: true });
  });
  if (!options.quiet) io.err("\nStopping: finishing what is in flight; again to exit at once\n");
  gone();
  await server.stop();
  return exit.ok;
}

/** What a server makes in its folder, which may have files of others in it. */
const ownFiles = [
  "admin.key",
  "blobs",
  "format.json",
  ".gitignore",
  "lock",
  "log",
  "secret.key",
  "server.json",
  "table",
];

/** The folder holds the admin key and everyone's data: `git add .` must not take it along. */
function keepOutOfGit(dataDir: string): void {
  try {
    writeFileSync(join(dataDir, ".gitignore"), ownFiles.map((name) => `/${name}\n`).join(""), { flag: "wx" });
  } catch {
    // There is one; or the folder has a reason not to take it, and the server runs all the same.
  }
}

/**
 * So that commands and the SDK find this server, and its key, from any folder. What servers that were killed have left goes.
 * @returns ends it
 */
function noteRunning(url: string, dataDir: string): () => void {
  try {
    const dir = runningDir();
    const file = join(dir, `${process.pid}.json`);
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    for (const name of readdirSync(dir))
      if (!isRunning(Number.parseInt(name, 10))) rmSync(join(dir, name), { force: true });
    writeFileSync(file, JSON.stringify({ url, dataDir, startedAt: new Date().toISOString() }), { mode: 0o600 });
    return () => rmSync(file, { force: true });
  } catch {
    // Without a home to write to it is found from its own folder alone.
    return () => {};
  }
}

/** Other commands may be set to speak to another server than the one just started, or to none. */
function warnElsewhere(io: Io, url: string): void {
  const note = painter(io.colour)("yellow", "Note:");
  let found: ReturnType<typeof findConnection>;
  try {
    found = findConnection();
  } catch (error) {
    io.err(`${note} commands run here reach no server: ${(error as Error).message}\n\n`);
    return;
  }
  const { url: used, source } = found;
  // One of them may name the port that its protocol has anyway.
  if (new URL(used).href === new URL(url).href) return;
  const how =
    source.url === "environment"
      ? "unset WAGGLE_URL"
      : source.url === configPath()
        ? "waggle config unset url"
        : `export WAGGLE_URL=${url}`;
  io.err(`${note} commands run here go to ${used}, not to this server. To change that: ${how}\n\n`);
}

function startFailure(error: unknown, port: number, dataDir: string): unknown {
  const { code, message } = error as { code?: string; message?: string };
  switch (code) {
    case "EADDRINUSE":
      return new Failure(
        exit.failed,
        `port ${port} is in use`,
        "is a server running already? `waggle status` asks it. `waggle dev --port 0` takes a free port",
      );
    case "EADDRNOTAVAIL":
    case "ENOTFOUND":
      return new Failure(
        exit.usage,
        `cannot listen on that --host: ${message}`,
        "use 127.0.0.1, or 0.0.0.0 for every interface",
      );
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return new Failure(
        exit.refused,
        message ?? code,
        "choose a folder you may write (--data) and a port above 1023 (--port)",
      );
    case "ENOTDIR":
    case "EEXIST":
      return new Failure(exit.usage, `${dataDir} is not a folder`, "choose another with --data");
    case "ENOSPC":
      return new Failure(exit.failed, "the disk is full", "make room, or choose a folder elsewhere with --data");
    case "store.locked":
      return new Failure(
        exit.refused,
        message ?? code,
        "another server works on this folder; stop it, or choose another folder with --data",
      );
    case "store.newer_format":
      return new Failure(
        exit.refused,
        message ?? code,
        "install the newer version that wrote it, or choose another folder with --data",
      );
  }
  return error;
}
