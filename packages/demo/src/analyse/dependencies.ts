import { type File, listFiles, lockFiles } from "../files.ts";
import { type Run, readBlobs } from "../git.ts";
import { basename, dirname } from "../language.ts";
import { type Package, parsers } from "./lockfiles.ts";

export type Dependencies = {
  path: string;
  manager: string;
  packages: number;
  /** Left out where the lock file does not say. */
  direct?: number;
  dev: number;
  directs: { name: string; version: string; dev?: boolean }[];
  duplicates: { name: string; versions: string[] }[];
  flagged: { name: string; version: string; flag: string }[];
  licenses: Record<string, number>;
  /** Wishes that several versions would meet (`requirements.txt`). */
  unpinned: number;
  problem?: string;
};

const maxLockBytes = 20 * 1024 * 1024;
export const maxLockFiles = 20;

/** Lock files worth reading, nearest the top first. Where `go.sum` is, `go.mod` only tells what is direct. */
export const findLockFiles = (files: readonly File[]) => {
  const wanted = files.filter(
    (file) => file.kind !== "vendored" && !file.test && Object.hasOwn(lockFiles, basename(file.path)),
  );
  const paths = new Set(wanted.map((file) => file.path));
  return wanted
    .filter((file) => basename(file.path) !== "go.mod" || !paths.has(file.path.replace(/go\.mod$/, "go.sum")))
    .sort((a, b) => a.path.split("/").length - b.path.split("/").length || a.path.localeCompare(b.path));
};

/** Manifests that ask for packages with no lock file above them to say which versions. */
export const findUnlocked = (files: readonly File[]) => {
  const locked = new Set(files.filter((file) => file.kind === "lock").map((file) => dirname(file.path)));
  const isLocked = (folder: string): boolean => locked.has(folder) || (folder !== "" && isLocked(dirname(folder)));
  return files
    .filter(
      (file) =>
        file.kind === "source" &&
        !file.test &&
        /(^|\/)(package\.json|Cargo\.toml|Pipfile|Gemfile|composer\.json)$/.test(file.path),
    )
    .filter((file) => !isLocked(dirname(file.path)))
    .map((file) => file.path);
};

/** What one lock file pins: how much, how much of it by choice, what twice, and what deserves a look. */
export const readDependencies = async (
  input: { repo: string; commit?: string | undefined; path: string },
  run: Run = {},
): Promise<Dependencies> => {
  const name = basename(input.path);
  const reader = parsers[name];
  const empty = (problem: string): Dependencies => ({
    path: input.path,
    manager: reader?.manager ?? "unknown",
    packages: 0,
    dev: 0,
    directs: [],
    duplicates: [],
    flagged: [],
    licenses: {},
    unpinned: 0,
    problem,
  });
  if (!reader) return empty("no reader for this kind of lock file");
  const listing = await listFiles(input.repo, input.commit, run.signal);
  const folder = dirname(input.path);
  const beside = (other: string) => (folder === "" ? other : `${folder}/${other}`);
  const wanted = new Set([input.path, ...reader.manifests.map(beside)]);
  const files = listing.files.filter((file) => wanted.has(file.path));
  const lock = files.find((file) => file.path === input.path);
  if (!lock) return empty("not in this commit");
  if (lock.size > maxLockBytes) return empty(`too large to read (${Math.round(lock.size / 1e6)} MB)`);
  run.progress?.(20, input.path);
  const texts = new Map<string, string>();
  for await (const { blob, bytes } of readBlobs(input.repo, files, run.signal))
    texts.set(blob.path, bytes.toString("utf8"));
  let packages: Package[];
  try {
    packages = reader.parse(
      texts.get(input.path) ?? "",
      Object.fromEntries(reader.manifests.map((manifest) => [manifest, texts.get(beside(manifest))])),
    );
  } catch (cause) {
    return empty(`cannot be read: ${cause instanceof Error ? cause.message.slice(0, 200) : "unknown format"}`);
  }
  return { path: input.path, manager: reader.manager, ...summarise(packages) };
};

export const summarise = (packages: readonly Package[]): Omit<Dependencies, "path" | "manager"> => {
  const versions = new Map<string, Set<string>>();
  const licenses = new Map<string, number>();
  const distinct = new Map<string, Package>();
  for (const entry of packages) {
    const key = `${entry.name}@${entry.version}`;
    const known = distinct.get(key);
    distinct.set(key, known?.direct ? known : entry);
    versions.set(entry.name, (versions.get(entry.name) ?? new Set()).add(entry.version));
  }
  for (const { license } of distinct.values()) if (license) licenses.set(license, (licenses.get(license) ?? 0) + 1);
  const list = [...distinct.values()];
  const told = list.some((entry) => entry.direct !== undefined);
  const directs = list.filter((entry) => entry.direct === true);
  return {
    packages: list.length,
    ...(told ? { direct: directs.length } : {}),
    dev: list.filter((entry) => entry.dev).length,
    directs: directs
      .slice(0, 300)
      .map(({ name, version, dev }) => ({ name, version, ...(dev ? { dev } : {}) }))
      .sort((a, b) => a.name.localeCompare(b.name)),
    duplicates: [...versions]
      .filter(([, set]) => set.size > 1)
      .map(([name, set]) => ({ name, versions: [...set].sort(byVersion) }))
      .sort((a, b) => b.versions.length - a.versions.length || a.name.localeCompare(b.name))
      .slice(0, 200),
    flagged: list.flatMap(({ name, version, flag }) => (flag ? [{ name, version, flag }] : [])).slice(0, 200),
    licenses: Object.fromEntries([...licenses].sort((a, b) => b[1] - a[1]).slice(0, 20)),
    unpinned: list.filter((entry) => /^([<>~!^]|any$)/.test(entry.version)).length,
  };
};

const byVersion = (a: string, b: string) => a.localeCompare(b, "en", { numeric: true });
