import { type Declaring, examples, printed, shown } from "./declare.ts";

/** The command itself. */
export function declareSetup({ io, program, run, version }: Declaring): void {
  const config = program.command("config").description("The server, key and output format that you use");
  const setting = "url | key | output";
  config
    .command("get")
    .description("Print a setting")
    .argument("<name>", setting)
    .action(run(async (name) => (await import("../command/config.ts")).getSetting(io, name)));
  config
    .command("set")
    .description("Store a setting; without a value it is read from standard input")
    .argument("<name>", setting)
    .argument("[value]")
    .addHelpText(
      "after",
      examples("waggle config set url https://waggle.example.com", "waggle config set key < key.txt"),
    )
    .action(run(async (name, value) => (await import("../command/config.ts")).setSetting(io, name, value)));
  config
    .command("unset")
    .description("Remove a setting")
    .argument("<name>", setting)
    .action(run(async (name) => (await import("../command/config.ts")).unsetSetting(io, name)));
  printed(config.command("list"))
    .description("Show what is set, and which server and key are in use")
    .action(run(async (options) => (await import("../command/config.ts")).listSettings(io, options)));

  program
    .command("completion")
    .description("Print the completion script for a shell")
    .argument("<shell>", "bash | zsh | fish")
    .addHelpText(
      "after",
      examples(
        `eval "$(waggle completion bash)"                              in ~/.bashrc`,
        `eval "$(waggle completion zsh)"                               in ~/.zshrc`,
        "waggle completion fish > ~/.config/fish/completions/waggle.fish",
      ),
    )
    .action(run(async (shell) => (await import("../command/completion.ts")).script(io, shell)));
  program
    .command("__complete", { hidden: true })
    .argument("[words...]")
    .allowUnknownOption()
    .passThroughOptions()
    .action(run(async (words) => (await import("../command/completion.ts")).complete(io, program, words)));
  shown(program.command("version"))
    .description("Show the versions of this command and of the server")
    .action(run(async (options) => (await import("../command/status.ts")).showVersion(io, options, version)));
}
