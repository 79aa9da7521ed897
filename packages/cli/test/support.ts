import type { Io } from "../src/io.ts";
import { runCommand } from "../src/main.ts";

export interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}
export interface Running {
  readonly done: Promise<Ran>;
  out(): string;
  err(): string;
  interrupt(): void;
}

/** Starts a command line in this process, as its own process would run it. */
export function begin(
  argv: readonly string[],
  options: { stdin?: string; env?: Record<string, string> } = {},
): Running {
  let out = "";
  let err = "";
  const controller = new AbortController();
  async function* stdin() {
    yield options.stdin ?? "";
  }
  const io: Io = {
    env: { ...process.env, ...options.env },
    stdin: stdin(),
    stdinIsTty: options.stdin === undefined,
    out: (text) => {
      out += text;
    },
    err: (text) => {
      err += text;
    },
    drained: () => Promise.resolve(),
    tty: false,
    errTty: false,
    colour: false,
    columns: 110,
    now: Date.now,
    interrupted: () => controller.signal,
    outlive() {},
  };
  return {
    done: runCommand(argv, io).then((code) => ({ code, out, err })),
    out: () => out,
    err: () => err,
    interrupt: () => controller.abort(),
  };
}
export const waggle = (...argv: string[]): Promise<Ran> => begin(argv).done;
