import { type Dependencies, findLockFiles, findUnlocked } from "../analyse/dependencies.ts";
import { type Duplicates, emptyDuplicates } from "../analyse/duplicates.ts";
import { type History, type HistoryPart, historyWindow, mergeHistory } from "../analyse/history.ts";
import { type Languages, linesByPath, mergeLanguages } from "../analyse/languages.ts";
import { emptyLarge, type Large } from "../analyse/large.ts";
import { emptyOverview, type Overview } from "../analyse/overview.ts";
import { mergeOwnership, type Ownership, type OwnershipPart } from "../analyse/ownership.ts";
import { mergeTests, type TestPart, type Tests } from "../analyse/tests.ts";
import type { Todo, Todos } from "../analyse/todos.ts";
import { listFiles } from "../files.ts";
import type { Run } from "../git.ts";
import type { Stage } from "../plan.ts";

/** One task of the run, as the record of who did what. Times in milliseconds since the epoch. */
export type Made = {
  id: string;
  type: string;
  description: string;
  agent: string;
  status: string;
  createdAt: number;
  /** When nothing but a free agent was missing. */
  readyAt: number;
  startedAt?: number;
  finishedAt?: number;
  /** `lost`: its agent went away. `failed`: it ended with an error. Both were tried again. */
  attempts: { agent: string; from: number; to: number; end: "done" | "lost" | "failed" }[];
};
export type Making = {
  at: number;
  tasks: Made[];
  agents: { name: string; capabilities: string[]; concurrency: number }[];
  server?: string;
};

export type Report = {
  name: string;
  at: number;
  overview: Overview;
  languages: Omit<Languages, "lines">;
  history: History;
  ownership: Ownership;
  todos: Todo[];
  locks: Dependencies[];
  unlocked: string[];
  duplicates: Duplicates;
  tests: Tests;
  large: Large;
  notes: string[];
  making: Making;
};

/** The results of a run's tasks, by type, in the order in which they were planned. */
export type Results = Partial<Record<Stage, unknown[]>>;

/** A part that git would not do: the report goes without it, and says so. */
export type Undone = { undone: string };
export const isUndone = (result: unknown): result is Undone =>
  typeof result === "object" && result !== null && typeof (result as Partial<Undone>).undone === "string";

/** Puts the parts together: the fan-in. */
export const assemble = async (
  input: { repo: string; commit?: string | undefined; name: string; results: Results; making: Making },
  run: Run = {},
): Promise<Report> => {
  const { repo, commit, results } = input;
  const undone: string[] = [];
  const of = <T>(type: Stage) => (results[type] ?? []).filter((result) => !isUndone(result)) as T[];
  for (const [type, list] of Object.entries(results))
    for (const result of list) if (isUndone(result)) undone.push(`${type} could not be done: ${result.undone}`);
  const { files } = await listFiles(repo, commit, run.signal);
  const window = await historyWindow(repo, commit, run.signal);
  const languages = of<Languages>("languages");
  // A slice that could not be done keeps its place among the others.
  const slices = (results.languages ?? []).map((result) => (isUndone(result) ? undefined : (result as Languages)));
  const overview = of<Overview>("overview")[0] ?? emptyOverview(input.name);
  const history = await mergeHistory(
    { repo, commit, window, parts: of<HistoryPart>("history"), lines: linesByPath(files, slices) },
    run,
  );
  const code = files.filter((file) => file.kind === "source" && file.language?.kind === "code" && file.size > 0);
  const ownership = mergeOwnership(of<OwnershipPart>("ownership"), code.length);
  const todos = of<Todos>("todos");
  const locks = of<Dependencies>("dependencies");
  const duplicates = of<Duplicates>("duplicates.match")[0] ?? emptyDuplicates;
  const large = of<Large>("large-files")[0] ?? emptyLarge;
  const leftOut = findLockFiles(files).length - locks.length;
  return {
    name: input.name,
    at: input.making.at,
    overview,
    languages: mergeLanguages(languages),
    history,
    ownership,
    todos: todos
      .flatMap((part) => part.todos)
      .sort((a, b) => (a.at ?? "9").localeCompare(b.at ?? "9") || a.path.localeCompare(b.path)),
    locks,
    unlocked: findUnlocked(files),
    duplicates,
    tests: mergeTests(of<TestPart>("tests")),
    large,
    notes: [
      ...undone,
      ...overview.notes,
      ...history.notes,
      ...ownership.notes,
      ...new Set(todos.flatMap((part) => part.notes)),
      ...duplicates.notes,
      ...large.notes,
      ...(leftOut > 0 ? [`${leftOut} further lock files were not read.`] : []),
    ],
    making: input.making,
  };
};
