import type { CreateTask } from "@waggle/sdk";
import { type Command, Option } from "commander";
import { type Declaring, each, examples, parsed, remote, shown } from "./declare.ts";

/** An object, so that the compiler tells of one that is missing here. */
const strategies: Readonly<Record<NonNullable<CreateTask["strategy"]>, true>> = {
  best_fit: true,
  least_loaded: true,
  round_robin: true,
  weighted: true,
  sticky: true,
  cheapest: true,
  fastest: true,
  random_two: true,
};

/** A server, an agent, a task. */
export function declareRun({ io, parse, program, run, version }: Declaring): void {
  program.commandsGroup("Run:");
  program
    .command("dev")
    .description("Run a server on this machine, with its data in a folder")
    .option(
      "--port <port>",
      "the port to listen on, 9244 by default; 0 picks a free one",
      parsed(parse.integer("port", 0, 65_535)),
    )
    .option("--host <host>", "the address to listen on", "127.0.0.1")
    .option("--data <folder>", "the data folder", ".waggle")
    .option("-q, --quiet", "print only the address")
    .addHelpText(
      "after",
      examples(
        "waggle dev",
        "waggle dev --port 0 --data /var/lib/waggle",
        "curl $URL/docs   # read and try the API",
        "WAGGLE_PUBLIC_URL=https://waggle.example.com waggle dev   # where called agents reach this server",
      ),
    )
    .action(run(async (options) => (await import("../command/dev.ts")).dev(io, options, version)));

  /** What an agent is, however it is reached. */
  const described = (command: Command, name: string) =>
    command
      .requiredOption("--name <name>", name)
      .option("--capability <name[:level]>", "something it can do (repeatable)", each(parse.capability))
      .option(
        "--concurrency <n>",
        "how many tasks it takes at a time",
        parsed(parse.integer("concurrency", 1, 1000)),
        1,
      )
      .option("--label <key=value>", "a property that tasks can select by (repeatable)", each(parse.label))
      .option("--role <role>", "its role")
      .option("--type <type>", "its type")
      .option("--description <text>", "what it is for")
      .option("--lease <duration>", "silence after which its work goes to others", parsed(parse.seconds), 60);
  const agent = program.command("agent").description("Run or register an agent");
  described(remote(agent.command("run")), "a unique name; starting again replaces the previous one")
    .description(
      "Turn any program into an agent: input as JSON on stdin, result on stdout; a non-zero exit code is a failure",
    )
    .argument("<command...>", "the program and its arguments, after --")
    .option("--timeout <duration>", "longest a task may run", parsed(parse.seconds))
    .option("--kill-after <duration>", "time between SIGTERM and SIGKILL on cancel", parsed(parse.seconds), 5)
    .option("--grace <duration>", "how long stopping waits for running tasks", parsed(parse.seconds), 30)
    .option("--fatal <codes>", "exit codes after which a task is not retried, e.g. 64,65")
    .option("--text", "treat the output as text even if it is JSON")
    .addOption(new Option("--transport <kind>", "how to connect").choices(["auto", "socket", "poll"]).default("auto"))
    .option("-q, --quiet", "do not show what the program writes to stderr")
    .passThroughOptions()
    .addHelpText(
      "after",
      `
The program finds in its environment: WAGGLE_TASK_ID, WAGGLE_TASK_TYPE, WAGGLE_ATTEMPT, WAGGLE_TASK_PRIORITY,
WAGGLE_DETAILS (what the previous attempt saved, as JSON), WAGGLE_AGENT_ID, WAGGLE_AGENT_NAME, WAGGLE_URL.
It reports to Waggle by lines like these on stderr:
  ::progress 40 reading the files
  ::details {"page": 12}
On cancel it gets SIGTERM, then SIGKILL if it does not exit. What it leaves running in the background is not waited for.
${examples(
  "waggle agent run --name echo --capability echo -- cat",
  "waggle agent run --name coder --capability code:0.9 --concurrency 4 --label zone=eu -- ./solve.sh",
)}`,
    )
    .action(run(async (command, options) => (await import("../command/agent-run.ts")).agentRun(io, command, options)));
  described(shown(agent.command("register")), "a unique name")
    .description("Register an agent that runs elsewhere; its token, and a webhook's secret, are shown only once")
    .option("--webhook <url>", "call it by a signed POST; WAGGLE_WEBHOOK_SECRET may hold a secret of your own")
    .option("--lambda <arn>", "call it by invoking this Lambda function")
    .option("--queue <url>", "call it by a message to this SQS queue")
    .option("--replace", "take the place of an agent with this name")
    .addHelpText(
      "after",
      examples(
        "waggle agent register --name summariser --capability summarise --webhook https://example.com/work",
        "waggle agent register --name resizer --capability resize --concurrency 50 --lambda arn:aws:lambda:eu-west-1:123456789012:function:resize",
      ),
    )
    .action(run(async (options) => (await import("../command/agent-register.ts")).agentRegister(io, options)));

  shown(program.command("delegate"))
    .description("Delegate a task to the fleet")
    .argument("<type>", "the type of the task")
    .option("-i, --input <json|@file|->", "the input: JSON, a file, or standard input")
    .option(
      "-r, --requires <capability[:level]>",
      "a capability its agent must have (repeatable)",
      each(parse.capability),
    )
    .option("-p, --priority <0-9>", "9 is the highest", parsed(parse.integer("priority", 0, 9)))
    .option(
      "-l, --label <selector>",
      "a label its agent must have: zone=eu, memory>=16, gpu (repeatable)",
      each(parse.selector),
    )
    .option("--prefer <selector>", "like --label, but only a preference (repeatable)", each(parse.selector))
    .option("--agent <agent>", "only this agent")
    .option("--role <role>", "an agent with this role")
    .addOption(new Option("--strategy <name>", "how to choose among agents").choices(Object.keys(strategies)))
    .option("--description <text>", "what it is about")
    .option("--tag <tag>", "a tag to find it by (repeatable)", each(String))
    .option("--metadata <json|@file>", "JSON to keep with it")
    .option("--delay <duration>", "start no sooner than this from now", parsed(parse.seconds))
    .option("--depends-on <task>", "start only after this task has completed (repeatable)", each(String))
    .option("--parent <task>", "the task it is part of; within `agent run`, the running one")
    .option("--run-timeout <duration>", "longest an attempt may run", parsed(parse.seconds))
    .option("--queue-timeout <duration>", "longest wait for an agent", parsed(parse.seconds))
    .option("--total-timeout <duration>", "longest time overall, retries included", parsed(parse.seconds))
    .option("--attempts <n>", "how many attempts in all", parsed(parse.integer("attempts", 1, 100)))
    .option("--limit <key=n>", "at most n tasks with this key at a time (repeatable)", each(parse.pair))
    .option("--fair-key <key>", "share the fleet fairly between keys")
    .option("--sticky <key>", "prefer the agent that last served this key")
    .option("--idempotency-key <key>", "sending the same key again creates no second task")
    .option("-w, --wait", "wait until it ends, and print the result")
    .option("--wait-timeout <duration>", "wait no longer than this", parsed(parse.seconds))
    .addHelpText(
      "after",
      examples(
        "waggle delegate summarise --requires nlp --input @article.json --wait",
        "cat request.json | waggle delegate review --requires code:0.8 --input - --priority 9",
        "waggle delegate build --label 'memory>=16' --run-timeout 10m --attempts 2",
      ),
    )
    .action(run(async (type, options) => (await import("../command/delegate.ts")).delegate(io, type, options)));
}
