import { accessSync, constants, existsSync, statSync } from "node:fs";
import { delimiter, join } from "node:path";
import { createAgent, type Handler, type RunningAgent, type Task, type TaskContext } from "@waggle/sdk";
import { type AgentOptions, offerOf } from "../agent-options.ts";
import { exit, Failure, usage } from "../failure.ts";
import { safe } from "../format.ts";
import { colourOf, type Io, painter } from "../io.ts";
import { runProgram } from "../run-program.ts";

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
  // Others wait for its tasks, whoever reads what it says.
  io.outlive();
  const paint = painter(io.colour);
  const say = (text: string) => io.err(`${paint("dim", new Date(io.now()).toISOString().slice(11, 19))} ${text}\n`);

  /** Tasks whose failure was told here, so that the SDK need not say it again. */
  const told = new Set<unknown>();
  const handler: Handler = async (task, context) => {
    const from = io.now();
    say(
      `${task.id} ${paint(colourOf("running"), "started")}  ${safe(task.type)}${task.attempt > 1 ? ` (attempt ${task.attempt})` : ""}`,
    );
    try {
      const result = await runProgram(program, args, task.input, context, {
        env: { ...io.env, ...environmentOf(agent, task, context) },
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
      if (!context.signal.aborted) told.add(task.id);
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
      warn: (message, fields) => told.delete(fields?.taskId) || say(paint("yellow", safe(message))),
      error: (message) => say(paint("red", safe(message))),
    },
  });
  // A server that comes up at the same time is waited for, which nobody should have to guess.
  void agent.client.status.health().catch((error: { code?: string; message: string }) => {
    if (error.code === "client.unreachable" && agent.state === "starting")
      say(paint("yellow", `${error.message}; trying again for half a minute`));
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
    `agent ${safe(options.name)} was ended: ${reason}`,
    "start it again, under another --name if one of this name is to run elsewhere",
  );
}

const environmentOf = (agent: RunningAgent, task: Task, { details }: TaskContext) => ({
  WAGGLE_TASK_ID: task.id,
  WAGGLE_TASK_TYPE: task.type,
  WAGGLE_ATTEMPT: String(task.attempt),
  WAGGLE_TASK_PRIORITY: String(task.priority),
  WAGGLE_DETAILS: details === undefined ? "" : JSON.stringify(details),
  WAGGLE_AGENT_ID: agent.id ?? "",
  WAGGLE_AGENT_NAME: agent.name,
  WAGGLE_URL: agent.client.url,
});

/** Found before anything is registered: an agent that cannot run its program would fail task after task. */
function findProgram(program: string, env: Io["env"]): void {
  const can = (path: string) => {
    try {
      accessSync(path, constants.X_OK);
      return statSync(path).isFile();
    } catch {
      return false;
    }
  };
  const found = program.includes("/")
    ? can(program)
    : (env.PATH ?? "").split(delimiter).some((dir) => can(join(dir || ".", program)));
  if (found) return;
  if (program.includes("/") && existsSync(program) && statSync(program).isFile())
    throw usage(`${program} is not executable`, `chmod +x ${program}`);
  throw usage(`there is no program "${program}"`, "give one that is on the PATH, or a path to one, after --");
}
