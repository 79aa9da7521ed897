import { spawn } from "node:child_process";

/** What every analysis is given besides its input: the wish to stop and a place to say how far it is. */
export type Run = {
  signal?: AbortSignal | undefined;
  progress?: ((percent: number, message: string) => void) | undefined;
};

export type GitOptions = {
  signal?: AbortSignal | undefined;
  stdin?: string | undefined;
  /** Reading stops here; the answer then says `truncated`. */
  maxBytes?: number;
  /** Exit codes that are an answer, not a failure. */
  allow?: readonly number[];
};

export class GitError extends Error {
  readonly code = "demo.git_failed";
}

/**
 * A repository under analysis is not trusted: its own configuration must not make git start programs (fsmonitor, pager,
 * signature checks), fetch missing objects or ask for a password.
 */
const settings = [
  "--no-pager",
  "--no-replace-objects",
  "-c",
  "core.fsmonitor=false",
  "-c",
  "log.showSignature=false",
  "-c",
  "core.quotePath=false",
  "-c",
  "protocol.allow=never",
];
const environment = () => ({
  ...process.env,
  LC_ALL: "C",
  GIT_OPTIONAL_LOCKS: "0",
  GIT_TERMINAL_PROMPT: "0",
  GIT_NO_LAZY_FETCH: "1",
  GIT_LITERAL_PATHSPECS: "1",
});

const start = (repo: string, args: readonly string[], signal?: AbortSignal) =>
  spawn("git", ["-C", repo, ...settings, ...args], {
    env: environment(),
    stdio: ["pipe", "pipe", "pipe"],
    ...(signal ? { signal } : {}),
  });

/** Runs git without a shell. Throws {@link GitError} with git's own words when it fails. */
export const git = (repo: string, args: readonly string[], options: GitOptions = {}) =>
  new Promise<{ bytes: Buffer; code: number; truncated: boolean }>((resolve, reject) => {
    options.signal?.throwIfAborted();
    const { maxBytes = 256 * 1024 * 1024, allow = [0] } = options;
    const child = start(repo, args, options.signal);
    const chunks: Buffer[] = [];
    let size = 0;
    let truncated = false;
    let complaint = "";
    child.stdout.on("data", (chunk: Buffer) => {
      if (truncated) return;
      size += chunk.length;
      chunks.push(chunk);
      if (size > maxBytes) {
        truncated = true;
        child.kill("SIGKILL");
      }
    });
    child.stderr.on("data", (chunk: Buffer) => {
      if (complaint.length < 4096) complaint += chunk.toString();
    });
    child.on("error", (cause: NodeJS.ErrnoException) => {
      if (options.signal?.aborted) return reject(options.signal.reason);
      reject(cause.code === "ENOENT" ? new GitError("git is not installed, or not on the PATH", { cause }) : cause);
    });
    child.on("close", (code) => {
      if (options.signal?.aborted) return reject(options.signal.reason);
      const bytes = Buffer.concat(chunks, Math.min(size, Number.MAX_SAFE_INTEGER));
      if (truncated) return resolve({ bytes: bytes.subarray(0, maxBytes), code: 0, truncated });
      if (code === null || !allow.includes(code))
        return reject(new GitError(`git ${args[0]}: ${complaint.trim().split("\n")[0] || `exit code ${code}`}`));
      resolve({ bytes, code, truncated });
    });
    // git may end before it has read everything (its own error is told by its exit code).
    child.stdin.on("error", () => {});
    child.stdin.end(options.stdin ?? "");
  });

export const gitText = async (repo: string, args: readonly string[], options: GitOptions = {}) =>
  (await git(repo, args, options)).bytes.toString("utf8").trim();

/** The NUL-separated fields of a `-z` answer, the empty one at the end left out. */
export const gitFields = async (repo: string, args: readonly string[], options: GitOptions = {}) => {
  const { bytes, truncated } = await git(repo, args, options);
  const fields = bytes.toString("utf8").split("\0");
  // The last field is empty, or cut in two when the answer was truncated.
  fields.pop();
  return { fields, truncated };
};

/** git's `first | second`, the second's output collected. */
export const gitPipe = (repo: string, first: readonly string[], second: readonly string[], options: GitOptions = {}) =>
  new Promise<Buffer>((resolve, reject) => {
    options.signal?.throwIfAborted();
    const from = start(repo, first, options.signal);
    const to = start(repo, second, options.signal);
    const chunks: Buffer[] = [];
    let complaint = "";
    const complain = (chunk: Buffer) => {
      if (complaint.length < 4096) complaint += chunk.toString();
    };
    const failed = (cause: Error) => reject(options.signal?.aborted ? options.signal.reason : cause);
    from.on("error", failed);
    to.on("error", failed);
    from.stderr.on("data", complain);
    to.stderr.on("data", complain);
    to.stdin.on("error", () => {});
    from.stdin.end();
    from.stdout.pipe(to.stdin);
    to.stdout.on("data", (chunk: Buffer) => chunks.push(chunk));
    let left = 2;
    let wrong = false;
    const closed = (code: number | null) => {
      wrong ||= code !== 0;
      left -= 1;
      if (left > 0) return;
      if (wrong) failed(new GitError(`git ${first[0]} | git ${second[0]}: ${complaint.trim().split("\n")[0]}`));
      else resolve(Buffer.concat(chunks));
    };
    from.on("close", closed);
    to.on("close", closed);
  });

const batchBytes = 16 * 1024 * 1024;

/** The contents of blobs, one at a time, in the order given; few processes and bounded memory. Missing ones are left out. */
export async function* readBlobs<T extends { oid: string; size: number }>(
  repo: string,
  blobs: readonly T[],
  signal?: AbortSignal,
): AsyncGenerator<{ blob: T; bytes: Buffer }> {
  let from = 0;
  while (from < blobs.length) {
    let to = from;
    let size = 0;
    while (to < blobs.length && (to === from || size + blobs[to]!.size <= batchBytes)) size += blobs[to++]!.size;
    const part = blobs.slice(from, to);
    from = to;
    const stdin = part.map((blob) => `${blob.oid}\n`).join("");
    const { bytes } = await git(repo, ["cat-file", "--batch"], { signal, stdin });
    let at = 0;
    for (const blob of part) {
      const end = bytes.indexOf(10, at);
      if (end < 0) break;
      const header = bytes.toString("latin1", at, end).split(" ");
      at = end + 1;
      if (header[1] === "missing" || header.length < 3) continue;
      const length = Number(header[2]);
      yield { blob, bytes: bytes.subarray(at, at + length) };
      at += length + 1;
    }
  }
}

/** The commit a run is about, or nothing when the repository has no commit yet. Throws when there is no repository. */
export const headCommit = async (repo: string, signal?: AbortSignal) => {
  await gitText(repo, ["rev-parse", "--git-dir"], { signal });
  const { bytes, code } = await git(repo, ["rev-parse", "--verify", "--quiet", "HEAD^{commit}"], {
    signal,
    allow: [0, 1, 128],
  });
  return code === 0 ? bytes.toString("utf8").trim() : undefined;
};
