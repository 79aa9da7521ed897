import { type File, listFiles, maxTextBytes, type Slice, slice } from "../files.ts";
import { GitError, git, type Run } from "../git.ts";
import { dirname } from "../language.ts";
import { busFactor, isBot } from "./history.ts";

/**
 * How many files are asked for: blame walks a file's whole history, so that the longer that is the fewer files can be
 * afforded. The largest are kept, and the report says so.
 */
export const blameLimit = (commits: number) =>
  Math.max(150, Math.min(800, Math.round(2_000_000 / Math.max(1, commits))));

export type OwnershipPart = {
  authors: string[];
  /** A file's path, and its lines by author and year: [author, year, lines, …]. */
  files: [path: string, by: number[]][];
  failed: number;
};
export type Owner = { name: string; lines: number; share: number; folders: number };
export type FolderOwners = {
  path: string;
  files: number;
  lines: number;
  authors: number;
  busFactor: number;
  owner: string;
  share: number;
  medianYear: number;
};
export type Ownership = {
  lines: number;
  owners: Owner[];
  ownerCount: number;
  busFactor: number;
  folders: FolderOwners[];
  /** Lines by the year they were last written. */
  years: { year: number; lines: number }[];
  notes: string[];
};

/** Code files whose lines are asked for, in listing order. */
export const blamable = (files: readonly File[], limit = 800) => {
  const code = files.filter(
    (file) => file.kind === "source" && file.language?.kind === "code" && file.size > 0 && file.size <= maxTextBytes,
  );
  if (code.length <= limit) return code;
  const kept = new Set([...code].sort((a, b) => b.size - a.size).slice(0, limit));
  return code.filter((file) => kept.has(file));
};

/** Who wrote the lines that stand today, and when (`git blame`, whitespace changes looked through). */
export const readOwnership = async (
  input: { repo: string; commit?: string | undefined; slice?: Slice | undefined; limit?: number | undefined },
  run: Run = {},
): Promise<OwnershipPart> => {
  const { repo, commit } = input;
  const part: OwnershipPart = { authors: [], files: [], failed: 0 };
  if (commit === undefined) return part;
  const listing = await listFiles(repo, commit, run.signal);
  const files = slice(blamable(listing.files, input.limit), input.slice);
  const authors = new Map<string, number>();
  let done = 0;
  for (const file of files) {
    run.progress?.((100 * done) / files.length, file.path);
    done += 1;
    let rows: string[];
    try {
      const { bytes } = await git(repo, ["blame", "--incremental", "-w", commit, "--", file.path], {
        signal: run.signal,
      });
      rows = bytes.toString("utf8").split("\n");
    } catch (cause) {
      if (!(cause instanceof GitError)) throw cause;
      part.failed += 1;
      continue;
    }
    const commits = new Map<string, { author: number; year: number }>();
    const lines = new Map<string, { author: number; year: number; lines: number }>();
    let name = "";
    let year = 0;
    let oid = "";
    let count = 0;
    for (const row of rows) {
      const header = /^([0-9a-f]{40,64}) \d+ \d+ (\d+)$/.exec(row);
      if (header) {
        oid = header[1]!;
        count = Number(header[2]);
      } else if (row.startsWith("author ")) name = row.slice(7);
      else if (row.startsWith("author-time ")) year = new Date(Number(row.slice(12)) * 1000).getUTCFullYear();
      else if (row.startsWith("filename ")) {
        // The last row of an entry; who and when are told only with a commit's first.
        let known = commits.get(oid);
        if (!known) {
          const author = authors.get(name) ?? authors.size;
          authors.set(name, author);
          known = { author, year };
          commits.set(oid, known);
        }
        const key = `${known.author}:${known.year}`;
        const sum = lines.get(key) ?? { ...known, lines: 0 };
        sum.lines += count;
        lines.set(key, sum);
      }
    }
    part.files.push([file.path, [...lines.values()].flatMap((sum) => [sum.author, sum.year, sum.lines])]);
  }
  part.authors = [...authors.keys()];
  return part;
};

