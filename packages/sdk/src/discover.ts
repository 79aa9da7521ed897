import { existsSync, readFileSync } from "node:fs";
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

/**
 * Which server, with which key: what is given, then the environment, then `waggle config`, then the data folder of a
 * server on this machine. A key found in a place is used only for the server found in that place, so that no
 * setting can send one server's key to another.
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
  const places = [
    { name: "options", url: given.url, key: given.key },
    { name: "environment", url: env.WAGGLE_URL || undefined, key: env.WAGGLE_API_KEY || undefined },
    { name: configPath(around), url: config.url, key: config.key },
    {
      name: dataDir ?? "default",
      url: server?.url ?? defaultUrl,
      key: dataDir && readText(join(dataDir, "admin.key")),
    },
  ];
  const whence = places.find((place) => place.url !== undefined) as (typeof places)[number];
  const url = normalUrl(whence.url as string);
  // Given by hand (options, environment), a key is meant for whichever server is used.
  const keyed = places.find(
    (place, i) => place.key !== undefined && (i < 2 || (place.url !== undefined && normalUrl(place.url) === url)),
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
