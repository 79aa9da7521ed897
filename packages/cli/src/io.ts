import { once } from "node:events";
import { exit } from "./failure.ts";

/** What a command sees of the world: the process, or a test. */
export interface Io {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly stdin: AsyncIterable<Uint8Array | string>;
  readonly stdinIsTty: boolean;
  out(text: string): void;
  err(text: string): void;
  /** Resolves when standard output has taken what was written, so that a slow reader is waited for. */
  drained(): Promise<void>;
  /** Standard output is a terminal. */
  readonly tty: boolean;
  /** Standard error is a terminal. */
  readonly errTty: boolean;
  /** Of what is written to either; where standard error is none for colours, `err` takes them out. */
  readonly colour: boolean;
  readonly columns: number;
  now(): number;
  /** Aborts on the first SIGINT, SIGTERM or SIGHUP; another one ends the process at once. */
  interrupted(): AbortSignal;
  /** From now on it goes on when nobody reads what it writes any more, or its file is full. */
  outlive(): void;
}

/** https://no-color.org, and the de-facto FORCE_COLOR. */
export const wantsColour = (env: Io["env"], tty: boolean): boolean =>
  env.NO_COLOR ? false : env.FORCE_COLOR && env.FORCE_COLOR !== "0" ? true : tty && env.TERM !== "dumb";

/** npm passes a Ctrl-C on to the program it runs, which the terminal has told already: that is no second one. */
const echoMs = 500;

/** @param own what of the process it speaks through */
export function processIo(own: Pick<NodeJS.Process, "env" | "stdin" | "stdout" | "stderr"> = process): Io {
  const { env, stdout, stderr, stdin } = own;
  const errColour = wantsColour(env, stderr.isTTY === true);
  let outlives = false;
  const gone = (error: NodeJS.ErrnoException) => {
    // The terminal was closed: SIGHUP ends in order what goes on.
    if (error.code === "EIO" || outlives) return;
    // A reader that has seen enough (`waggle get tasks | head`) is no failure.
    if (error.code === "EPIPE") process.exit(exit.ok);
    stderr.write(`waggle: cannot write the output: ${error.message}\n`);
    process.exit(exit.failed);
  };
  stdout.on("error", gone);
  stderr.on("error", gone);
  let controller: AbortController | undefined;
  return {
    env,
    stdin,
    stdinIsTty: stdin.isTTY === true,
    out: (text) => void stdout.write(text),
    err: (text) => void stderr.write(errColour ? text : text.replace(/\u001b\[\d+m/g, "")),
    drained: () => (stdout.writableNeedDrain ? once(stdout, "drain").then(() => undefined) : Promise.resolve()),
    tty: stdout.isTTY === true,
    errTty: stderr.isTTY === true,
    colour: wantsColour(env, stdout.isTTY === true),
    columns: stdout.columns ?? 120,
    now: Date.now,
    interrupted() {
      if (!controller) {
        const made = new AbortController();
        controller = made;
        let askedAt: number | undefined;
        const stop = () => {
          if (askedAt === undefined) made.abort();
          else if (performance.now() - askedAt > echoMs) process.exit(130);
          askedAt ??= performance.now();
        };
        for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, stop);
      }
      return controller.signal;
    },
    outlive() {
      outlives = true;
    },
  };
}

type Colour = "bold" | "dim" | "red" | "green" | "yellow" | "blue" | "cyan";
const codes: Record<Colour, readonly [number, number]> = {
  bold: [1, 22],
  dim: [2, 22],
  red: [31, 39],
  green: [32, 39],
  yellow: [33, 39],
  blue: [34, 39],
  cyan: [36, 39],
};
export type Paint = (colour: Colour | undefined, text: string) => string;
export const painter =
  (on: boolean): Paint =>
  (colour, text) =>
    on && colour && text !== "" ? `\u001b[${codes[colour][0]}m${text}\u001b[${codes[colour][1]}m` : text;

const colours: Record<string, Colour> = {
  ready: "green",
  busy: "cyan",
  connecting: "yellow",
  draining: "yellow",
  paused: "yellow",
  lost: "red",
  stopped: "dim",
  scheduled: "dim",
  queued: "yellow",
  assigned: "blue",
  running: "cyan",
  input_required: "yellow",
  completed: "green",
  failed: "red",
  cancelled: "dim",
  expired: "red",
  healthy: "green",
  degraded: "yellow",
  no_agents: "yellow",
  unhealthy: "red",
};
export const colourOf = (status: string): Colour | undefined => colours[status];
