import { parseArgs } from "node:util";

export type Options = {
  repo?: string;
  data: string;
  out: string;
  port?: number;
  once: boolean;
  chaos: boolean;
  plain: boolean;
};

export const help = `Makes a health report of a git repository with a fleet of agents, on a Waggle server of your own.

  npm start                          a report on this repository
  npm start -- --repo ../other       a report on another

Options
  --repo PATH    the git repository to look at (default: this one)
  --out DIR      where waggle-report.html and waggle-report.md go (default: here)
  --once         end when the report is written: exit code 0, or 1 and the reason
  --chaos        kill -9 an agent in the middle of its work, to show how the fleet heals
  --data DIR     the server's data folder (default: .waggle); a server that runs on it is used
  --port N       the server's port on 127.0.0.1 (default: 9244, or a free one when it is taken)
  --plain        progress as lines, also on a terminal
  -h, --help     this text

While it runs you can do the killing yourself: the fleet's process ids are on the screen.
`;

/** The command line is not understood; the message is one line. */
export class UsageError extends Error {}

export const parseOptions = (args: readonly string[]): Options | "help" => {
  let values: Record<string, string | boolean | undefined>;
  try {
    ({ values } = parseArgs({
      args: [...args],
      allowPositionals: false,
      options: {
        repo: { type: "string" },
        out: { type: "string", default: "." },
        data: { type: "string", default: ".waggle" },
        port: { type: "string" },
        once: { type: "boolean", default: false },
        chaos: { type: "boolean", default: false },
        plain: { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false },
      },
    }));
  } catch (cause) {
    throw new UsageError(cause instanceof Error ? cause.message.split(/\. To specify|\n/)[0]! : "bad options");
  }
  if (values.help) return "help";
  for (const name of ["repo", "out", "data"]) if (values[name] === "") throw new UsageError(`--${name} needs a path`);
  const port = values.port as string | undefined;
  if (port !== undefined && !(/^\d{1,5}$/.test(port) && Number(port) <= 65_535))
    throw new UsageError(`--port needs a number from 0 to 65535, not "${port}"`);
  return {
    ...(values.repo === undefined ? {} : { repo: values.repo as string }),
    out: values.out as string,
    data: values.data as string,
    ...(port === undefined ? {} : { port: Number(port) }),
    once: values.once as boolean,
    chaos: values.chaos as boolean,
    plain: values.plain as boolean,
  };
};
