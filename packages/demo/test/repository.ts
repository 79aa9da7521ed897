import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { headCommit } from "../src/git.ts";

export type Author = { name: string; email: string };
export const ada: Author = { name: "Ada", email: "ada@example.org" };
export const bob: Author = { name: "Bob", email: "bob@example.org" };

/** A git repository in a folder of its own, untouched by the settings of whoever runs the tests. */
export const makeRepository = (options: { bare?: boolean } = {}) => {
  const root = mkdtempSync(join(tmpdir(), "waggle-demo-"));
  const path = join(root, "sample");
  mkdirSync(path);
  const run = (args: string[], env: Record<string, string> = {}) =>
    execFileSync("git", ["-C", path, ...args], {
      env: { ...process.env, GIT_CONFIG_GLOBAL: "/dev/null", GIT_CONFIG_NOSYSTEM: "1", ...env },
      stdio: ["ignore", "pipe", "pipe"],
    }).toString();
  run(["init", "-q", "-b", "main", ...(options.bare ? ["--bare"] : [])]);
  let clock = Date.parse("2024-01-01T12:00:00Z");
  const repository = {
    path,
    root,
    git: run,
    write(files: Record<string, string | Buffer | undefined>) {
      for (const [name, content] of Object.entries(files)) {
        const file = join(path, name);
        if (content === undefined) rmSync(file, { force: true });
        else {
          mkdirSync(dirname(file), { recursive: true });
          writeFileSync(file, content);
        }
      }
    },
    /** Writes, removes (undefined) and commits; each commit a day after the one before unless told when. */
    commit(
      files: Record<string, string | Buffer | undefined>,
      how: { author?: Author; at?: string; message?: string } = {},
    ) {
      repository.write(files);
      const { author = ada, message = "change" } = how;
      clock = how.at ? Date.parse(how.at) : clock + 86_400_000;
      const date = new Date(clock).toISOString();
      run(["add", "-A"]);
      run(["commit", "-q", "--allow-empty", "-m", message], {
        GIT_AUTHOR_NAME: author.name,
        GIT_AUTHOR_EMAIL: author.email,
        GIT_AUTHOR_DATE: date,
        GIT_COMMITTER_NAME: author.name,
        GIT_COMMITTER_EMAIL: author.email,
        GIT_COMMITTER_DATE: date,
      });
    },
    head: () => headCommit(path),
    remove: () => rmSync(root, { recursive: true, force: true }),
  };
  return repository;
};
export type Repository = ReturnType<typeof makeRepository>;

export const lines = (count: number, line: (index: number) => string) =>
  `${Array.from({ length: count }, (_, index) => line(index)).join("\n")}\n`;
