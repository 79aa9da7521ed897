import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { root } from "../../test/support/root.ts";

const folder = join(root, "bench/peers");
const installed = (name: string) => join(folder, "node_modules", name);
const manifestOf = (path: string) => JSON.parse(readFileSync(join(path, "package.json"), "utf8"));
const pinned: Readonly<Record<string, string>> = manifestOf(folder).dependencies;

/** A package of bench/peers. It is not one of this repository, so the caller says what it uses of it. */
export async function loadPeer<Module>(name: string): Promise<Module> {
  const { load } = await import(pathToFileURL(join(folder, "load.mjs")).href);
  return load(name);
}

/** The version that is compared with, without its patch: `6.7`. */
export const peerVersion = (name: string): string => (pinned[name] ?? "").split(".").slice(0, 2).join(".");

/** Of a file that comes with a peer. */
export const peerFile = (...path: readonly string[]): string => installed(join(...path));

/** Installs the pinned packages, unless they are there. */
export function installPeers(): void {
  const there = ([name, version]: [string, string]) =>
    existsSync(join(installed(name), "package.json")) && manifestOf(installed(name)).version === version;
  if (Object.entries(pinned).every(there)) return;
  console.error("bench: installing the peers into bench/peers");
  execFileSync("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"], { cwd: folder, stdio: "ignore" });
}

/**
 * Installs a Debian package where that is allowed.
 * @returns why it is still missing
 */
export function installPackage(name: string, works: () => boolean): string | undefined {
  if (works()) return;
  if (process.getuid?.() !== 0) return `${name} is not installed (apt-get install ${name})`;
  console.error(`bench: installing ${name} by apt`);
  try {
    execFileSync("apt-get", ["update", "-qq"], { stdio: "ignore" });
    execFileSync("apt-get", ["install", "-y", "-qq", "--no-install-recommends", name], { stdio: "ignore" });
  } catch (error) {
    return `${name} could not be installed: ${error instanceof Error ? error.message : error}`;
  }
  return works() ? undefined : `${name} was installed but does not start`;
}

export const runs = (program: string): boolean => {
  try {
    execFileSync(program, ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
};

const major = (version: string) => Number(version.split(".")[0]);

/** A Node of at least this version: the one that runs now, else the one that comes with the peers, else undefined. */
export function nodeOf(atLeast = 0): string | undefined {
  if (major(process.versions.node) >= atLeast) return process.execPath;
  const bundled = peerFile(`node-${process.platform}-${process.arch}`, "bin/node");
  return existsSync(bundled) ? bundled : undefined;
}

/** What every peer needs before its own: packages and, for some, a newer Node than ours. */
export function preparePeer(nodeAtLeast?: number): string | undefined {
  installPeers();
  if (nodeOf(nodeAtLeast) !== undefined) return;
  return `it needs Node ${nodeAtLeast} (this is ${process.version})`;
}
