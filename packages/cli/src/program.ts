import { Command } from "commander";
import type { Io } from "./io.ts";
import { declareAct } from "./program/act.ts";
import { declareAdminister } from "./program/administer.ts";
import { type Declaring, examples, type Parsers } from "./program/declare.ts";
import { declareLook } from "./program/look.ts";
import { declareRun } from "./program/run.ts";
import { declareSetup } from "./program/setup.ts";

/** All commands; each loads its code when it runs. */
export function buildProgram(io: Io, parse: Parsers, version: string, finish: (code: number) => void): Command {
  const program = new Command("waggle");
  program
    .description("Run, watch and command a fleet of agents.")
    .version(version, "-V, --version")
    .showSuggestionAfterError()
    .enablePositionalOptions()
    .configureHelp({ sortSubcommands: false, showGlobalOptions: false })
    .configureOutput({
      writeOut: (text) => io.out(text),
      writeErr: (text) => io.err(text),
      outputError: (text, write) => write(text.replace(/^error: /, "waggle: ")),
      getOutHelpWidth: () => Math.min(io.columns, 110),
      getErrHelpWidth: () => Math.min(io.columns, 110),
      getOutHasColors: () => io.colour,
      getErrHasColors: () => io.colour,
    })
    .exitOverride()
    .addHelpText(
      "after",
      `${examples(
        "waggle dev                                                     start a server in this folder",
        "waggle agent run --name echo --capability echo -- cat          make any program an agent",
        `waggle delegate greet --requires echo --input '{"hi":1}' --wait  give it work`,
        "waggle get tasks                                               see what became of it",
      )}
Environment:
  WAGGLE_URL, WAGGLE_API_KEY  the server and its key; by default from \`waggle config\`, else the server on this machine
  NO_COLOR                    turns colours off

Exit codes: 0 ok · 1 failed · 2 usage · 3 not found · 4 refused · 5 unreachable`,
    );
  const declaring: Declaring = {
    program,
    io,
    parse,
    version,
    run:
      (action) =>
      async (...args) =>
        finish((await action(...args.slice(0, -1))) ?? 0),
  };
  for (const declare of [declareRun, declareLook, declareAct, declareAdminister, declareSetup]) declare(declaring);
  helpAfterErrors(program, program.name());
  return program;
}

/** Who has got a command line wrong is told where it is explained. */
function helpAfterErrors(command: Command, path: string): void {
  command.showHelpAfterError(`  → ${path} --help`);
  for (const sub of command.commands) helpAfterErrors(sub, `${path} ${sub.name()}`);
}
