import { listFiles } from "../files.ts";
import { GitError, gitFields, gitText, type Run } from "../git.ts";

/** The part of history looked at: the year before the newest commit, or all of it when that year was quiet. */
export type Window = { since?: number; commits: number; capped: boolean; label: string };
/** One shard of `git log`, newest first. */
export type HistoryPart = {
  authors: string[];
  /** Path → [commits, added, deleted, [author, lines touched, …]]. */
  files: Record<string, [commits: number, added: number, deleted: number, by: number[]]>;
  renames: [from: string, to: string][];
  commits: number;
  /** Commits that touched so many files that they say nothing about any one of them. */
  sweeping: number;
  /** Old contents are not in this clone: changes were counted, not lines. */
  partial?: boolean;
};
export type Author = { name: string; commits: number; lines: number; share: number; bot: boolean };
export type Hotspot = {
  path: string;
  commits: number;
  added: number;
  deleted: number;
  authors: number;
  owner: string;
  share: number;
  lines: number;
  score: number;
};
export type History = {
  window: Window;
  commits: number;
  sweeping: number;
  authors: Author[];
  authorCount: number;
  busFactor: number;
  hotspots: Hotspot[];
  /** Files one person alone changed, of those changed at least 5 times. */
  soloFiles: number;
  busyFiles: number;
  notes: string[];
};

export const maxCommits = 6000;
export const maxFilesOfACommit = 400;
const year = 365 * 86_400;

export const historyWindow = async (
  repo: string,
  commit: string | undefined,
  signal?: AbortSignal,
): Promise<Window> => {
  if (commit === undefined) return { commits: 0, capped: false, label: "no commits" };
  const newest = Number(await gitText(repo, ["log", "-1", "--format=%ct", commit], { signal }));
  const count = async (...more: string[]) =>
    Number(await gitText(repo, ["rev-list", "--count", "--no-merges", ...more, commit], { signal }));
  const since = newest - year;
  const lastYear = await count(`--since=@${since}`);
  const all = await count();
  const whole = lastYear < 50 || lastYear === all;
  const commits = whole ? all : lastYear;
  return {
    ...(whole ? {} : { since }),
    commits: Math.min(commits, maxCommits),
    capped: commits > maxCommits,
    label:
      commits > maxCommits
        ? `the newest ${maxCommits} commits`
        : whole
          ? "all of history"
          : "the year before the newest commit",
  };
};

/** Who changed which file how often, over `count` commits after leaving out the newest `skip`. Merges are left out. */
export const readHistory = async (
  input: { repo: string; commit?: string | undefined; since?: number | undefined; skip: number; count: number },
  run: Run = {},
): Promise<HistoryPart> => {
  const part: HistoryPart = { authors: [], files: {}, renames: [], commits: 0, sweeping: 0 };
  const { repo, since, skip, count, commit } = input;
  if (commit === undefined || count === 0) return part;
  run.progress?.(5, `${count} commits`);
  const log = (...how: string[]) =>
    gitFields(
      repo,
      [
        "log",
        "-z",
        "--no-merges",
        ...how,
        "--no-textconv",
        "--no-ext-diff",
        "--format=%x01%aN",
        ...(since === undefined ? [] : [`--since=@${since}`]),
        `--skip=${skip}`,
        `--max-count=${count}`,
        commit,
      ],
      { signal: run.signal },
    );
  const { fields } = await log("--numstat", "-M", "-l400").catch((cause: unknown) => {
    if (!(cause instanceof GitError)) throw cause;
    part.partial = true;
    return log("--name-only", "--no-renames");
  });
  const authorIndex = new Map<string, number>();
  const files = new Map<string, [number, number, number, Map<number, number>]>();
  // A file's name in an older commit, to its name in the newest commit of this part.
  const alias = new Map<string, string>();
  type Change = { path: string; from?: string; added: number; deleted: number };
  let author = 0;
  let changes: Change[] = [];
  const endCommit = () => {
    if (changes.length > maxFilesOfACommit) part.sweeping += 1;
    for (const change of changes) {
      const path = alias.get(change.path) ?? change.path;
      if (change.from !== undefined) {
        alias.set(change.from, path);
        part.renames.push([change.from, path]);
      }
      if (changes.length > maxFilesOfACommit) continue;
      const row = files.get(path) ?? [0, 0, 0, new Map<number, number>()];
      files.set(path, row);
      row[0] += 1;
      row[1] += change.added;
      row[2] += change.deleted;
      // Where lines are not known, a change weighs one.
      row[3].set(author, (row[3].get(author) ?? 0) + (part.partial ? 1 : change.added + change.deleted));
    }
    changes = [];
  };
  for (let at = 0; at < fields.length; at += 1) {
    const field = fields[at]!.replace(/^\n/, "");
    if (field.startsWith("\x01")) {
      endCommit();
      const name = field.slice(1) || "unknown";
      author = authorIndex.get(name) ?? authorIndex.size;
      authorIndex.set(name, author);
      part.commits += 1;
      continue;
    }
    if (part.partial) {
      if (field !== "") changes.push({ path: field, added: 0, deleted: 0 });
      continue;
    }
    // A name may hold tabs as well.
    const [, added, deleted, path] = /^([^\t]*)\t([^\t]*)\t([\s\S]*)$/.exec(field) ?? [];
    if (path === undefined) continue;
    const change = { added: Number(added) || 0, deleted: Number(deleted) || 0 };
    if (path !== "") changes.push({ path, ...change });
    else {
      changes.push({ from: fields[at + 1]!, path: fields[at + 2]!, ...change });
      at += 2;
    }
  }
  endCommit();
  part.authors = [...authorIndex.keys()];
  // Names such as `__proto__` are file names too.
  part.files = Object.fromEntries(
    [...files].map(([path, [commits, added, deleted, by]]) => [path, [commits, added, deleted, [...by].flat()]]),
  );
  return part;
};

