import { usage } from "../failure.ts";
import { type Declaring, examples, parsed, shown } from "./declare.ts";

/** What there is, and why it is so. */
export function declareLook({ io, parse, program, run, version }: Declaring): void {
  program.commandsGroup("Look:");
  shown(program.command("get"))
    .description("List agents, tasks, events, dead-letters, limits or keys; with an id, one of them")
    .argument("<what>", "agents | tasks | events | dead-letters | limits | keys; or a whole id")
    .argument("[id]", "an id, or its beginning or end; an agent's name; a limit's key")
    .option("-w, --watch", "keep running and print what changes")
    .option("-n, --limit <n>", "how many to list", parsed(parse.integer("limit", 1, 100_000)), 50)
    .option("-s, --status <status>", "only tasks or agents with this status")
    .option("-a, --all", "include agents that have stopped")
    .option("-t, --type <type>", "only this type; for events, e.g. task.failed or task.*")
    .option("--agent <agent>", "only tasks of this agent")
    .option("--tag <tag>", "only tasks with this tag")
    .option("--parent <task>", "only tasks that are part of this one")
    .option("--role <role>", "only agents with this role")
    .option("--capability <name>", "only agents with this capability")
    .option("--label <key:value>", "only agents with this label")
    .option(
      "--after <sequence>",
      "only events after this number",
      parsed(parse.integer("after", 0, Number.MAX_SAFE_INTEGER)),
    )
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
    .action(run(async (what, id, options) => (await import("../command/get.ts")).get(io, what, id, options)));

  shown(program.command("describe"))
    .description("Show everything about one task or agent")
    .argument("<what>", "task | agent; a whole id says it by itself")
    .argument("[id]", "its id, or the beginning or end of it, or an agent's name")
    .addHelpText("after", examples("waggle describe task tsk_01jx…", "waggle describe agent coder"))
    .action(run(async (what, id, options) => (await import("../command/describe.ts")).describe(io, what, id, options)));

  shown(program.command("explain"))
    .description("Explain why a task is waiting, or why its agent has it")
    .argument("<task...>", "its id, or the beginning or end of it")
    .addHelpText("after", examples("waggle explain tsk_01jx…"))
    .action(run(async (words, options) => (await import("../command/describe.ts")).explain(io, oneOf(words), options)));

  shown(program.command("logs"))
    .description("Show what happened, to one task or to all")
    .argument("[task]", "a task's id, or the beginning or end of it")
    .option("-f, --follow", "keep following what happens")
    .option("-n, --tail <n>", "how many of the latest", parsed(parse.integer("tail", 0, 10_000)))
    .option("-t, --type <types>", "only these types, e.g. task.failed,agent.*")
    .addHelpText(
      "after",
      examples("waggle logs -f", "waggle logs -f tsk_01jx…", "waggle logs -n 100 --type 'task.failed,agent.*'"),
    )
    .action(run(async (task, options) => (await import("../command/logs.ts")).logs(io, task, options)));

  shown(program.command("status"))
    .description("Show the fleet and its work at a glance")
    .option("-w, --watch", "show it again every second")
    .addHelpText("after", examples("waggle status", "waggle status --watch"))
    .action(run(async (options) => (await import("../command/status.ts")).status(io, options)));

  shown(program.command("doctor"))
    .description("Check for problems and say how to fix them")
    .option("--deep", "check every row of the store against the others; exits with 1 if any disagree")
    .option("--data <dir>", "with --deep: the data folder of a stopped server")
    .option("--tenant <name>", "with --deep: only this tenant's rows; for an admin of the first tenant")
    .addHelpText(
      "after",
      examples(
        "waggle doctor",
        "waggle doctor --url https://waggle.example.com",
        "waggle doctor --deep",
        "waggle doctor --deep --data .waggle --json",
      ),
    )
    .action(run(async (options) => (await import("../command/doctor.ts")).doctor(io, options, version)));
}

/** `explain tsk_1` and `explain task tsk_1` are the same. */
function oneOf(words: readonly string[]): string {
  const [id, ...others] = words[0] === "task" && words.length > 1 ? words.slice(1) : words;
  if (id === undefined || others.length > 0) throw usage("give one task", "waggle explain TASK");
  return id;
}
