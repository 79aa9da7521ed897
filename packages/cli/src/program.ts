import { Command, InvalidArgumentError, Option } from "commander";
import { Failure } from "./failure.ts";
import type { Io } from "./io.ts";
import { formats } from "./print.ts";

/** A command's exit code; nothing means 0. */
export type Result = Promise<number | undefined>;
// biome-ignore lint/suspicious/noExplicitAny: commander hands over what the declarations below say
type Action = (...args: any[]) => Result;

/** Turns what a parser throws into commander's own usage error, which names the option. */
const parsed =
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
const each =
  <T>(parse: (text: string) => T) =>
  (text: string, before: T[] = []): T[] => [...before, parsed(parse)(text)];

const examples = (...lines: string[]) => `\nExamples:\n${lines.map((line) => `  ${line}`).join("\n")}\n`;

/** Options that take a duration, a number and so on: their parsers, loaded with the commands alone. */
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

/** All commands; each loads its code when it runs. */
export function buildProgram(io: Io, parse: Parsers, version: string, finish: (code: number) => void): Command {
  const program = new Command("waggle");
  const run =
    (action: Action) =>
    async (...args: unknown[]): Promise<void> => {
      finish((await action(...args.slice(0, -1))) ?? 0);
    };

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
  WAGGLE_URL, WAGGLE_API_KEY  the server and the key; else \`waggle config\`, else the server of this machine
  NO_COLOR                    no colours

Exit codes: 0 ok · 1 failed · 2 usage · 3 not found · 4 refused · 5 unreachable`,
    );

  const remote = (command: Command) =>
    command.option("--url <url>", "the server").option("--key <key>", "the key (better kept in WAGGLE_API_KEY)");
  const shown = (command: Command) =>
    remote(command).addOption(new Option("-o, --output <format>", "how to print").choices(formats));

  // ---- running
  program.commandsGroup("Run:");
  program
    .command("dev")
    .description("Run a server on this machine, its data in a folder")
    .option("--port <port>", "where to listen; 0 takes a free one", parsed(parse.integer("port", 0, 65_535)))
    .option("--host <host>", "the address to listen on", "127.0.0.1")
    .option("--data <folder>", "the data folder", ".waggle")
    .option("-q, --quiet", "print the address and nothing else")
    .addHelpText(
      "after",
      examples(
        "waggle dev",
        "waggle dev --port 0 --data /var/lib/waggle",
        "curl $URL/docs   # the API, to read and try",
        "WAGGLE_PUBLIC_URL=https://waggle.example.com waggle dev   # where agents that are called call back",
      ),
    )
    .action(run(async (options) => (await import("./command/dev.ts")).dev(io, options, version)));

  /** What an agent is, however it is reached. */
  const described = (command: Command, name: string) =>
    command
      .requiredOption("--name <name>", name)
      .option("--capability <name[:level]>", "what it can do (repeat)", each(parse.capability))
      .option("--concurrency <n>", "tasks at a time", parsed(parse.integer("concurrency", 1, 1000)), 1)
      .option("--label <key=value>", "what it is like (repeat)", each(parse.label))
      .option("--role <role>", "its role")
      .option("--type <type>", "its type")
      .option("--description <text>", "what it is for")
      .option("--lease <duration>", "silence after which its work is given to others", parsed(parse.seconds), 60);
  const agent = program.command("agent").description("Be an agent");
  described(remote(agent.command("run")), "unique; started again it takes the place of the one before")
    .description(
      "Make any program an agent: input on stdin as JSON, result on stdout, exit code other than 0 is a failure",
    )
    .argument("<command...>", "the program and its arguments, after --")
    .option("--timeout <duration>", "longest run of one task", parsed(parse.seconds))
    .option("--kill-after <duration>", "time between SIGTERM and SIGKILL on cancel", parsed(parse.seconds), 5)
    .option("--grace <duration>", "how long a stop waits for what runs", parsed(parse.seconds), 30)
    .option("--fatal <codes>", "exit codes that end a task without another attempt, e.g. 64,65")
    .option("--text", "take the output as text even where it is JSON")
    .addOption(new Option("--transport <kind>", "how to connect").choices(["auto", "socket", "poll"]).default("auto"))
    .option("-q, --quiet", "do not pass on what the program writes to stderr")
    .passThroughOptions()
    .addHelpText(
      "after",
      `
The program is told by its environment: WAGGLE_TASK_ID, WAGGLE_TASK_TYPE, WAGGLE_ATTEMPT, WAGGLE_TASK_PRIORITY,
WAGGLE_DETAILS (what the attempt before saved, as JSON), WAGGLE_AGENT_ID, WAGGLE_AGENT_NAME, WAGGLE_URL.
Lines on its stderr like these are taken as messages:
  ::progress 40 reading the files
  ::details {"page": 12}
On cancel it gets SIGTERM, and SIGKILL when it does not heed that.
${examples(
  "waggle agent run --name echo --capability echo -- cat",
  "waggle agent run --name coder --capability code:0.9 --concurrency 4 --label zone=eu -- ./solve.sh",
)}`,
    )
    .action(run(async (command, options) => (await import("./command/agent-run.ts")).agentRun(io, command, options)));
  described(shown(agent.command("register")), "unique")
    .description("Register an agent that runs elsewhere; its token, and the secret of a webhook, are shown this once")
    .option("--webhook <url>", "called by a signed POST; a secret of your own in WAGGLE_WEBHOOK_SECRET")
    .option("--lambda <arn>", "called by invoking this function")
    .option("--queue <url>", "called by a message to this SQS queue")
    .option("--replace", "take the place of an agent of this name")
    .addHelpText(
      "after",
      examples(
        "waggle agent register --name summariser --capability summarise --webhook https://example.com/work",
        "waggle agent register --name resizer --capability resize --concurrency 50 --lambda arn:aws:lambda:eu-west-1:123456789012:function:resize",
      ),
    )
    .action(run(async (options) => (await import("./command/agent-register.ts")).agentRegister(io, options)));

  shown(program.command("delegate"))
    .description("Give work to the fleet")
    .argument("<type>", "the type of the task")
    .option("-i, --input <json|@file|->", "the input: JSON, a file, or standard input")
    .option("-r, --requires <capability[:level]>", "what its agent must be able to do (repeat)", each(parse.capability))
    .option("-p, --priority <0-9>", "9 first", parsed(parse.integer("priority", 0, 9)))
    .option(
      "-l, --label <selector>",
      "what its agent must be like: zone=eu, memory>=16, gpu (repeat)",
      each(parse.selector),
    )
    .option("--prefer <selector>", "as --label, but only preferred (repeat)", each(parse.selector))
    .option("--agent <agent>", "this agent alone")
    .option("--role <role>", "an agent of this role")
    .option("--strategy <name>", "how to choose among agents")
    .option("--description <text>", "what it is about")
    .option("--tag <tag>", "to find it by (repeat)", each(String))
    .option("--metadata <json|@file>", "kept with it")
    .option("--delay <duration>", "not before this has passed", parsed(parse.seconds))
    .option("--depends-on <task>", "not before this task has completed (repeat)", each(String))
    .option("--parent <task>", "the task it is a part of; within `agent run` the one that runs")
    .option("--run-timeout <duration>", "longest run of one attempt", parsed(parse.seconds))
    .option("--queue-timeout <duration>", "longest wait for an agent", parsed(parse.seconds))
    .option("--total-timeout <duration>", "longest time in all", parsed(parse.seconds))
    .option("--attempts <n>", "attempts in all", parsed(parse.integer("attempts", 1, 100)))
    .option("--limit <key=n>", "at most n tasks of this key at a time (repeat)", each(parse.pair))
    .option("--fair-key <key>", "share the fleet fairly between keys")
    .option("--sticky <key>", "prefer the agent that had this key before")
    .option("--idempotency-key <key>", "the same key makes one task, however often it is sent")
    .option("-w, --wait", "wait for the end; print the result")
    .option("--wait-timeout <duration>", "wait no longer than this", parsed(parse.seconds))
    .addHelpText(
      "after",
      examples(
        "waggle delegate summarise --requires nlp --input @article.json --wait",
        "cat request.json | waggle delegate review --requires code:0.8 --input - --priority 9",
        "waggle delegate build --label 'memory>=16' --run-timeout 10m --attempts 2",
      ),
    )
    .action(run(async (type, options) => (await import("./command/delegate.ts")).delegate(io, type, options)));

  // ---- looking
  program.commandsGroup("Look:");
  shown(program.command("get"))
    .description("List agents, tasks, events, dead-letters, limits or keys; with an id, one of them")
    .argument("<what>", "agents | tasks | events | dead-letters | limits | keys")
    .argument("[id]", "an id, its beginning or its end; an agent's name; a limit's key")
    .option("-w, --watch", "go on and print what changes")
    .option("-n, --limit <n>", "how many", parsed(parse.integer("limit", 1, 100_000)), 50)
    .option("-s, --status <status>", "tasks or agents of this status")
    .option("-a, --all", "agents that have stopped, too")
    .option("-t, --type <type>", "of this type; events: e.g. task.failed or task.*")
    .option("--agent <agent>", "tasks of this agent")
    .option("--tag <tag>", "tasks with this tag")
    .option("--parent <task>", "tasks that are part of this one")
    .option("--role <role>", "agents of this role")
    .option("--capability <name>", "agents that can do this")
    .option("--label <key:value>", "agents with this label")
    .option("--after <sequence>", "events after this one", parsed(parse.integer("after", 0, Number.MAX_SAFE_INTEGER)))
    .addHelpText(
      "after",
      examples(
        "waggle get tasks --status failed",
        "waggle get tasks --watch",
        "waggle get agents -o wide",
        "waggle get events --type 'task.*' -n 20",
        "waggle get dead-letters -o json",
      ),
    )
    .action(run(async (what, id, options) => (await import("./command/get.ts")).get(io, what, id, options)));

  shown(program.command("describe"))
    .description("All about one task or agent")
    .argument("<what>", "task | agent")
    .argument("<id>", "its id, the beginning or end of it, or an agent's name")
    .addHelpText("after", examples("waggle describe task tsk_01jx…", "waggle describe agent coder"))
    .action(run(async (what, id, options) => (await import("./command/describe.ts")).describe(io, what, id, options)));

  shown(program.command("explain"))
    .description("Why a task waits, or why its agent has it")
    .argument("[noun-or-id]")
    .argument("[id]")
    .usage("[options] <task>")
    .addHelpText("after", examples("waggle explain tsk_01jx…"))
    .action(
      run(async (first, second, options) =>
        (await import("./command/describe.ts")).explain(io, oneOf(first, second), options),
      ),
    );

  shown(program.command("logs"))
    .description("What happened: of one task, or of everything")
    .argument("[task]", "a task's id, the beginning or end of it")
    .option("-f, --follow", "go on as it happens")
    .option("-n, --tail <n>", "how many of the newest", parsed(parse.integer("tail", 0, 10_000)))
    .option("-t, --type <types>", "e.g. task.failed,agent.*")
    .option("--json", "as -o json: one object a line")
    .addHelpText(
      "after",
      examples("waggle logs -f", "waggle logs -f tsk_01jx…", "waggle logs -n 100 --type 'task.failed,agent.*'"),
    )
    .action(run(async (task, options) => (await import("./command/logs.ts")).logs(io, task, options)));

  shown(program.command("status"))
    .description("The fleet and the work at a glance")
    .option("-w, --watch", "show it again every second")
    .addHelpText("after", examples("waggle status", "waggle status --watch"))
    .action(run(async (options) => (await import("./command/status.ts")).status(io, options)));

  shown(program.command("doctor"))
    .description("Look for what is wrong and say what to do")
    .option("--deep", "read every row of the store and say which do not agree; exits 1 when some do not")
    .option("--data <dir>", "with --deep: the data folder of a server that is stopped")
    .option("--tenant <name>", "with --deep: the rows of one tenant, for an admin of the first")
    .option("--json", "as -o json")
    .addHelpText(
      "after",
      examples(
        "waggle doctor",
        "waggle doctor --url https://waggle.example.com",
        "waggle doctor --deep",
        "waggle doctor --deep --data .waggle --json",
      ),
    )
    .action(run(async (options) => (await import("./command/doctor.ts")).doctor(io, options, version)));

  // ---- acting
  program.commandsGroup("Act:");
  const many = (name: string, what: "task" | "agent", description: string, example: string) =>
    shown(program.command(name))
      .description(description)
      .argument(`<${what}...>`, `ids, or the beginning or end of them${what === "agent" ? ", or names" : ""}`)
      .addHelpText("after", examples(...example.split("\n")));
  many(
    "cancel",
    "task",
    "Cancel tasks in any state",
    "waggle cancel tsk_01jx…\nwaggle cancel tsk_01jx… --reason 'no longer needed'",
  )
    .option("--reason <text>", "kept with it")
    .action(run(async (ids, options) => (await import("./command/act.ts")).cancel(io, ids, options)));
  many(
    "retry",
    "task",
    "Run failed, cancelled or expired tasks again, with fresh attempts",
    "waggle retry tsk_01jx…",
  ).action(run(async (ids, options) => (await import("./command/act.ts")).retry(io, ids, options)));
  const states = {
    drain: "Give agents no new work; what runs goes on",
    pause: "Give agents no new work until they are resumed",
    resume: "Give paused or draining agents work again",
  } as const;
  for (const [verb, description] of Object.entries(states) as [keyof typeof states, string][]) {
    many(verb, "agent", description, `waggle ${verb} coder`).action(
      run(async (ids, options) => (await import("./command/act.ts")).agentState(io, verb, ids, options)),
    );
  }
  shown(program.command("delete"))
    .description("Remove agents: they finish what they run, then stop")
    .argument("<what>", "agent")
    .argument("<agent...>", "ids, the beginning or end of them, or names")
    .option("--force", "at once; what they run is given to others")
    .option("--grace <duration>", "how long they may finish", parsed(parse.seconds))
    .addHelpText("after", examples("waggle delete agent coder", "waggle delete agent coder --force"))
    .action(run(async (what, ids, options) => (await import("./command/act.ts")).remove(io, what, ids, options)));
  shown(program.command("redrive"))
    .description("Run dead letters again")
    .argument("[task...]", "these; or --all")
    .option("--all", "all of them")
    .option("--per-second <n>", "spread them", Number)
    .addHelpText("after", examples("waggle redrive tsk_01jx…", "waggle redrive --all --per-second 5"))
    .action(run(async (ids, options) => (await import("./command/act.ts")).redrive(io, ids, options)));

  // ---- administering
  program.commandsGroup("Administer:");
  const limit = program.command("limit").description("Limits that hold over what tasks ask");
  shown(limit.command("set"))
    .description("Set a limit")
    .argument("<key>", "the key tasks name")
    .option("--concurrency <n>", "tasks at a time", parsed(parse.integer("concurrency", 1, 1_000_000)))
    .option("--rate <n/duration>", "starts in a time: 100/1m", parsed(parse.rate))
    .addHelpText("after", examples("waggle limit set openai --concurrency 10 --rate 100/1m"))
    .action(run(async (key, options) => (await import("./command/admin.ts")).setLimit(io, key, options)));
  remote(limit.command("unset"))
    .description("Remove a limit; what tasks ask holds again")
    .argument("<key>", "`waggle get limits` lists them")
    .addHelpText("after", examples("waggle limit unset openai"))
    .action(run(async (key, options) => (await import("./command/admin.ts")).unsetLimit(io, key, options)));
  const retention = program.command("retention").description("How long finished tasks and events are kept");
  shown(retention.command("get"))
    .description("Show it")
    .action(run(async (options) => (await import("./command/admin.ts")).getRetention(io, options)));
  shown(retention.command("set"))
    .description("Set it; tasks that have finished before follow in the background")
    .option("--tasks <duration|never>", "a finished task, from its end on", parsed(parse.kept))
    .option("--events <duration|never>", "an event of the log", parsed(parse.kept))
    .addHelpText(
      "after",
      examples("waggle retention set --tasks 90d --events 30d", "waggle retention set --tasks never"),
    )
    .action(run(async (options) => (await import("./command/admin.ts")).setRetention(io, options)));
  const quota = program.command("quota").description("What a tenant may have at most");
  shown(quota.command("get"))
    .description("Show the quotas of a tenant and what is used of them")
    .argument("[tenant]", "the first one unless given", "default")
    .action(run(async (tenant, options) => (await import("./command/admin.ts")).getQuota(io, tenant, options)));
  const most = (what: string) => parsed(parse.integer(what, 0, 1e15));
  shown(quota.command("set"))
    .description("Set all quotas of a tenant; what is left out is not limited. Needs an admin of the first tenant")
    .argument("<tenant>", "whose")
    .option("--tasks <n>", "stored tasks of any status", most("tasks"))
    .option("--bytes <n>", "bytes of their payloads, and 1024 for each", most("bytes"))
    .option("--waiting <n>", "queued and scheduled tasks", most("waiting"))
    .option("--agents <n>", "agents that are not stopped", most("agents"))
    .option("--submits <n/duration>", "tasks submitted in a time: 100/1s", parsed(parse.rate))
    .addHelpText(
      "after",
      examples(
        "waggle quota set acme --tasks 1000000 --waiting 10000 --submits 100/1s",
        "waggle quota set acme   # none",
      ),
    )
    .action(run(async (tenant, options) => (await import("./command/admin.ts")).setQuota(io, tenant, options)));
  const key = program.command("key").description("Keys of the API");
  shown(key.command("create"))
    .description("Make a key; it is shown this once")
    .addOption(
      new Option("--role <role>", "what it may do")
        .choices(["admin", "operator", "client", "reader"])
        .makeOptionMandatory(),
    )
    .option("--name <name>", "to tell it by")
    .option("--tenant <tenant>", "for another tenant; the first admin alone")
    .addHelpText("after", examples("waggle key create --role client --name ci"))
    .action(run(async (options) => (await import("./command/admin.ts")).createKey(io, options)));
  remote(key.command("revoke"))
    .description("Revoke a key, at once")
    .argument("<key-id>", "`waggle get keys` lists them")
    .addHelpText("after", examples("waggle key revoke key_01jx…"))
    .action(run(async (id, options) => (await import("./command/admin.ts")).revokeKey(io, id, options)));

  remote(program.command("export"))
    .description("Write all the tenant has to a file, to be imported into another server: agents, keys, limits, tasks")
    .argument("[file]", "where to; - or nothing is standard output")
    .option("--resume", "go on with a file that was cut short, after its last checkpoint")
    .option("--force", "write over a file that is there")
    .option("--verify <file>", "check a file alone: its hash, its counts and every field; needs no server")
    .option("--json", "print a summary as JSON")
    .option("-q, --quiet", "no progress")
    .addHelpText(
      "after",
      `
Needs a key of role admin. Secrets are not in it, only the hashes of keys and tokens, which go on working where they are
imported; payloads are. Each row is as it stood when it was read: for an exact copy, export when nothing runs
(\`waggle drain\`, and no submits).
${examples(
  "waggle export fleet.jsonl",
  "waggle export fleet.jsonl --resume",
  "waggle export --verify fleet.jsonl",
  "waggle export | gzip > fleet.jsonl.gz",
)}`,
    )
    .action(run(async (file, options) => (await import("./command/export.ts")).exportTo(io, file, options)));
  remote(program.command("import"))
    .description("Take what an export wrote, each record where nothing is yet")
    .argument("<file>", "what `waggle export` wrote; - is standard input")
    .option("--resume", "go on after the last checkpoint that the import before reached")
    .option("--json", "print a summary as JSON")
    .option("-q, --quiet", "no progress")
    .addHelpText(
      "after",
      `
Needs a key of role admin. What is there already stays as it is, so importing again changes nothing. Tasks that an agent
held are given back, at no cost to their attempts. Records are sent only up to a checkpoint whose hash and counts are right.
Exits with 4 when something else is there under the same name; all the rest is taken.
${examples("waggle import fleet.jsonl --url https://waggle.example.com", "gunzip -c fleet.jsonl.gz | waggle import -")}`,
    )
    .action(run(async (file, options) => (await import("./command/import.ts")).importFrom(io, file, options)));

  const config = program.command("config").description("The server, key and output format this user works with");
  const setting = "url | key | output";
  config
    .command("get")
    .description("Print a setting")
    .argument("<name>", setting)
    .action(run(async (name) => (await import("./command/config.ts")).getSetting(io, name)));
  config
    .command("set")
    .description("Keep a setting; without a value it is read from standard input")
    .argument("<name>", setting)
    .argument("[value]")
    .addHelpText(
      "after",
      examples("waggle config set url https://waggle.example.com", "waggle config set key < key.txt"),
    )
    .action(run(async (name, value) => (await import("./command/config.ts")).setSetting(io, name, value)));
  config
    .command("unset")
    .description("Forget a setting")
    .argument("<name>", setting)
    .action(run(async (name) => (await import("./command/config.ts")).unsetSetting(io, name)));
  config
    .command("list")
    .description("What is set, and which server and key are used now")
    .addOption(new Option("-o, --output <format>", "how to print").choices(formats))
    .action(run(async (options) => (await import("./command/config.ts")).listSettings(io, options)));

  program
    .command("completion")
    .description("Print the completion script of a shell")
    .argument("<shell>", "bash | zsh | fish")
    .addHelpText(
      "after",
      examples(
        `eval "$(waggle completion bash)"                              in ~/.bashrc`,
        `eval "$(waggle completion zsh)"                               in ~/.zshrc`,
        "waggle completion fish > ~/.config/fish/completions/waggle.fish",
      ),
    )
    .action(run(async (shell) => (await import("./command/completion.ts")).script(io, shell)));
  program
    .command("__complete", { hidden: true })
    .argument("[words...]")
    .allowUnknownOption()
    .passThroughOptions()
    .action(run(async (words) => (await import("./command/completion.ts")).complete(io, program, words)));
  remote(program.command("version"))
    .description("The version of this command and of the server")
    .addOption(new Option("-o, --output <format>", "how to print").choices(formats))
    .action(run(async (options) => (await import("./command/status.ts")).showVersion(io, options, version)));

  return program;
}

/** `explain tsk_1` and `explain task tsk_1` are the same. */
function oneOf(first: string | undefined, second: string | undefined): string {
  const id = second ?? first;
  if (id === undefined || (second !== undefined && first !== "task")) {
    throw new Failure(2, "give one task", "waggle explain TASK");
  }
  return id;
}
