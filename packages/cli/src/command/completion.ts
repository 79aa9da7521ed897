import { type AgentStatus, createClient, type TaskStatus } from "@waggle/sdk";
import type { Command, Option } from "commander";
import { exit, usage } from "../failure.ts";
import { take } from "../find.ts";
import type { Io } from "../io.ts";
import { names as settings } from "./config.ts";
import { listed } from "./get.ts";

const scripts: Record<string, string> = {
  bash: `_waggle() {
  local IFS=$'\\n' words=("\${COMP_WORDS[@]:1:COMP_CWORD}")
  COMPREPLY=($(waggle __complete -- "\${words[@]}" 2>/dev/null))
  [[ \${#COMPREPLY[@]} -eq 0 ]] && compopt -o default
}
complete -F _waggle waggle
`,
  zsh: `#compdef waggle
_waggle() {
  local -a found
  found=("\${(@f)$(waggle __complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n "\${found[1]}" ]]; then compadd -a found; else _files; fi
}
compdef _waggle waggle
`,
  fish: `function __waggle_complete
  set -l words (commandline -opc) (commandline -ct)
  waggle __complete -- $words[2..-1] 2>/dev/null
end
complete -c waggle -f -a '(__waggle_complete)'
`,
};

export async function script(io: Io, shell: string): Promise<number> {
  const text = scripts[shell];
  if (text === undefined) throw usage(`no completion for "${shell}"`, `one of ${Object.keys(scripts).join(", ")}`);
  io.out(text);
  return exit.ok;
}

/** Objects, so that the compiler tells of a status that is missing here. */
const taskStatuses: Readonly<Record<TaskStatus, true>> = {
  scheduled: true,
  queued: true,
  assigned: true,
  running: true,
  input_required: true,
  completed: true,
  failed: true,
  cancelled: true,
  expired: true,
};
const agentStatuses: Readonly<Record<AgentStatus, true>> = {
  connecting: true,
  ready: true,
  busy: true,
  draining: true,
  paused: true,
  lost: true,
  stopped: true,
};
const nounsOf: Record<string, readonly string[]> = {
  get: listed,
  describe: ["task", "agent"],
  delete: ["agent"],
  completion: Object.keys(scripts),
  "config get": settings,
  "config set": settings,
  "config unset": settings,
};

/** Prints what may stand where the last word stands, one a line. */
export async function complete(io: Io, program: Command, words: string[]): Promise<number> {
  for (const candidate of await candidates(program, words)) io.out(`${candidate}\n`);
  return exit.ok;
}

export async function candidates(program: Command, words: readonly string[]): Promise<string[]> {
  const last = words.at(-1) ?? "";
  let command = program;
  const path: string[] = [];
  const given: string[] = [];
  let pending: Option | undefined;
  for (const word of words.slice(0, -1)) {
    if (word === "--") return [];
    if (pending) {
      pending = undefined;
      continue;
    }
    if (word.startsWith("-")) {
      const option = command.options.find(({ short, long }) => short === word || long === word);
      if (option && (option.required || option.optional)) pending = option;
      continue;
    }
    const next = given.length === 0 ? command.commands.find((sub) => sub.name() === word) : undefined;
    if (next) {
      command = next;
      path.push(word);
    } else given.push(word);
  }
  const fitting = (all: readonly string[]) => all.filter((one) => one.startsWith(last));
  const verb = path.join(" ");
  if (pending) {
    if (pending.argChoices) return fitting(pending.argChoices);
    if (pending.long === "--status")
      return fitting(Object.keys(given[0]?.startsWith("agent") ? agentStatuses : taskStatuses));
    if (pending.long === "--agent") return fitting(await names("agent"));
    return [];
  }
  if (last.startsWith("-"))
    return fitting(
      command.options
        .filter(({ hidden }) => !hidden)
        .map(({ long, short }) => long ?? short ?? "")
        .concat("--help"),
    );
  if (command.commands.length > 0)
    return fitting(command.commands.map((sub) => sub.name()).filter((name) => !name.startsWith("_")));
  const nouns = nounsOf[verb];
  if (nouns && given.length === 0) return fitting(nouns);
  if (["cancel", "retry", "explain", "logs"].includes(verb)) return fitting(await names("task"));
  if (["drain", "pause", "resume"].includes(verb)) return fitting(await names("agent"));
  if (["get", "describe", "delete"].includes(verb)) {
    if (given[0]?.startsWith("agent")) return fitting(await names("agent"));
    if (given[0]?.startsWith("task")) return fitting(await names("task"));
  }
  return [];
}

/** Names of agents, ids of the newest tasks. A shell waits for this: what does not come soon is left out. */
async function names(what: "agent" | "task"): Promise<string[]> {
  const client = createClient({ retrySeconds: 0, timeoutSeconds: 0.5 });
  try {
    if (what === "agent") {
      const present = (await take(client.agents.all(), 200)).filter(({ status }) => status !== "stopped");
      return [...new Set(present.map(({ name }) => name))];
    }
    return (await client.tasks.list({ limit: 50 })).items.map(({ id }) => id);
  } catch {
    return [];
  } finally {
    client.close();
  }
}
