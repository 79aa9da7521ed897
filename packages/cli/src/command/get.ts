import type { Agent, AgentStatus, Task, TaskStatus } from "@waggle/sdk";
import * as columns from "../columns.ts";
import { type CommonOptions, type Context, patiently, withClient } from "../context.ts";
import { exit, Failure, usage } from "../failure.ts";
import { beginning, findAgent, findKey, findTask, lastSequence, take } from "../find.ts";
import { table } from "../format.ts";
import type { Io } from "../io.ts";
import { columnsOf, document, entry, isDocument, rows, type TableOf } from "../print.ts";
import { untilInterrupted } from "../watch.ts";

export interface Options extends CommonOptions {
  watch?: boolean;
  limit: number;
  status?: string;
  all?: boolean;
  type?: string;
  agent?: string;
  tag?: string;
  parent?: string;
  role?: string;
  capability?: string;
  label?: string;
  after?: number;
}

const nouns: Record<string, readonly string[]> = {
  agents: ["agent", "ag"],
  tasks: ["task", "t"],
  events: ["event", "ev"],
  "dead-letters": ["dead-letter", "deadletters", "dlq", "dl"],
  limits: ["limit"],
  keys: ["key"],
};
/** What `get` lists. */
export const listed: readonly string[] = Object.keys(nouns);

function noun(word: string): string {
  for (const [name, others] of Object.entries(nouns)) if (name === word || others.includes(word)) return name;
  throw usage(`there is no "${word}" to get`, `one of ${listed.join(", ")}`);
}

const byPrefix: Record<string, string> = { tsk: "tasks", agt: "agents", key: "keys" };

/** What is asked for: `get tsk_1` is the same as `get task tsk_1`. */
export function named(word: string, id: string | undefined): { what: string; id: string | undefined } {
  const what = id === undefined ? byPrefix[/^([a-z]+)_/.exec(word)?.[1] ?? ""] : undefined;
  return what === undefined ? { what: noun(word), id } : { what, id: word };
}

export const get = (io: Io, word: string, given: string | undefined, options: Options): Promise<number> =>
  withClient(io, options, async (context) => {
    const { what, id } = named(word, given);
    refuseUnfit(what, options);
    if (what === "events") {
      if (id !== undefined)
        throw usage("events are not got one by one", "waggle logs TASK, or waggle get events --after N");
      return events(context, options);
    }
    if (id !== undefined) return one(context, what, id, options);
    const { client } = context;
    switch (what) {
      case "agents":
        return list(context, columns.agents(io.now), options, () => take(agents(client, options), options.limit));
      case "tasks": {
        const query = await taskQuery(context, options);
        return list(context, columns.tasks(io.now), options, () => take(client.tasks.all(query), options.limit));
      }
      case "dead-letters":
        return list(context, columns.deadLetters(io.now), options, () => take(client.deadLetters.all(), options.limit));
      case "limits":
        return list(context, columns.limits, options, () => take(client.limits.all(), options.limit));
      default:
        return list(context, columns.keys(io.now), options, () => take(client.keys.all(), options.limit));
    }
  });

/** A filter that a list does not know would be silently without effect. */
function refuseUnfit(what: string, options: Options): void {
  const known: Record<string, readonly string[]> = {
    agents: ["status", "type", "role", "capability", "label"],
    tasks: ["status", "type", "agent", "tag", "parent"],
    events: ["type", "after"],
  };
  for (const name of ["status", "type", "agent", "tag", "parent", "role", "capability", "label", "after"] as const) {
    if (options[name] !== undefined && !known[what]?.includes(name))
      throw usage(`${what} cannot be filtered by --${name}`);
  }
}

/** Those that have stopped are history: they come when asked for. */
async function* agents(client: Client, options: Options): AsyncGenerator<Agent> {
  const every = options.all || options.status !== undefined;
  for await (const agent of client.agents.all(agentQuery(options))) {
    if (every || agent.status !== "stopped") yield agent;
  }
}

const agentQuery = ({ status, type, role, capability, label, limit }: Options) => ({
  limit: Math.min(200, limit),
  ...(status !== undefined && { status: status as AgentStatus }),
  ...(type !== undefined && { type }),
  ...(role !== undefined && { role }),
  ...(capability !== undefined && { capability }),
  ...(label !== undefined && { label: label.replace("=", ":") }),
});
const taskQuery = async ({ client }: Context, { status, type, agent, tag, parent, limit }: Options) => ({
  limit: Math.min(200, limit),
  ...(status !== undefined && { status: status as TaskStatus }),
  ...(type !== undefined && { type }),
  ...(agent !== undefined && { agentId: await findAgent(client, agent) }),
  ...(tag !== undefined && { tag }),
  ...(parent !== undefined && { parentId: await findTask(client, parent) }),
});

