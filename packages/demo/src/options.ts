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

export const help = `Writes a health report on a git repository with a fleet of agents, on a Waggle server that it starts itself.

  npm start                          a report on this repository
  npm start -- --repo ../other       a report on another

Options
  --repo PATH    the git repository to report on (default: this one)
  --out DIR      where to write waggle-report.html and waggle-report.md (default: here)
  --once         exit when the report is written: code 0, or 1 with the reason
  --chaos        kill -9 an agent in the middle of its work, to show how the fleet recovers
  --data DIR     the server's data folder (default: .waggle); a server already running on it is used
  --port N       the server's port on 127.0.0.1 (default: 9244, or a free one if that is taken)
  --plain        print progress as lines, even on a terminal
  -h, --help     show this help

While it runs you can kill agents yourself: their process ids are on the screen.
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
