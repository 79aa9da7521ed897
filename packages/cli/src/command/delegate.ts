import { type CreateTask, isTerminal, type Task, type TaskHandle, WaggleConnectionError } from "@waggle/sdk";
import { type CommonOptions, type Context, patiently, withClient } from "../context.ts";
import { exit, Failure } from "../failure.ts";
import { findAgent, findTask } from "../find.ts";
import { duration, safe } from "../format.ts";
import { colourOf, type Io, painter } from "../io.ts";
import { integer, json, type Selector } from "../parse.ts";
import { document, isDocument } from "../print.ts";

interface Options extends CommonOptions {
  input?: string;
  requires?: { name: string; level?: number }[];
  priority?: number;
  label?: Selector[];
  prefer?: Selector[];
  agent?: string;
  role?: string;
  strategy?: string;
  description?: string;
  tag?: string[];
  metadata?: string;
  delay?: number;
  dependsOn?: string[];
  parent?: string;
  runTimeout?: number;
  queueTimeout?: number;
  totalTimeout?: number;
  attempts?: number;
  limit?: [string, string][];
  fairKey?: string;
  sticky?: string;
  idempotencyKey?: string;
  wait?: boolean;
  waitTimeout?: number;
}

export const delegate = (io: Io, type: string, options: Options): Promise<number> =>
  withClient(io, options, async (context) => {
    const { client, format } = context;
    const request = await toRequest(context, type, options);
    const handle = await client.tasks.delegate(request, {
      ...(options.idempotencyKey !== undefined && { idempotencyKey: options.idempotencyKey }),
    });
    if (!options.wait && options.waitTimeout === undefined) {
      if (isDocument(format)) await document(io, format, handle.task);
      else {
        io.out(`${handle.id}\n`);
        io.err(`${handle.task.status}; follow it with: waggle logs -f ${handle.id}\n`);
      }
      return exit.ok;
    }
    return patiently(io, options, (context) => outcomeOf(context, handle.task, options.waitTimeout));
  });

async function outcomeOf(context: Context, made: Task, timeoutSeconds?: number): Promise<number> {
  const { io, client, format } = context;
  const task = await follow(context, client.tasks.handle(made), timeoutSeconds);
  if (isDocument(format)) await document(io, format, task);
  else if (task.status === "completed") {
    if (task.result !== undefined) io.out(`${JSON.stringify(task.result, null, io.tty ? 2 : undefined)}\n`);
  }
  if (task.status === "completed") return exit.ok;
  const { error } = task;
  io.err(
    `${painter(io.colour)("red", "waggle:")} task ${task.id} ended ${task.status}${error ? `: ${safe(error.message)} (${safe(error.code)})` : ""}\n`,
  );
  io.err(`  → waggle describe task ${task.id}\n`);
  return exit.failed;
}

