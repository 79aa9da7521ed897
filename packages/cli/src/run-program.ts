import { type ChildProcess, spawn } from "node:child_process";
import { NonRetryableError, type TaskContext } from "@waggle/sdk";

/** Longer output than a result may be is refused before it fills the memory. */
const maxOutputBytes = 1024 * 1024;
const tailLines = 20;
const tailChars = 4_000;
/** What a program leaves running may hold its output open for ever; when it has ended that is read for so long. */
const leftOpenMs = 2_000;
const longestTimerMs = 2 ** 31 - 1;

/** They go with this process, in whatever way it ends: nobody would hear what comes of them. */
const running = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of running) signalGroup(child, "SIGKILL");
});

export interface RunOptions {
  readonly env: NodeJS.ProcessEnv;
  readonly killAfterMs: number;
  readonly timeoutMs: number | undefined;
  readonly asText: boolean;
  readonly fatal: ReadonlySet<number>;
  line(text: string): void;
}

/** Runs the program once: input in, result out, stderr read for messages. Rejects as a handler should. */
export function runProgram(
  program: string,
  args: readonly string[],
  input: unknown,
  context: TaskContext,
  options: RunOptions,
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    // A group of its own, so that a signal reaches what the program started too, and a Ctrl-C here does not.
    const child = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"], env: options.env, detached: true });
    running.add(child);
    const chunks: Buffer[] = [];
    let bytes = 0;
    let tooLong = false;
    let timedOut = false;
    const tail: string[] = [];
    const timers = new Set<NodeJS.Timeout>();
    const after = (ms: number, act: () => void) => timers.add(setTimeout(act, Math.min(ms, longestTimerMs)));
    const readNoMore = () => {
      child.stdout.destroy();
      child.stderr.destroy();
    };
    let ending = false;
    const terminate = () => {
      ending = true;
      signalGroup(child, "SIGTERM");
      after(options.killAfterMs, () => {
        signalGroup(child, "SIGKILL");
        after(leftOpenMs, readNoMore);
      });
    };
    if (context.signal.aborted) terminate();
    else context.signal.addEventListener("abort", terminate, { once: true });
    if (options.timeoutMs !== undefined) {
      after(options.timeoutMs, () => {
        timedOut = true;
        terminate();
      });
    }
    child.stdin.on("error", () => {
      // It need not read its input.
    });
    child.stdin.end(input === undefined ? "" : `${JSON.stringify(input)}\n`);
    child.stdout.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= maxOutputBytes) chunks.push(chunk);
      else if (!tooLong) {
        tooLong = true;
        terminate();
      }
    });
    let rest = "";
    const take = (line: string) => {
      if (heed(line, context)) return;
      tail.push(line);
      if (tail.length > tailLines) tail.shift();
      options.line(line);
    };
    child.stderr.setEncoding("utf8");
    child.stderr.on("data", (chunk: string) => {
      const lines = (rest + chunk).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) take(line);
      if (rest.length > 64 * 1024) {
        take(rest);
        rest = "";
      }
    });
    const finish = () => {
      running.delete(child);
      for (const timer of timers) clearTimeout(timer);
      context.signal.removeEventListener("abort", terminate);
    };
    child.on("error", (error) => {
      finish();
      reject(error);
    });
    child.on("exit", () => {
      // Of one that is to end, what it started is waited for, and killed in time.
      if (!ending) after(leftOpenMs, readNoMore);
    });
    child.on("close", (code, signal) => {
      finish();
      if (rest !== "") take(rest);
      const said = tail.join("\n").slice(-tailChars).trim();
      const error = failureOf({ code, signal, timedOut, tooLong, said, fatal: options.fatal });
      if (error) reject(error);
      else resolve(toResult(Buffer.concat(chunks).toString(), options.asText));
    });
  });
}

/** Why the attempt has failed; undefined when it has not. */
function failureOf(ended: {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly timedOut: boolean;
  readonly tooLong: boolean;
  /** The end of what it wrote to stderr. */
  readonly said: string;
  readonly fatal: ReadonlySet<number>;
}): Error | undefined {
  const { code, signal, said } = ended;
  if (ended.timedOut) return coded("program.timeout", said || "ran longer than --timeout");
  if (ended.tooLong)
    return new NonRetryableError(`wrote more than ${maxOutputBytes} bytes to stdout`, { code: "result.too_large" });
  if (code === 0) return undefined;
  if (signal) return coded(`signal.${signal}`, said || `ended by ${signal}`);
  const message = said || `exited with code ${code}`;
  return ended.fatal.has(code ?? 1)
    ? new NonRetryableError(message, { code: `exit.${code}` })
    : coded(`exit.${code}`, message);
}

const coded = (code: string, message: string): Error => Object.assign(new Error(message), { code });

function signalGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch {
    // It has ended meanwhile.
  }
}

/** JSON where it is JSON, else the text without its last line break. Nothing where nothing was written. */
export function toResult(output: string, asText: boolean): unknown {
  if (output.trim() === "") return undefined;
  if (!asText) {
    try {
      return JSON.parse(output);
    } catch {
      // a plain text
    }
  }
  return output.replace(/\r?\n$/, "");
}

/** Takes a line of stderr that is a message to Waggle. */
export function heed(line: string, context: Pick<TaskContext, "progress">): boolean {
  const progress = /^::progress(?:\s+(\d+(?:\.\d+)?)%?)?(?:\s+(.*))?$/.exec(line.trimEnd());
  if (progress) {
    const [, percent, message] = progress;
    context.progress({
      ...(percent !== undefined && { percent: Math.min(100, Number(percent)) }),
      ...(message && { message: message.slice(0, 1024) }),
    });
    return true;
  }
  const details = /^::details\s+(.+)$/.exec(line.trimEnd());
  if (!details) return false;
  try {
    context.progress(undefined, JSON.parse(details[1] as string));
    return true;
  } catch {
    return false;
  }
}
