import { type File, grepFiles, listFiles, readSources } from "../files.ts";
import { GitError, gitText, type Run } from "../git.ts";
import { countLines } from "../language.ts";

export type Todo = { path: string; line: number; mark: string; text: string; at?: string; author?: string };
export type Todos = { todos: Todo[]; notes: string[] };

const marks = "TODO|FIXME|HACK|XXX|BUG";
const pattern = new RegExp(`(?:^|[^\\w$-])(${marks})(?![\\w-])(?:\\s*\\([^)]*\\))?\\s*[:\\-–—]?\\s*(.*)`);
/** Blame reads a file's whole history: above this many files a task stops asking for ages. */
const maxBlamed = 60;
const maxPerFile = 40;

/** Source files in which such a mark stands somewhere, by git's own search. */
export const findTodoFiles = async (
  repo: string,
  commit: string | undefined,
  files: readonly File[],
  signal?: AbortSignal,
) => {
  if (commit === undefined) return [];
  const found = new Set(await grepFiles(repo, commit, `(${marks})`, signal));
  return files
    .filter((file) => file.kind === "source" && file.language?.kind === "code" && found.has(file.path))
    .map((file) => file.path);
};

/** Marks in comments, with the time their line was written and by whom (`git blame`, whitespace changes looked through). */
export const findTodos = async (
  input: { repo: string; commit?: string | undefined; paths: readonly string[] },
  run: Run = {},
): Promise<Todos> => {
  const { repo, commit } = input;
  const { signal } = run;
  if (commit === undefined) return { todos: [], notes: [] };
  const wanted = new Set(input.paths);
  const listing = await listFiles(repo, commit, signal);
  const files = listing.files.filter((file) => wanted.has(file.path));
  const byFile = new Map<string, Todo[]>();
  for await (const { file, text } of readSources(repo, files, { signal })) {
    const found: Todo[] = [];
    countLines(text, file.language, (line, _code, comment) => {
      const match = comment === "" ? undefined : pattern.exec(comment);
      if (!match || found.length >= maxPerFile) return;
      const words = match[2]!.replace(/(\*\/|-->|"""|''')\s*$/, "").trim();
      // `XXX` and `BUG` alone are as often a placeholder as a note.
      if (words === "" && (match[1] === "XXX" || match[1] === "BUG")) return;
      found.push({ path: file.path, line, mark: match[1]!, text: words.slice(0, 160) });
    });
    if (found.length > 0) byFile.set(file.path, found);
  }
  let done = 0;
  const notes: string[] = [];
  for (const [path, todos] of byFile) {
    done += 1;
    run.progress?.((100 * done) / byFile.size, path);
    if (done > maxBlamed) {
      notes.push(`The age of the marks in ${byFile.size - maxBlamed} files was not looked up.`);
      break;
    }
    try {
      await blame(repo, commit, path, todos, signal);
    } catch (cause) {
      if (!(cause instanceof GitError)) throw cause;
      notes.push(`The age of the marks in one file is unknown (${cause.message.slice(0, 120)}).`);
    }
  }
  return { todos: [...byFile.values()].flat(), notes };
};

const blame = async (repo: string, commit: string, path: string, todos: Todo[], signal?: AbortSignal) => {
  const ranges = todos.flatMap((todo) => ["-L", `${todo.line},${todo.line}`]);
  const answer = await gitText(repo, ["blame", "--line-porcelain", "-w", ...ranges, commit, "--", path], { signal });
  let line = 0;
  let author = "";
  let seconds = 0;
  for (const row of answer.split("\n")) {
    const header = /^[0-9a-f]{40,64} \d+ (\d+)/.exec(row);
    if (header) line = Number(header[1]);
    else if (row.startsWith("author ")) author = row.slice(7);
    else if (row.startsWith("author-time ")) seconds = Number(row.slice(12));
    else if (row.startsWith("\t")) {
      const todo = todos.find((entry) => entry.line === line);
      if (todo) Object.assign(todo, { at: new Date(seconds * 1000).toISOString(), author });
    }
  }
};