export const isBot = (name: string) =>
  /\[bot\]|^(dependabot|renovate|github-actions|greenkeeper|snyk-bot|semantic-release-bot)\b|\bbot$/i.test(name);

/** How few people together made more than half of the changes. */
export const busFactor = (lines: readonly number[]) => {
  const sorted = [...lines].sort((a, b) => b - a);
  const total = sorted.reduce((sum, value) => sum + value, 0);
  if (total === 0) return 0;
  let covered = 0;
  return (
    sorted.findIndex((value) => {
      covered += value;
      return covered * 2 > total;
    }) + 1
  );
};

/** Parts newest first. `lines` are those of the files that still exist. */
export const mergeHistory = async (
  input: {
    repo: string;
    commit?: string | undefined;
    window: Window;
    parts: readonly HistoryPart[];
    lines: ReadonlyMap<string, number>;
  },
  run: Run = {},
): Promise<History> => {
  const listing = await listFiles(input.repo, input.commit, run.signal);
  const here = new Map(listing.files.map((file) => [file.path, file]));
  const alias = new Map<string, string>();
  const people = new Map<string, { commits: number; lines: number }>();
  const files = new Map<string, { commits: number; added: number; deleted: number; by: Map<string, number> }>();
  let commits = 0;
  let sweeping = 0;
  for (const part of input.parts) {
    commits += part.commits;
    sweeping += part.sweeping;
    for (const [older, [count, added, deleted, by]] of Object.entries(part.files)) {
      const path = alias.get(older) ?? older;
      const row = files.get(path) ?? { commits: 0, added: 0, deleted: 0, by: new Map<string, number>() };
      files.set(path, row);
      row.commits += count;
      row.added += added;
      row.deleted += deleted;
      for (let at = 0; at < by.length; at += 2) {
        const name = part.authors[by[at]!]!;
        row.by.set(name, (row.by.get(name) ?? 0) + by[at + 1]!);
      }
    }
    for (const [from, to] of part.renames) alias.set(from, alias.get(to) ?? to);
  }
  const counted = await authorCommits(input, run.signal);
  const hotspots: Hotspot[] = [];
  let soloFiles = 0;
  let busyFiles = 0;
  for (const [path, row] of files) {
    const file = here.get(path);
    if (file?.kind !== "source") continue;
    const human = [...row.by].filter(([name]) => !isBot(name)).sort((a, b) => b[1] - a[1]);
    for (const [name, lines] of human) {
      const person = people.get(name) ?? { commits: 0, lines: 0 };
      people.set(name, person);
      person.lines += lines;
    }
    const total = human.reduce((sum, [, lines]) => sum + lines, 0);
    if (row.commits >= 5) {
      busyFiles += 1;
      if (human.length === 1) soloFiles += 1;
    }
    if (file.test || file.language?.kind === "data" || file.language?.kind === "prose") continue;
    const lines = input.lines.get(path) ?? 0;
    hotspots.push({
      path,
      commits: row.commits,
      added: row.added,
      deleted: row.deleted,
      authors: human.length,
      owner: human[0]?.[0] ?? "",
      share: total > 0 ? (human[0]?.[1] ?? 0) / total : 0,
      lines,
      score: row.commits * lines,
    });
  }
  const authors = [...counted]
    .map(([name, count]) => ({ name, commits: count, lines: people.get(name)?.lines ?? 0, bot: isBot(name) }))
    .sort((a, b) => Number(a.bot) - Number(b.bot) || b.lines - a.lines || b.commits - a.commits);
  const touched = authors.reduce((sum, author) => sum + author.lines, 0);
  const notes: string[] = [];
  if (input.window.capped) notes.push(`Only the newest ${input.window.commits} commits were read.`);
  if (input.parts.some((part) => part.partial))
    notes.push("This is a partial clone: where old contents are missing, changes were counted, not lines.");
  if (sweeping > 0)
    notes.push(
      `${sweeping} commits that touched more than ${maxFilesOfACommit} files each count for their author, not for the files.`,
    );
  return {
    window: input.window,
    commits,
    sweeping,
    authors: authors.slice(0, 30).map((author) => ({ ...author, share: touched > 0 ? author.lines / touched : 0 })),
    authorCount: authors.filter((author) => !author.bot).length,
    busFactor: busFactor(authors.filter((author) => !author.bot).map((author) => author.lines)),
    hotspots: hotspots.sort((a, b) => b.score - a.score || b.commits - a.commits).slice(0, 40),
    soloFiles,
    busyFiles,
    notes,
  };
};

const authorCommits = async (
  input: { repo: string; commit?: string | undefined; window: Window },
  signal?: AbortSignal,
) => {
  const counts = new Map<string, number>();
  if (input.commit === undefined || input.window.commits === 0) return counts;
  const { fields } = await gitFields(
    input.repo,
    [
      "log",
      "-z",
      "--no-merges",
      "--format=%aN",
      ...(input.window.since === undefined ? [] : [`--since=@${input.window.since}`]),
      `--max-count=${input.window.commits}`,
      input.commit,
    ],
    { signal },
  );
  for (const name of fields) counts.set(name || "unknown", (counts.get(name || "unknown") ?? 0) + 1);
  return counts;
};
