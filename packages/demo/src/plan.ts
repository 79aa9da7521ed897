import { basename } from "node:path";
import { findLockFiles, findUnlocked, maxLockFiles } from "./analyse/dependencies.ts";
import { historyWindow, type Window } from "./analyse/history.ts";
import { blamable, blameLimit } from "./analyse/ownership.ts";
import { findTodoFiles } from "./analyse/todos.ts";
import { type File, listFiles } from "./files.ts";
import { git, gitText, headCommit, type Run } from "./git.ts";

/** The stages of a run, in the order people read them; each is also the type of its tasks. */
export const stages = [
  "plan",
  "overview",
  "languages",
  "history",
  "ownership",
  "todos",
  "dependencies",
  "duplicates.fingerprint",
  "duplicates.match",
  "tests",
  "large-files",
  "report",
] as const;
export type Stage = (typeof stages)[number];

export type PlannedTask = {
  ref: string;
  type: Stage;
  description: string;
  priority: number;
  requires: { capability: string; minLevel?: number }[];
  dependsOn: string[];
  input: Record<string, unknown>;
};
export type Plan = {
  repo: string;
  name: string;
  commit?: string;
  window: Window;
  codeFiles: number;
  unlocked: string[];
  lockFilesLeftOut: string[];
  tasks: PlannedTask[];
};

const parts = (amount: number, each: number, most: number) => Math.min(most, Math.max(1, Math.ceil(amount / each)));
const weigh = (files: readonly File[]) => files.reduce((sum, file) => sum + file.size, 0);

/**
 * Looks at a repository and cuts the work into tasks: by bytes, commits, files or lock files, fewer than 80,
 * so that the report can depend on all of them (a task may have 100 dependencies).
 */
export const plan = async (input: { repo: string; outDir?: string | undefined }, run: Run = {}): Promise<Plan> => {
  const { repo } = input;
  const commit = await headCommit(repo, run.signal);
  const { files } = await listFiles(repo, commit, run.signal);
  run.progress?.(30, `${files.length} files`);
  const source = files.filter((file) => file.kind === "source");
  const code = source.filter((file) => file.language?.kind === "code");
  const window = await historyWindow(repo, commit, run.signal);
  const locks = findLockFiles(files);
  run.progress?.(60, "marks");
  const marked = await findTodoFiles(repo, commit, files, run.signal);
  const remote = (
    await git(repo, ["config", "--get", "remote.origin.url"], { signal: run.signal, allow: [0, 1] })
  ).bytes
    .toString("utf8")
    .trim();
  // A working copy's folder may be called anything; its origin tells the name others know.
  const named = /^\w+(:\/\/|@)/.test(remote) ? basename(remote) : basename(repo.replace(/\/\.git\/?$/, ""));
  const name = named.replace(/\.git$/, "") || "repository";
  const where = { repo, ...(commit === undefined ? {} : { commit }) };

  const tasks: PlannedTask[] = [];
  const add = (
    type: Stage,
    index: number,
    description: string,
    priority: number,
    requires: PlannedTask["requires"],
    more: Record<string, unknown>,
    dependsOn: string[] = [],
  ) => {
    const ref = index < 0 ? type : `${type}-${index + 1}`;
    tasks.push({ ref, type, description, priority, requires, dependsOn, input: { ...where, ...more } });
    return `ref:${ref}`;
  };
  const sliced = (
    type: Stage,
    of: number,
    description: string,
    priority: number,
    requires: PlannedTask["requires"],
    more: Record<string, unknown> = {},
  ) =>
    Array.from({ length: of }, (_, index) =>
      add(type, index, of > 1 ? `${description}, part ${index + 1} of ${of}` : description, priority, requires, {
        ...more,
        slice: { index, of },
      }),
    );

  add("overview", -1, "age, activity, licence, CI", 7, [{ capability: "git" }], { name });
  const total =
    commit === undefined ? 0 : Number(await gitText(repo, ["rev-list", "--count", commit], { signal: run.signal }));
  const limit = blameLimit(total);
  const blames = blamable(files, limit).length;
  // The longest work first, so that nothing long is left for the end.
  sliced(
    "ownership",
    parts(blames, 24, 18),
    `who wrote the lines of ${blames} files`,
    8,
    [{ capability: "history", minLevel: 0.8 }],
    { limit },
  );
  const each = Math.max(100, Math.ceil(window.commits / 10));
  for (let skip = 0; skip < window.commits; skip += each)
    add(
      "history",
      skip / each,
      `changes in commits ${skip + 1} to ${Math.min(skip + each, window.commits)}, newest first`,
      7,
      [{ capability: "history" }],
      {
        ...(window.since === undefined ? {} : { since: window.since }),
        skip,
        count: Math.min(each, window.commits - skip),
      },
    );
  const prints = sliced("duplicates.fingerprint", parts(weigh(code), 400_000, 8), "fingerprints of code", 6, [
    { capability: "duplicates" },
  ]);
  add(
    "duplicates.match",
    -1,
    "copies among all fingerprints",
    6,
    [{ capability: "duplicates", minLevel: 0.5 }],
    {},
    prints,
  );
  sliced("languages", parts(weigh(source), 300_000, 10), "files and lines by language", 5, [
    { capability: "languages" },
  ]);
  sliced("tests", parts(weigh(code), 500_000, 6), "tests and what they reach", 5, [{ capability: "tests" }]);
  for (const [index, lock] of locks.slice(0, Math.min(maxLockFiles, 12)).entries())
    add("dependencies", index, lock.path.slice(0, 200), 4, [{ capability: "dependencies" }], { path: lock.path });
  const marks = marked.slice(0, 400);
  const perTask = Math.max(8, Math.ceil(marks.length / 6));
  for (let from = 0; from < marks.length; from += perTask)
    add(
      "todos",
      from / perTask,
      `marks in ${Math.min(perTask, marks.length - from)} files`,
      4,
      [{ capability: "history", minLevel: 0.5 }],
      {
        paths: marks.slice(from, from + perTask),
      },
    );
  add("large-files", -1, "what weighs, in the tree and in history", 5, [{ capability: "git" }], {});
  add(
    "report",
    -1,
    "the health report",
    9,
    [{ capability: "report" }],
    { name, ...(input.outDir === undefined ? {} : { outDir: input.outDir }) },
    tasks.map((task) => `ref:${task.ref}`),
  );
  return {
    ...where,
    name,
    window,
    codeFiles: code.length,
    unlocked: findUnlocked(files).slice(0, 50),
    lockFilesLeftOut: locks.slice(12).map((file) => file.path),
    tasks,
  };
};
