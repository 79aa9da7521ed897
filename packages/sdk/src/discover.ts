import { existsSync, readdirSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { normalUrl } from "./url.ts";

/** Where `waggle dev` listens unless told otherwise: WAGG on a telephone. */
export const defaultPort = 9244;
export const defaultUrl = `http://127.0.0.1:${defaultPort}`;

export interface Connection {
  readonly url: string;
  readonly key: string | undefined;
  /** Where each was found, in words. */
  readonly source: { readonly url: string; readonly key: string };
  /** The data folder found on this machine, running or not. */
  readonly dataDir: string | undefined;
}

export interface Surroundings {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  readonly home: string;
}
const here = (): Surroundings => ({ env: process.env, cwd: process.cwd(), home: homedir() });

/** The file `waggle config` keeps. */
export const configPath = ({ env, home }: Surroundings = here()): string =>
  env.WAGGLE_CONFIG || join(home, ".waggle", "config.json");

/** What `waggle config` keeps, or nothing when there is no file or it is not JSON. */
export function readConfig(around: Surroundings = here()): Record<string, string> {
  return (readJson(configPath(around)) as Record<string, string> | undefined) ?? {};
}

/** The data folder of the nearest `.waggle` upwards, or `~/.waggle`. */
export function findDataDir({ env, cwd, home }: Surroundings = here()): string | undefined {
  if (env.WAGGLE_DATA) return resolve(cwd, env.WAGGLE_DATA);
  const holds = (dir: string) => existsSync(join(dir, "server.json")) || existsSync(join(dir, "admin.key"));
  for (let dir = resolve(cwd); ; ) {
    const candidate = join(dir, ".waggle");
    if (holds(candidate)) return candidate;
    const parent = dirname(dir);
    if (parent === dir) break;
    dir = parent;
  }
  const own = join(home, ".waggle");
  return holds(own) ? own : undefined;
}

/** Where `waggle dev` notes the servers it runs for this user, each in a file `PID.json`. */
export const runningDir = (around: Surroundings = here()): string => join(dirname(configPath(around)), "running");

/** Whether a process has this id. */
export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** The servers this user runs on this machine, whatever folders they work on; the newest first. */
function runningServers(around: Surroundings): { url: string; dataDir: string }[] {
  const dir = runningDir(around);
  let names: string[] = [];
  try {
    names = readdirSync(dir);
  } catch {
    // None has run yet.
  }
  const notes = names.flatMap((name) => {
    const { url, dataDir, startedAt } = (readJson(join(dir, name)) ?? {}) as Record<string, unknown>;
    return typeof url === "string" && typeof dataDir === "string" && isRunning(Number.parseInt(name, 10))
      ? [{ url, dataDir, startedAt: String(startedAt) }]
      : [];
  });
  return notes.sort((a, b) => (a.startedAt < b.startedAt ? 1 : -1));
}

const loopbackOf = (url: string): string =>
  url.replace(/^(https?:\/\/)localhost(?![^:/])/, (_, scheme) => `${scheme}127.0.0.1`);

/**
 * Which server, with which key: what is given, then the environment, then `waggle config`, then the data folder of a
 * server on this machine, then the newest of those that run. A key found in a place is used only for the server found
 * in that place, so that no setting can send one server's key to another.
 */
export function findConnection(
  given: { url?: string | undefined; key?: string | undefined } = {},
  around: Surroundings = here(),
): Connection {
  const { env } = around;
  const config = readConfig(around);
  const dataDir = findDataDir(around);
  const server =
    dataDir === undefined ? undefined : (readJson(join(dataDir, "server.json")) as { url?: string } | undefined);
  const keyIn = (dir: string) => readText(join(dir, "admin.key"));
  const own = [
    ...(dataDir === undefined ? [] : [{ name: dataDir, url: server?.url ?? defaultUrl, key: keyIn(dataDir) }]),
    ...runningServers(around).map(({ url, dataDir }) => ({ name: dataDir, url, key: keyIn(dataDir) })),
  ];
  const places = [
    { name: "options", url: given.url, key: given.key },
    { name: "environment", url: env.WAGGLE_URL || undefined, key: env.WAGGLE_API_KEY || undefined },
    { name: configPath(around), url: config.url, key: config.key },
    ...own,
    { name: "default", url: defaultUrl, key: undefined },
  ];
  const whence = places.find((place) => place.url !== undefined) as (typeof places)[number];
  /** A server that is known is asked by its address: what is called localhost may be another's, on ::1. */
  const addressOf = (text: string) => {
    const url = normalUrl(text);
    return own.find((place) => place.url === loopbackOf(url))?.url ?? url;
  };
  const url = addressOf(whence.url as string);
  // Given by hand (options, environment), a key is meant for whichever server is used.
  const keyed = places.find(
    (place, i) => place.key !== undefined && (i < 2 || (place.url !== undefined && addressOf(place.url) === url)),
  );
  return { url, key: keyed?.key, source: { url: whence.name, key: keyed?.name ?? "none found" }, dataDir };
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim() || undefined;
  } catch {
    return undefined;
  }
}
function readJson(path: string): unknown {
  const text = readText(path);
  try {
    const value: unknown = text === undefined ? undefined : JSON.parse(text);
    return typeof value === "object" && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}
