import { type ChildProcess, spawn } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { createAgent, type Handler, NonRetryableError, type TaskContext } from "@waggle/sdk";
import { type AgentOptions, offerOf } from "../agent-options.ts";
import { exit, Failure, usage } from "../failure.ts";
import { safe } from "../format.ts";
import { colourOf, type Io, painter } from "../io.ts";

interface Options extends AgentOptions {
  timeout?: number;
  killAfter: number;
  grace: number;
  fatal?: string;
  text?: boolean;
  transport: "auto" | "socket" | "poll";
  quiet?: boolean;
}

export async function agentRun(io: Io, command: string[], options: Options): Promise<number> {
  const [program = "", ...args] = command;
  findProgram(program, io.env);
  const fatal = new Set((options.fatal ?? "").split(",").filter(Boolean).map(Number));
  if ([...fatal].some((code) => !Number.isInteger(code)))
    throw usage(`--fatal "${options.fatal}" is not a list of exit codes`, "as in --fatal 64,65");
  const paint = painter(io.colour);
  const say = (text: string) => io.err(`${paint("dim", new Date(io.now()).toISOString().slice(11, 19))} ${text}\n`);

  const handler: Handler = async (task, context) => {
    const from = io.now();
    say(
      `${task.id} ${paint(colourOf("running"), "started")}  ${safe(task.type)}${task.attempt > 1 ? ` (attempt ${task.attempt})` : ""}`,
    );
    try {
      const result = await runProgram(program, args, task.input, context, {
        env: {
          ...io.env,
          WAGGLE_TASK_ID: task.id,
          WAGGLE_TASK_TYPE: task.type,
          WAGGLE_ATTEMPT: String(task.attempt),
          WAGGLE_TASK_PRIORITY: String(task.priority),
          WAGGLE_DETAILS: context.details === undefined ? "" : JSON.stringify(context.details),
          WAGGLE_AGENT_ID: agent.id ?? "",
          WAGGLE_AGENT_NAME: agent.name,
          WAGGLE_URL: agent.client.url,
        },
        killAfterMs: options.killAfter * 1000,
        timeoutMs: options.timeout === undefined ? undefined : options.timeout * 1000,
        asText: options.text === true,
        fatal,
        line: (text) => options.quiet || io.err(`${paint("dim", `${task.id} |`)} ${safe(text)}\n`),
      });
      say(`${task.id} ${paint("green", "completed")} in ${((io.now() - from) / 1000).toFixed(1)} s`);
      return result;
    } catch (error) {
      const { code, message } = error as { code?: string; message: string };
      const how = context.signal.aborted ? paint("dim", "stopped") : paint("red", "failed");
      say(`${task.id} ${how} (${code ?? "error"}): ${safe(message.split("\n").at(-1) ?? "")}`);
      throw error;
    }
  };

  const agent = createAgent({
    ...offerOf(options),
    handlers: { "*": handler },
    concurrency: options.concurrency,
    graceSeconds: options.grace,
    // This command listens itself, to tell what it does.
    handleSignals: false,
    transport: options.transport,
    ...(options.url !== undefined && { url: options.url }),
    ...(options.key !== undefined && { key: options.key }),
    log: {
      debug: () => {},
      info: say,
      warn: (message) => say(paint("yellow", safe(message))),
      error: (message) => say(paint("red", safe(message))),
    },
  });
  const info = await agent.start();
  const can = info.capabilities.map(({ name }) => name).join(", ");
  say(
    `${paint("bold", safe(info.name))} (${info.id}) is ${paint("green", "ready")} at ${agent.client.url}${can ? `, can ${safe(can)}` : ", takes tasks that require nothing"}`,
  );
  const interrupted = io.interrupted();
  let asked = false;
  const stop = () => {
    asked = true;
    say("stopping: finishing what runs; again to exit at once");
    void agent.stop();
  };
  if (interrupted.aborted) stop();
  else interrupted.addEventListener("abort", stop, { once: true });
  const reason = await agent.stopped;
  if (asked) return exit.ok;
  throw new Failure(
    exit.refused,
    `the server ended this agent: ${reason}`,
    "start it again; an agent of the same name elsewhere takes its place",
  );
}

/** Found before anything is registered: an agent that cannot run its program would fail task after task. */
function findProgram(program: string, env: Io["env"]): void {
  const can = (path: string) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  };
  const found = program.includes("/")
    ? can(program)
    : (env.PATH ?? "").split(delimiter).some((dir) => can(join(dir || ".", program)));
  if (!found)
    throw usage(`there is no program "${program}"`, "give one that is on the PATH, or a path to one, after --");
}

/** Longer output than a result may be is refused before it fills the memory. */
const maxOutputBytes = 1024 * 1024;
const tailLines = 20;
const tailChars = 4_000;

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
    const chunks: Buffer[] = [];
    let bytes = 0;
    let tooLong = false;
    let timedOut = false;
    const tail: string[] = [];
    const timers = new Set<NodeJS.Timeout>();
    const terminate = () => {
      signalGroup(child, "SIGTERM");
      timers.add(setTimeout(() => signalGroup(child, "SIGKILL"), options.killAfterMs));
    };
    if (context.signal.aborted) terminate();
    else context.signal.addEventListener("abort", terminate, { once: true });
    if (options.timeoutMs !== undefined) {
      timers.add(
        setTimeout(() => {
          timedOut = true;
          terminate();
        }, options.timeoutMs),
      );
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
      for (const timer of timers) clearTimeout(timer);
      context.signal.removeEventListener("abort", terminate);
    };
    child.on("error", (error) => {
      finish();
      reject(error);
    });
    child.on("close", (code, signal) => {
      finish();
      if (rest !== "") take(rest);
      const said = tail.join("\n").slice(-tailChars).trim();
      if (timedOut)
        return reject(Object.assign(new Error(said || "ran longer than --timeout"), { code: "program.timeout" }));
      if (tooLong)
        return reject(
          new NonRetryableError(`wrote more than ${maxOutputBytes} bytes to stdout`, { code: "result.too_large" }),
        );
      if (code === 0) return resolve(toResult(Buffer.concat(chunks).toString(), options.asText));
      if (signal) return reject(Object.assign(new Error(said || `ended by ${signal}`), { code: `signal.${signal}` }));
      const message = said || `exited with code ${code}`;
      reject(
        options.fatal.has(code ?? 1)
          ? new NonRetryableError(message, { code: `exit.${code}` })
          : Object.assign(new Error(message), { code: `exit.${code}` }),
      );
    });
  });
}

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
