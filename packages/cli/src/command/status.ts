import { findConnection, type Health, type Status, WaggleConnectionError } from "@waggle/sdk";
import { type CommonOptions, type Context, formatOf, withClient } from "../context.ts";
import { exit } from "../failure.ts";
import { type Column, duration, fields, table } from "../format.ts";
import { colourOf, type Io, painter } from "../io.ts";
import { document, entry, isDocument } from "../print.ts";
import { untilInterrupted } from "../watch.ts";

const mib = (bytes: number): string => `${Math.ceil(bytes / 2 ** 20)} MiB`;

/** A terminal is cleared before each. */
const clear = "\u001b[H\u001b[2J";

export const status = (io: Io, { watch, ...options }: CommonOptions & { watch?: boolean }): Promise<number> =>
  withClient(io, options, async (context) => {
    const { client, format } = context;
    const read = () => Promise.all([client.status.get(), client.status.health()]);
    if (!watch) {
      const [found, health] = await read();
      if (isDocument(format)) await document(io, format, { health: health.status, ...found });
      else io.out(glance(context, found, health));
      return exit.ok;
    }
    await untilInterrupted(io, async (first) => {
      const [found, health] = await read();
      if (isDocument(format)) await entry(io, format, { health: health.status, ...found });
      else io.out((io.tty ? clear : first ? "" : "\n") + glance(context, found, health));
    });
    return exit.ok;
  });

function glance({ io, client }: Context, found: Status, health: Health): string {
  const paint = painter(io.colour);
  const counts = (by: Record<string, number>) =>
    Object.entries(by)
      .filter(([, count]) => count > 0)
      .map(([name, count]) => `${count} ${paint(colourOf(name), name)}`)
      .join(", ") || "none";
  const { agents, tasks, totals, queues, rates, disk } = found;
  const perSecond = (name: keyof typeof rates.perSecond) => Number(rates.perSecond[name].toPrecision(3));
  let text = fields(
    [
      [
        "Server",
        `${client.url}  ${paint(colourOf(health.status), health.status)}, version ${found.version}, up ${duration(found.uptimeSeconds * 1000)}`,
      ],
      ["Agents", counts(agents.byStatus)],
      ["Slots", `${agents.slotsInUse} of ${agents.slots} in use`],
      ["Tasks", counts(tasks.byStatus)],
      [
        "Ended",
        `${totals.completed} completed, ${totals.failed} failed, ${totals.cancelled} cancelled, ${totals.expired} expired`,
      ],
      [
        "Rates",
        `${perSecond("created")} submitted, ${perSecond("completed")} completed, ${perSecond("failed")} failed a second`,
      ],
      ...(disk
        ? [["Disk", `${mib(disk.tableBytes)}, ${mib(disk.freeBytes)} of it free; log ${mib(disk.logBytes)}`] as const]
        : []),
    ],
    io,
  );
  const waiting = queues.filter((queue) => queue.waiting > 0);
  if (waiting.length > 0) {
    const columns: Column<(typeof waiting)[number]>[] = [
      { title: "CAPABILITY", value: ({ capability }) => capability },
      { title: "WAITING", value: ({ waiting }) => String(waiting), right: true },
      { title: "OLDEST", value: ({ oldestSeconds }) => duration(oldestSeconds * 1000) },
    ];
    text += `\n${table(waiting, columns, io)}`;
  }
  return text;
}

export const showVersion = (io: Io, options: CommonOptions, version: string): Promise<number> =>
  withClient(io, options, async ({ client }) => {
    const format = formatOf(options);
    let server: string | undefined;
    try {
      server = (await client.status.health()).version;
    } catch (error) {
      if (!(error instanceof WaggleConnectionError)) throw error;
    }
    const url = findConnection(options).url;
    if (isDocument(format))
      await document(io, format, { command: version, server: server ?? null, url, node: process.versions.node });
    else
      io.out(`waggle ${version}\nserver ${server === undefined ? `not reached at ${url}` : `${server} at ${url}`}\n`);
    return exit.ok;
  });
