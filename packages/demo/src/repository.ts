import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { GitError, gitText } from "./git.ts";

/** The top of the repository a path is in (its git folder when it is bare). Throws an error that says what is wrong with the path. */
export const repositoryOf = async (path: string): Promise<string> => {
  const full = resolve(path);
  const there = await stat(full).catch(() => undefined);
  if (!there) throw new GitError(`${full} does not exist`);
  if (!there.isDirectory()) throw new GitError(`${full} is not a folder`);
  try {
    const top = await gitText(full, ["rev-parse", "--show-toplevel"]).catch(() => "");
    return top || (await gitText(full, ["rev-parse", "--absolute-git-dir"]));
  } catch (cause) {
    if (cause instanceof GitError && /dubious ownership/.test(cause.message))
      throw new GitError(
        `${full} belongs to another user; allow it with: git config --global --add safe.directory ${full}`,
      );
    if (cause instanceof GitError && /not a git repository/.test(cause.message))
      throw new GitError(`${full} is not in a git repository`);
    throw cause;
  }
};
