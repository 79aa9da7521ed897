import { CommanderError } from "commander";
import { exit } from "./failure.ts";
import { type Io, painter, processIo } from "./io.ts";
import * as parse from "./parse.ts";
import { buildProgram } from "./program.ts";
import { version } from "./version.ts";

/** Runs one command line. Never throws: what goes wrong is told on `err` and in the exit code. */
export async function runCommand(argv: readonly string[], io: Io): Promise<number> {
  let code: number = exit.ok;
  const program = buildProgram(io, parse, version, (result) => {
    code = result;
  });
  try {
    if (argv.length === 0) {
      program.outputHelp();
      return exit.ok;
    }
    await program.parseAsync([...argv], { from: "user" });
    return code;
  } catch (error) {
    // Commander has printed its own; its help exits with 0, a wrong command line with 1.
    if (error instanceof CommanderError) return error.exitCode === 0 ? exit.ok : exit.usage;
    const { explainFailure } = await import("./explain.ts");
    const told = explainFailure(error);
    const paint = painter(io.colour);
    io.err(
      `${paint("red", "waggle:")} ${told.message}\n${told.advice ? `${paint("dim", `  → ${told.advice}`)}\n` : ""}`,
    );
    return told.exitCode;
  }
}

/** The command of this process. */
export async function main(): Promise<void> {
  process.exitCode = await runCommand(process.argv.slice(2), processIo());
}
