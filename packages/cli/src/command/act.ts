import type { Agent, Task } from "@waggle/sdk";
import { type CommonOptions, type Context, withClient } from "../context.ts";
import { explainFailure } from "../explain.ts";
import { exit, usage } from "../failure.ts";
import { findAgent, findTask } from "../find.ts";
import { colourOf, type Io, painter } from "../io.ts";
import { document, isDocument } from "../print.ts";

/** Does one thing to each; one failure leaves the others alone and is the exit code. */
async function each<Item extends Task | Agent>(
  { io, format }: Context,
  ids: readonly string[],
  act: (text: string) => Promise<Item>,
): Promise<number> {
  let code: number = exit.ok;
  const done: Item[] = [];
  const paint = painter(io.colour);
  for (const text of ids) {
    try {
      const item = await act(text);
      done.push(item);
      if (!isDocument(format)) {
        const name = "name" in item ? `${item.name}  ` : "";
        const asked = "cancelRequested" in item && item.cancelRequested ? " (its agent is told to stop)" : "";
        io.out(`${name}${item.id}  ${paint(colourOf(item.status), item.status)}${asked}\n`);
      }
    } catch (error) {
      const told = explainFailure(error);
      if (told.exitCode === exit.unreachable || ids.length === 1) throw error;
      io.err(`${paint("red", "waggle:")} ${text}: ${told.message}\n`);
      code = told.exitCode;
    }
  }
  if (isDocument(format)) await document(io, format, ids.length === 1 ? done[0] : { items: done });
  return code;
}

/** `cancel task tsk_1` is the same as `cancel tsk_1`. */
const without = (noun: "task" | "agent", ids: readonly string[]) =>
  ids.length > 1 && (ids[0] === noun || ids[0] === `${noun}s`) ? ids.slice(1) : ids;

export const cancel = (io: Io, ids: string[], options: CommonOptions & { reason?: string }): Promise<number> =>
  withClient(io, options, (context) =>
    each(context, without("task", ids), async (text) =>
      context.client.tasks.cancel(
        await findTask(context.client, text),
        options.reason === undefined ? {} : { reason: options.reason },
      ),
    ),
  );

export const retry = (io: Io, ids: string[], options: CommonOptions): Promise<number> =>
  withClient(io, options, (context) =>
    each(context, without("task", ids), async (text) =>
      context.client.tasks.retry(await findTask(context.client, text)),
    ),
  );

export const agentState = (
  io: Io,
  verb: "drain" | "pause" | "resume",
  ids: string[],
  options: CommonOptions,
): Promise<number> =>
  withClient(io, options, (context) =>
    each(context, without("agent", ids), async (text) =>
      context.client.agents[verb](await findAgent(context.client, text)),
    ),
  );

export const remove = (
  io: Io,
  what: string,
  ids: string[],
  options: CommonOptions & { force?: boolean; grace?: number },
): Promise<number> => {
  if (what !== "agent" && what !== "agents") {
    throw usage(
      `cannot delete a "${what}"`,
      what.startsWith("task") ? "a task is cancelled: waggle cancel TASK" : "waggle delete agent NAME",
    );
  }
  return withClient(io, options, (context) =>
    each(context, ids, async (text) =>
      context.client.agents.remove(await findAgent(context.client, text), {
        ...(options.force && { mode: "force" as const }),
        ...(options.grace !== undefined && { graceSeconds: options.grace }),
      }),
    ),
  );
};

export const redrive = (
  io: Io,
  ids: string[],
  options: CommonOptions & { all?: boolean; perSecond?: number },
): Promise<number> => {
  if (ids.length > 0 === (options.all === true))
    throw usage("give the tasks to redrive, or --all", "`waggle get dead-letters` lists them");
  if (options.perSecond !== undefined && !(options.perSecond > 0)) throw usage("--per-second is not a number above 0");
  return withClient(io, options, async ({ client, format }) => {
    const spread = options.perSecond === undefined ? {} : { perSecond: options.perSecond };
    const taskIds = await Promise.all(without("task", ids).map((text) => findTask(client, text)));
    const answer = await client.deadLetters.redrive(options.all ? { all: true, ...spread } : { taskIds, ...spread });
    // Each call begins to spread them anew: with a rate, what is left is for another time.
    while (answer.nextCursor !== undefined && options.perSecond === undefined) {
      const { redriven, skipped, nextCursor } = await client.deadLetters.redrive({
        all: true,
        cursor: answer.nextCursor,
      });
      answer.redriven += redriven;
      answer.skipped.push(...skipped);
      if (nextCursor === undefined) delete answer.nextCursor;
      else answer.nextCursor = nextCursor;
    }
    if (isDocument(format)) await document(io, format, answer);
    else {
      io.out(`${answer.redriven} redriven\n`);
      for (const { taskId, code } of answer.skipped) io.err(`${taskId} skipped: ${code}\n`);
      if (answer.nextCursor !== undefined) io.err("there are more: run it again once these have begun\n");
    }
    return answer.skipped.length > 0 && answer.redriven === 0 ? exit.refused : exit.ok;
  });
};