/** The folder a file is counted in: two names deep where a top folder has much of the code. */
const folders = (paths: readonly string[]) => {
  const count = new Map<string, number>();
  for (const path of paths) count.set(path.split("/")[0]!, (count.get(path.split("/")[0]!) ?? 0) + 1);
  return (path: string) => {
    const names = dirname(path).split("/").filter(Boolean);
    if (names.length === 0) return "(top level)";
    const deep = count.get(names[0]!)! > Math.max(12, paths.length * 0.2);
    return names.slice(0, deep ? 2 : 1).join("/");
  };
};

export const mergeOwnership = (parts: readonly OwnershipPart[], codeFiles: number): Ownership => {
  const owners = new Map<string, { lines: number; folders: Set<string> }>();
  const years = new Map<number, number>();
  const byFolder = new Map<string, { files: number; owners: Map<string, number>; years: Map<number, number> }>();
  const paths = parts.flatMap((part) => part.files.map(([path]) => path));
  const folderOf = folders(paths);
  const add = <K>(map: Map<K, number>, key: K, value: number) => map.set(key, (map.get(key) ?? 0) + value);
  for (const part of parts)
    for (const [path, by] of part.files) {
      const name = folderOf(path);
      const folder = byFolder.get(name) ?? {
        files: 0,
        owners: new Map<string, number>(),
        years: new Map<number, number>(),
      };
      byFolder.set(name, folder);
      folder.files += 1;
      for (let at = 0; at < by.length; at += 3) {
        const author = part.authors[by[at]!]!;
        const lines = by[at + 2]!;
        add(years, by[at + 1]!, lines);
        add(folder.years, by[at + 1]!, lines);
        if (isBot(author)) continue;
        add(folder.owners, author, lines);
        const owner = owners.get(author) ?? { lines: 0, folders: new Set<string>() };
        owners.set(author, owner);
        owner.lines += lines;
        owner.folders.add(name);
      }
    }
  const total = [...owners.values()].reduce((sum, owner) => sum + owner.lines, 0);
  const notes: string[] = [];
  if (codeFiles > paths.length)
    notes.push(`Lines of the ${paths.length} largest of ${codeFiles} code files were asked for.`);
  const failed = parts.reduce((sum, part) => sum + part.failed, 0);
  if (failed > 0) notes.push(`git could not tell for ${failed} files.`);
  return {
    lines: total,
    owners: [...owners]
      .map(([name, owner]) => ({
        name,
        lines: owner.lines,
        share: total > 0 ? owner.lines / total : 0,
        folders: owner.folders.size,
      }))
      .sort((a, b) => b.lines - a.lines)
      .slice(0, 25),
    ownerCount: owners.size,
    busFactor: busFactor([...owners.values()].map((owner) => owner.lines)),
    folders: [...byFolder]
      .map(([path, folder]): FolderOwners => {
        const sorted = [...folder.owners].sort((a, b) => b[1] - a[1]);
        const lines = sorted.reduce((sum, [, value]) => sum + value, 0);
        return {
          path,
          files: folder.files,
          lines,
          authors: sorted.length,
          busFactor: busFactor(sorted.map(([, value]) => value)),
          owner: sorted[0]?.[0] ?? "",
          share: lines > 0 ? (sorted[0]?.[1] ?? 0) / lines : 0,
          medianYear: median(folder.years),
        };
      })
      .filter((folder) => folder.lines > 0)
      .sort((a, b) => b.lines - a.lines)
      .slice(0, 40),
    years: [...years].map(([year, lines]) => ({ year, lines })).sort((a, b) => a.year - b.year),
    notes,
  };
};

const median = (years: ReadonlyMap<number, number>) => {
  const sorted = [...years].sort((a, b) => a[0] - b[0]);
  const half = sorted.reduce((sum, [, lines]) => sum + lines, 0) / 2;
  let before = 0;
  const middle = sorted.find(([, lines]) => {
    before += lines;
    return before >= half;
  });
  return middle?.[0] ?? 0;
};
