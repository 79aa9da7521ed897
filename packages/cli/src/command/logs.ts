import { isTerminal, type TaskStatus, type WaggleEvent } from "@waggle/sdk";
import { type CommonOptions, patiently, withClient } from "../context.ts";
import { exit } from "../failure.ts";
import { findTask } from "../find.ts";
import { safe } from "../format.ts";
import { colourOf, type Io, painter } from "../io.ts";
import { entry, isDocument } from "../print.ts";
import { newest } from "./get.ts";

interface Options extends CommonOptions {
  follow?: boolean;
  tail?: number;
  type?: string;
}

export const logs = (io: Io, text: string | undefined, options: Options): Promise<number> =>
  withClient(io, options, async ({ client, format }) => {
    const print = async (event: WaggleEvent) =>
      isDocument(format) ? entry(io, format, event) : io.out(line(io, event, text === undefined));
    const wanted = filter(options.type);
    if (text === undefined) {
      const past = await newest(client, options.tail ?? 20, options.type);
      for (const event of past) await print(event);
      if (!options.follow) {
        if (past.length === 0 && options.tail !== 0)
          io.err(options.type === undefined ? "Nothing has happened yet.\n" : "No events of that type.\n");
        return exit.ok;
      }
      const after = past.at(-1)?.sequence ?? (await newest(client, 1)).at(-1)?.sequence ?? 0;
      const types = options.type === undefined ? {} : { types: options.type };
      return patiently(io, options, async ({ client }) => {
        for await (const event of client.events.follow({ after, ...types, signal: io.interrupted() }))
          await print(event);
        return exit.ok;
      });
    }
    const id = await findTask(client, text);
    const past: WaggleEvent[] = [];
    let after = 0;
    for (;;) {
      const page = await client.tasks.events(id, { after, limit: 200 });
      past.push(...page.items);
      if (page.items.length === 0 || page.nextAfter <= after) break;
      after = page.nextAfter;
    }
    const shown = past.filter(wanted);
    for (const event of shown.slice(-(options.tail ?? shown.length) || shown.length)) await print(event);
    const last = past.at(-1);
    // One that has ended may have been tried again since.
    if (!options.follow || (last && ends(last))) return exit.ok;
    return patiently(io, options, async ({ client }) => {
      const task = client.tasks.handle(await client.tasks.get(id));
      for await (const event of task.events({ after, signal: io.interrupted() })) if (wanted(event)) await print(event);
      return exit.ok;
    });
  });

const ends = ({ type }: WaggleEvent) =>
  type.startsWith("task.") && isTerminal(type.slice("task.".length) as TaskStatus);

const filter = (types: string | undefined) => (event: WaggleEvent) =>
  types === undefined ||
  types
    .split(",")
    .some((type) => type === event.type || (type.endsWith("*") && event.type.startsWith(type.slice(0, -1))));

function line(io: Io, event: WaggleEvent, withTask: boolean): string {
  const paint = painter(io.colour);
  const name = event.type.split(".").at(-1) ?? "";
  const data = Object.entries(event.data)
    .map(
      ([key, value]) =>
        `${key}=${typeof value === "string" ? (/^[\w.:/@-]+$/.test(value) ? value : JSON.stringify(value)) : JSON.stringify(value)}`,
    )
    .join(" ");
  const parts = [
    paint("dim", event.at),
    paint(colourOf(name), event.type.padEnd(15)),
    withTask ? (event.taskId ?? "") : "",
    event.agentId ? paint("dim", `agent=${event.agentId}`) : "",
    safe(data),
  ];
  return `${parts.filter((part) => part !== "").join(" ")}\n`;
}
