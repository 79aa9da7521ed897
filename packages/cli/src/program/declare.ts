import { type Command, InvalidArgumentError, Option } from "commander";
import { Failure } from "../failure.ts";
import type { Io } from "../io.ts";
import { formats } from "../print.ts";

// biome-ignore lint/suspicious/noExplicitAny: commander hands over what the declarations say
export type Action = (...args: any[]) => Promise<number | undefined>;

/** Options that take a duration, a number and so on: their parsers. */
export interface Parsers {
  seconds(text: string): number;
  integer(name: string, min: number, max: number): (text: string) => number;
  capability(text: string): unknown;
  label(text: string): unknown;
  selector(text: string): unknown;
  pair(text: string): unknown;
  rate(text: string): unknown;
  kept(text: string): number;
}

/** What a group of commands is declared with. */
export interface Declaring {
  readonly program: Command;
  readonly io: Io;
  readonly parse: Parsers;
  readonly version: string;
  /** Makes an action's exit code that of the process; nothing means 0. */
  run(action: Action): (...args: unknown[]) => Promise<void>;
}

/** Turns what a parser throws into commander's own usage error, which names the option. */
export const parsed =
  <T>(parse: (text: string) => T) =>
  (text: string): T => {
    try {
      return parse(text);
    } catch (error) {
      throw new InvalidArgumentError(
        `${(error as Error).message}.${error instanceof Failure && error.advice ? ` ${error.advice}.` : ""}`,
      );
    }
  };

/** An option that may be given more than once. */
export const each =
  <T>(parse: (text: string) => T) =>
  (text: string, before: T[] = []): T[] => [...before, parsed(parse)(text)];

export const examples = (...lines: string[]) => `\nExamples:\n${lines.map((line) => `  ${line}`).join("\n")}\n`;

/** Speaks to a server. */
export const remote = (command: Command) =>
  command.option("--url <url>", "the server's address").option("--key <key>", "the API key (safer in WAGGLE_API_KEY)");

/** Prints what programs may want to read. */
export const printed = (command: Command) =>
  command
    .addOption(new Option("-o, --output <format>", "output format").choices(formats))
    .option("--json", "same as -o json");

/** Speaks to a server, and prints what that answers. */
export const shown = (command: Command) => printed(remote(command));
