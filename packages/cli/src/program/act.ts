import { type Declaring, examples, parsed, shown } from "./declare.ts";

/** On tasks and agents that are there. */
export function declareAct({ io, parse, program, run }: Declaring): void {
  program.commandsGroup("Act:");
  const many = (name: string, what: "task" | "agent", description: string, example: string) =>
    shown(program.command(name))
      .description(description)
      .argument(`<${what}...>`, `ids, or the beginnings or ends of them${what === "agent" ? ", or names" : ""}`)
      .addHelpText("after", examples(...example.split("\n")));
  many(
    "cancel",
    "task",
    "Cancel tasks in any state",
    "waggle cancel tsk_01jx…\nwaggle cancel tsk_01jx… --reason 'no longer needed'",
  )
    .option("--reason <text>", "recorded with the task")
    .action(run(async (ids, options) => (await import("../command/act.ts")).cancel(io, ids, options)));
  many(
    "retry",
    "task",
    "Run failed, cancelled or expired tasks again, with fresh attempts",
    "waggle retry tsk_01jx…",
  ).action(run(async (ids, options) => (await import("../command/act.ts")).retry(io, ids, options)));
  const states = {
    drain: "Give agents no new work; what they run goes on",
    pause: "Give agents no new work until they are resumed",
    resume: "Give paused or draining agents work again",
  } as const;
  for (const [verb, description] of Object.entries(states) as [keyof typeof states, string][]) {
    many(verb, "agent", description, `waggle ${verb} coder`).action(
      run(async (ids, options) => (await import("../command/act.ts")).agentState(io, verb, ids, options)),
    );
  }
  shown(program.command("delete"))
    .description("Remove agents: they finish what they run, then stop")
    .argument("<what>", "agent")
    .argument("<agent...>", "ids, or the beginnings or ends of them, or names")
    .option("--force", "remove them at once; what they run goes to others")
    .option("--grace <duration>", "how long they may take to finish", parsed(parse.seconds))
    .addHelpText("after", examples("waggle delete agent coder", "waggle delete agent coder --force"))
    .action(run(async (what, ids, options) => (await import("../command/act.ts")).remove(io, what, ids, options)));
  shown(program.command("redrive"))
    .description("Run dead letters again")
    .argument("[task...]", "the tasks to run again; or use --all")
    .option("--all", "all dead letters")
    .option("--per-second <n>", "run at most so many per second", Number)
    .addHelpText("after", examples("waggle redrive tsk_01jx…", "waggle redrive --all --per-second 5"))
    .action(run(async (ids, options) => (await import("../command/act.ts")).redrive(io, ids, options)));
}