async function toRequest({ client, io }: Context, type: string, options: Options): Promise<CreateTask> {
  const timeouts = {
    ...(options.runTimeout !== undefined && { runSeconds: options.runTimeout }),
    ...(options.queueTimeout !== undefined && { queueSeconds: options.queueTimeout }),
    ...(options.totalTimeout !== undefined && { totalSeconds: options.totalTimeout }),
  };
  const labels = [
    ...(options.label ?? []),
    ...(options.prefer ?? []).map((selector) => ({ ...selector, required: false })),
  ];
  // A program that `agent run` runs gives its work to others as a part of its own.
  const parent = options.parent ?? io.env.WAGGLE_TASK_ID;
  return {
    type,
    ...(options.input !== undefined && { input: await json("input", options.input, io) }),
    ...(options.requires && {
      requires: options.requires.map(({ name, level }) => ({
        capability: name,
        ...(level !== undefined && { minLevel: level }),
      })),
    }),
    ...(options.priority !== undefined && { priority: options.priority }),
    ...(labels.length > 0 && { labels }),
    ...(options.agent !== undefined && { agentId: await findAgent(client, options.agent) }),
    ...(options.role !== undefined && { role: options.role }),
    ...(options.strategy !== undefined && { strategy: options.strategy as NonNullable<CreateTask["strategy"]> }),
    ...(options.description !== undefined && { description: options.description }),
    ...(options.tag && { tags: options.tag }),
    ...(options.metadata !== undefined && { metadata: await json("metadata", options.metadata, io) }),
    ...(options.delay !== undefined && { delaySeconds: options.delay }),
    ...(options.dependsOn && { dependsOn: await Promise.all(options.dependsOn.map((id) => findTask(client, id))) }),
    ...(parent && { parentId: await findTask(client, parent) }),
    ...(Object.keys(timeouts).length > 0 && { timeouts }),
    ...(options.attempts !== undefined && { retry: { maxAttempts: options.attempts } }),
    ...(options.limit && {
      concurrency: options.limit.map(([key, limit]) => ({ key, limit: integer("limit", 1, 1_000_000)(limit) })),
    }),
    ...(options.fairKey !== undefined && { fairKey: options.fairKey }),
    ...(options.sticky !== undefined && { stickyKey: options.sticky }),
  };
}

/** What nobody has begun after this is said to wait, and why: a mistyped capability would wait for ever without a word. */
const patienceMs = 2_000;

/** Waits for the end; on a terminal it tells of the way there. Leaving off (Ctrl-C) leaves the task running. */
async function follow({ io }: Context, handle: TaskHandle, timeoutSeconds?: number): Promise<Task> {
  const paint = painter(io.colour);
  const over = new AbortController();
  const from = io.now();
  const tell = async () => {
    io.err(`${paint("dim", handle.id)}\n`);
    for await (const event of handle.events({ signal: over.signal })) {
      const name = event.type.replace(/^task\./, "");
      if (name === "created") continue;
      const { percent, message, reason, error } = event.data as {
        percent?: number;
        message?: string;
        reason?: string;
        error?: { message?: string };
      };
      const what = [percent === undefined ? "" : `${percent}%`, message ?? error?.message ?? reason ?? ""]
        .join(" ")
        .trim();
      io.err(
        `${paint("dim", duration(io.now() - from).padStart(6))}  ${paint(colourOf(name), name)}${what ? `  ${safe(what)}` : ""}\n`,
      );
    }
  };
  const ask = async () => {
    const { waiting } = await handle.get();
    if (waiting && !over.signal.aborted)
      io.err(`${paint("yellow", "waiting:")} ${safe(waiting.reason)}\n  → waggle explain ${handle.id}\n`);
  };
  const late = setTimeout(() => void ask().catch(() => undefined), patienceMs);
  const interrupted = io.interrupted();
  // What is told on the way is a comfort; only the wait for the end may fail.
  const telling = io.tty && !isTerminal(handle.task.status) ? tell().catch(() => undefined) : Promise.resolve();
  try {
    const task = await handle.ended({ signal: interrupted, ...(timeoutSeconds !== undefined && { timeoutSeconds }) });
    // Its last event may be a moment behind.
    await Promise.race([telling, new Promise((done) => setTimeout(done, 300).unref())]);
    return task;
  } catch (error) {
    if (interrupted.aborted)
      throw new Failure(
        exit.failed,
        `no longer waiting for task ${handle.id}, which goes on`,
        `waggle logs -f ${handle.id} follows it, waggle cancel ${handle.id} ends it`,
      );
    const over = timeoutSeconds !== undefined && io.now() - from >= timeoutSeconds * 1000;
    // The server is there; it is the task that has not ended.
    if (over && error instanceof WaggleConnectionError && error.code === "client.timeout")
      throw new Failure(exit.failed, error.message, `follow it with: waggle logs -f ${handle.id}`);
    throw error;
  } finally {
    clearTimeout(late);
    over.abort();
    await telling;
  }
}