async function one({ io, client, format }: Context, what: string, id: string, options: Options): Promise<number> {
  const show = async <Row>(read: () => Promise<Row>, shape: TableOf<Row>, keyOf: (row: Row) => string) => {
    if (options.watch) return watch({ io, client, format }, shape, async () => [await read()], keyOf);
    const item = await read();
    if (isDocument(format)) await document(io, format, item);
    else io.out(table([item], columnsOf(shape, format), io));
    return exit.ok;
  };
  switch (what) {
    case "agents": {
      const found = await findAgent(client, id);
      return show(
        () => client.agents.get(found),
        columns.agents(io.now),
        (agent) => agent.id,
      );
    }
    case "tasks":
    case "dead-letters": {
      const found = await findTask(client, id);
      return show(
        () => client.tasks.get(found),
        columns.tasks(io.now),
        (task) => task.id,
      );
    }
    case "limits":
      return show(
        () => client.limits.get(id),
        columns.limits,
        (limit) => limit.key,
      );
    default: {
      const found = await findKey(client, id);
      return show(
        async () => {
          for await (const key of client.keys.all()) if (key.id === found) return key;
          throw new Failure(exit.notFound, `there is no key ${found}`, "`waggle get keys` lists what there is");
        },
        columns.keys(io.now),
        (key) => key.id,
      );
    }
  }
}

async function list<Row extends Agent | Task | { id?: string; key?: string }>(
  context: Context,
  shape: TableOf<Row>,
  options: Options,
  read: () => Promise<Row[]>,
): Promise<number> {
  if (options.watch)
    return watch(context, shape, read, (row) => (row as { id?: string }).id ?? (row as { key?: string }).key ?? "");
  const items = await read();
  await rows(
    context.io,
    context.format,
    items,
    shape,
    items.length === options.limit ? `The first ${items.length}; more with -n` : undefined,
  );
  return exit.ok;
}

/** Prints the list, then each row that is new or changed, until it is interrupted. */
async function watch<Row>(
  { io, format }: Context,
  shape: TableOf<Row>,
  read: () => Promise<Row[]>,
  keyOf: (row: Row) => string,
): Promise<number> {
  let known = new Map<string, string>();
  const widths: number[] = [];
  await untilInterrupted(io, async (first) => {
    const items = await read();
    const now = new Map(
      items.map((item) => [
        keyOf(item),
        JSON.stringify(item, (name, value) => (name === "lastSeenAt" || name === "leaseExpiresAt" ? undefined : value)),
      ]),
    );
    const changed = items.filter((item) => known.get(keyOf(item)) !== now.get(keyOf(item)));
    // Of those that left the list nothing is kept.
    known = now;
    // Lists come newest first; told as it happens, the newest comes last.
    if (!first) changed.reverse();
    if (isDocument(format)) for (const item of changed) await entry(io, format, item);
    else if (first || changed.length > 0)
      io.out(table(changed, columnsOf(shape, format), io, { header: first, widths }));
  });
  return exit.ok;
}

async function events({ io, client, format }: Context, options: Options): Promise<number> {
  const shape = columns.events(io.now);
  const types = options.type === undefined ? {} : { types: options.type };
  const items =
    options.after === undefined
      ? await newest(client, options.limit, options.type)
      : await after(client, options.after, options.limit, options.type);
  if (!options.watch) {
    await rows(io, format, items, shape);
    return exit.ok;
  }
  const widths: number[] = [];
  const show = async (some: readonly Event[], header: boolean) => {
    if (isDocument(format)) for (const event of some) await entry(io, format, event);
    else io.out(table(some, columnsOf(shape, format), io, { header, widths }));
  };
  await show(items, true);
  const from = items.at(-1)?.sequence ?? options.after ?? (await lastSequence(client));
  return patiently(io, options, async ({ client }) => {
    for await (const event of client.events.follow({ after: from, ...types, signal: io.interrupted() }))
      await show([event], false);
    return exit.ok;
  });
}

type Client = Context["client"];
type Event = Awaited<ReturnType<Client["events"]["list"]>>["items"][number];

async function after(client: Client, from: number, limit: number, types?: string): Promise<Event[]> {
  const items: Event[] = [];
  for (let next = from; items.length < limit; ) {
    const page = await client.events.list({
      after: next,
      limit: Math.min(200, limit - items.length),
      ...(types !== undefined && { types }),
    });
    items.push(...page.items);
    if (page.nextAfter <= next) break;
    next = page.nextAfter;
  }
  return items;
}

/** The newest of them, oldest first: read backwards in growing steps until enough fit the filter. */
export async function newest(client: Client, limit: number, types?: string): Promise<Event[]> {
  if (limit === 0) return [];
  const end = await lastSequence(client);
  let begin = 0;
  for (let span = limit; ; span *= 8) {
    const from = Math.max(begin, end - span);
    try {
      const items = await after(client, from, Number.POSITIVE_INFINITY, types);
      if (items.length >= limit || from === begin) return items.slice(-limit);
    } catch (error) {
      begin = beginning(error);
    }
  }
}
