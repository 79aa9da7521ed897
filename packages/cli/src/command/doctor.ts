import { accessSync, constants, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { type Agent, type Client, findConnection, isRunning, isTerminal, type Task, WaggleApiError } from "@waggle/sdk";
import { type CommonOptions, formatOf, withClient } from "../context.ts";
import { exit, usage } from "../failure.ts";
import { take } from "../find.ts";
import { duration } from "../format.ts";
import { type Io, painter } from "../io.ts";
import { document, isDocument } from "../print.ts";
import { masked } from "./config.ts";

export interface Check {
  readonly name: string;
  readonly state: "ok" | "warning" | "problem";
  readonly found: string;
  readonly advice?: string;
}

interface Options extends CommonOptions {
  deep?: boolean;
  data?: string;
  tenant?: string;
}

export async function doctor(io: Io, options: Options, version: string): Promise<number> {
  if (options.data !== undefined && options.tenant !== undefined)
    throw usage("--data reads all tenants of a folder; give it or --tenant", "waggle doctor --deep --data DIR");
  if (options.deep) return (await import("./doctor-deep.ts")).deep(io, options);
  if (options.data !== undefined) throw usage("--data is read by --deep alone", "waggle doctor --deep --data DIR");
  if (options.tenant !== undefined)
    throw usage("--tenant is read by --deep alone", "waggle doctor --deep --tenant NAME");
  return look(io, options, version);
}

/** Looks at everything between this command and a task that runs; later checks are left out when an earlier one rules them out. */
const look = (io: Io, options: CommonOptions, version: string): Promise<number> =>
  withClient(io, options, async ({ client }) => {
    const checks: Check[] = [];
    let unreachable = false;
    for await (const check of checksOf(io, client, options, version)) {
      const { advice: _, ...fine } = check;
      checks.push(check.state === "ok" ? fine : check);
      unreachable ||= check.name === "server" && check.state === "problem";
    }
    const format = formatOf(options);
    if (isDocument(format)) await document(io, format, { checks });
    else {
      const paint = painter(io.colour);
      const signs = { ok: paint("green", "✓"), warning: paint("yellow", "!"), problem: paint("red", "✗") };
      for (const { name, state, found, advice } of checks) {
        io.out(`${signs[state]} ${name.padEnd(12)} ${found}\n`);
        if (advice) io.out(`  ${" ".repeat(12)} ${paint("dim", `→ ${advice}`)}\n`);
      }
      const bad = checks.filter(({ state }) => state !== "ok").length;
      const wanting = `${bad} of ${checks.length} checks ${bad === 1 ? "needs" : "need"} attention.`;
      io.out(`\n${bad === 0 ? "All is well." : wanting}\n`);
    }
    if (unreachable) return exit.unreachable;
    return checks.some(({ state }) => state === "problem") ? exit.failed : exit.ok;
  });

async function* checksOf(io: Io, client: Client, options: CommonOptions, version: string): AsyncGenerator<Check> {
  yield node();
  const used = findConnection(options);
  yield* dataFolder(used.dataDir);
  yield {
    name: "connection",
    state: used.key === undefined ? "problem" : "ok",
    found: `${used.url} (from ${used.source.url}), key ${masked(used.key)} (from ${used.source.key})`,
    advice: "set WAGGLE_API_KEY, or `waggle config set key …`; on the server's machine run this beside its data folder",
  };
  let health: Awaited<ReturnType<Client["status"]["health"]>>;
  try {
    const from = performance.now();
    health = await client.status.health();
    const bad = health.status === "unhealthy";
    const parts = Object.entries(health.components ?? {}).filter(
      ([, part]) => (part as { status?: string }).status !== "healthy",
    );
    yield {
      name: "server",
      state: bad ? "problem" : health.status === "degraded" ? "warning" : "ok",
      found: `${health.status}, version ${health.version}, up ${duration(health.uptimeSeconds * 1000)}, answers in ${duration(performance.now() - from)}`,
      advice:
        parts.length > 0
          ? `look at ${parts.map(([name]) => name).join(", ")} in the server's log`
          : "more agents are lost than present: look at `waggle get agents`",
    };
  } catch (error) {
    yield {
      name: "server",
      state: "problem",
      found: (error as Error).message,
      advice: "start one with `waggle dev`, or correct the address",
    };
    return;
  }
  yield {
    name: "versions",
    state: sameLine(health.version, version) ? "ok" : "warning",
    found: health.version === version ? `both ${version}` : `this command is ${version}, the server ${health.version}`,
    advice: "install the same version on both sides",
  };
  yield await looked("clock", () => clock(io, used.url));
  try {
    await client.status.get();
    yield { name: "key", state: "ok", found: "is taken" };
  } catch (error) {
    const refused = error instanceof WaggleApiError && error.status === 401;
    yield {
      name: "key",
      state: "problem",
      found: (error as Error).message,
      advice: refused
        ? "it is wrong or revoked: get another with `waggle key create`, or use the one in the data folder"
        : "see the server's log",
    };
    return;
  }
  yield await looked("agents", async () => agents(await take(client.agents.all(), 1000)));
  yield await looked("tasks", () => tasks(io, client));
}

/** What was found before is told all the same when a look fails. */
const looked = (name: string, look: () => Promise<Check>): Promise<Check> =>
  look().catch(
    (error: unknown): Check => ({
      name,
      state: "problem",
      found: (error as Error).message,
      advice: "run it again; if it stays, see the server's log",
    }),
  );

function node(): Check {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  const ok = major > 20 || (major === 20 && minor >= 15);
  return {
    name: "node",
    state: ok ? "ok" : "problem",
    found: process.versions.node,
    advice: "install Node 20.15 or newer",
  };
}

function* dataFolder(dir: string | undefined): Generator<Check> {
  if (dir === undefined) return;
  try {
    accessSync(dir, constants.R_OK | constants.W_OK);
  } catch {
    yield {
      name: "data folder",
      state: "warning",
      found: `${dir} cannot be read and written`,
      advice: "run as the user who owns it",
    };
    return;
  }
  let keyMode = 0;
  try {
    keyMode = statSync(join(dir, "admin.key")).mode & 0o077;
  } catch {
    // No key here: another check tells.
  }
  let state = "no server runs on it";
  let stale = false;
  try {
    const { pid, url } = JSON.parse(readFileSync(join(dir, "server.json"), "utf8")) as { pid: number; url: string };
    stale = !isRunning(pid);
    state = stale ? `its server (process ${pid}) is gone` : `served by process ${pid} at ${url}`;
  } catch {
    // No server file: it was stopped in order.
  }
  if (keyMode !== 0) {
    yield {
      name: "data folder",
      state: "warning",
      found: `${join(dir, "admin.key")} can be read by others`,
      advice: `chmod 600 ${join(dir, "admin.key")}`,
    };
  } else
    yield {
      name: "data folder",
      state: stale ? "warning" : "ok",
      found: `${dir}: ${state}`,
      advice: "start it again: waggle dev",
    };
}

const sameLine = (a: string, b: string) => a.split(".").slice(0, 2).join(".") === b.split(".").slice(0, 2).join(".");

/** `Date` has whole seconds; less than two apart says nothing. */
async function clock(io: Io, url: string): Promise<Check> {
  const before = io.now();
  const response = await fetch(`${url}/health`, { signal: AbortSignal.timeout(10_000) });
  await response.text();
  const theirs = Date.parse(response.headers.get("date") ?? "");
  const middle = (before + io.now()) / 2;
  if (Number.isNaN(theirs)) return { name: "clock", state: "ok", found: "the server does not tell its time" };
  const apart = theirs + 500 - middle;
  return {
    name: "clock",
    state: Math.abs(apart) > 30_000 ? "warning" : "ok",
    found:
      Math.abs(apart) < 2_000
        ? "agrees with the server's"
        : `${duration(Math.abs(apart))} ${apart > 0 ? "behind" : "ahead of"} the server's`,
    advice: "set both clocks by NTP: deadlines and signatures depend on them",
  };
}

function agents(all: readonly Agent[]): Check {
  const present = all.filter(({ status }) => status === "ready" || status === "busy");
  const lost = all.filter(({ status }) => status === "lost");
  const idle = all.filter(({ status }) => status === "paused" || status === "draining");
  const found = `${present.length} ready or busy, ${lost.length} lost, ${idle.length} paused or draining`;
  if (lost.length > 0) {
    return {
      name: "agents",
      state: "warning",
      found,
      advice: `start again or remove: ${lost
        .slice(0, 5)
        .map(({ name }) => name)
        .join(", ")} (waggle delete agent NAME)`,
    };
  }
  return {
    name: "agents",
    state: present.length === 0 ? "warning" : "ok",
    found,
    advice: "nothing takes work: waggle agent run --name echo --capability echo -- cat",
  };
}

/** Waiting for this long is taken for stuck. */
const stuckMs = 5 * 60_000;

async function tasks(io: Io, client: Client): Promise<Check> {
  const stuck: Task[] = [];
  for (const status of ["queued", "running"] as const) {
    for (const task of await take(client.tasks.all({ status }), 200)) {
      const since = status === "queued" ? (task.queuedAt ?? task.createdAt) : (task.startedAt ?? task.createdAt);
      const unlimited = status === "queued" || task.timeouts.runSeconds === undefined;
      if (
        !isTerminal(task.status) &&
        unlimited &&
        io.now() - Date.parse(since) > (status === "queued" ? stuckMs : stuckMs * 12)
      )
        stuck.push(task);
    }
  }
  const { items: dead } = await client.deadLetters.list({ limit: 1 });
  if (stuck.length > 0) {
    const [first] = stuck as [Task];
    const queued = stuck.filter(({ status }) => status === "queued").length;
    return {
      name: "tasks",
      state: "warning",
      found: `${queued} queued for over ${duration(stuckMs)}, ${stuck.length - queued} running for over ${duration(stuckMs * 12)}`,
      advice: `waggle explain ${first.id}`,
    };
  }
  if (dead.length > 0)
    return {
      name: "tasks",
      state: "warning",
      found: "there are dead letters",
      advice: "waggle get dead-letters; waggle redrive --all runs them again",
    };
  return { name: "tasks", state: "ok", found: "none is stuck, no dead letters" };
}
