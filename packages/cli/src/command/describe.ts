import type { Agent, Task } from "@waggle/sdk";
import { ran } from "../columns.ts";
import { type CommonOptions, withClient } from "../context.ts";
import { exit, usage } from "../failure.ts";
import { findAgent, findTask } from "../find.ts";
import { type Column, duration, fields, safe, safeLines, table, when } from "../format.ts";
import { colourOf, type Io, painter } from "../io.ts";
import { document, isDocument } from "../print.ts";
import { named } from "./get.ts";

export const describe = (io: Io, word: string, given: string | undefined, options: CommonOptions): Promise<number> =>
  withClient(io, options, async ({ client, format }) => {
    const { what, id: text } = named(word, given);
    if (text === undefined) throw usage(`say which of the ${what}`, `\`waggle get ${what}\` lists what there is`);
    if (what === "agents") {
      const agent = await client.agents.get(await findAgent(client, text));
      const { items } = await client.tasks.list({ agentId: agent.id, limit: 10 });
      if (isDocument(format)) await document(io, format, { agent, tasks: items });
      else io.out(describeAgent(io, agent, items));
    } else if (what === "tasks" || what === "dead-letters") {
      const task = await client.tasks.get(await findTask(client, text));
      if (isDocument(format)) await document(io, format, { task });
      else io.out(describeTask(io, task));
    } else throw usage(`cannot describe ${what}`, "task or agent");
    return exit.ok;
  });

const payload = (value: unknown): string | undefined => {
  if (value === undefined) return undefined;
  const text = JSON.stringify(value, null, 2);
  const lines = text.split("\n");
  const shown =
    lines.length > 40 ? [...lines.slice(0, 40), `… ${lines.length - 40} more lines; -o json shows all`] : lines;
  return safeLines(shown.map((line) => (line.length > 400 ? `${line.slice(0, 400)}…` : line)).join("\n"));
};
const list = (values: readonly string[]) => (values.length > 0 ? safe(values.join(", ")) : undefined);

function describeTask(io: Io, task: Task): string {
  const paint = painter(io.colour);
  const now = io.now();
  const title = (text: string) => `\n${paint("bold", text)}\n`;
  const { decision, error, progress, timeouts, waiting } = task;
  let text = fields(
    [
      ["Task", task.id],
      ["Type", safe(task.type)],
      ["Status", paint(colourOf(task.status), task.status) + (task.cancelRequested ? " (cancel asked for)" : "")],
      ["Description", task.description && safeLines(task.description)],
      ["Waits", waiting && `${safe(waiting.reason)}, since ${when(waiting.since, now)}`],
      [
        "Progress",
        progress &&
          safe([progress.percent === undefined ? "" : `${progress.percent}%`, progress.message ?? ""].join(" ").trim()),
      ],
      ["Attempt", `${task.attempt} of ${task.maxAttempts}`],
      ["Agent", task.agentId],
      [
        "Chosen by",
        decision &&
          `${decision.strategy}, score ${decision.score}${decision.reasons.length ? `: ${safe(decision.reasons.join("; "))}` : ""}`,
      ],
      ["Ran", ran(task, now)],
      ["Priority", String(task.priority)],
      [
        "Requires",
        list(task.requires.map(({ capability, minLevel }) => (minLevel ? `${capability} ≥ ${minLevel}` : capability))),
      ],
      ["Labels", list(task.labels.map((label) => JSON.stringify(label)))],
      ["Role", task.role && safe(task.role)],
      ["For agent", task.boundAgentId],
      ["Slots", task.slots > 1 ? String(task.slots) : undefined],
      ["Depends on", list(task.dependsOn)],
      ["Parent", task.parentId],
      [
        "Timeouts",
        list(
          Object.entries(timeouts).map(
            ([name, value]) => `${name.replace("Seconds", "")} ${duration(Number(value) * 1000)}`,
          ),
        ),
      ],
      [
        "Limits",
        list([
          ...task.concurrency.map(({ key, limit }) => `${key} ≤ ${limit}`),
          ...(task.rate ? [`${task.rate.key} ≤ ${task.rate.limit} per ${duration(task.rate.perSeconds * 1000)}`] : []),
        ]),
      ],
      ["Fair key", task.fairKey && safe(task.fairKey)],
      ["Tags", list(task.tags)],
      ["Usage", task.usage && list(Object.entries(task.usage).map(([name, value]) => `${name} ${value}`))],
      ["Created", when(task.createdAt, now)],
      ["Not before", when(task.scheduledAt, now)],
      ["Started", when(task.startedAt, now)],
      ["Finished", when(task.finishedAt, now)],
      ["Next deadline", when(task.deadlineAt, now)],
    ],
    io,
  );
  if (error)
    text +=
      title(task.status === "failed" || task.status === "expired" ? "Error" : "Last error") +
      `  ${paint("red", safe(error.code))}  ${safeLines(error.message).split("\n").join("\n  ")}\n`;
  for (const [name, value] of [
    ["Input", task.input],
    ["Result", task.result],
    ["Details", task.details],
    ["Metadata", task.metadata],
  ] as const) {
    const shown = payload(value);
    if (shown !== undefined) text += `${title(name)}  ${shown.split("\n").join("\n  ")}\n`;
  }
  const history: Column<Task["history"][number]>[] = [
    { title: "WHEN", value: ({ at }) => at },
    { title: "STATUS", value: ({ status }) => status, colour: ({ status }) => colourOf(status) },
    { title: "TRY", value: ({ attempt }) => String(attempt), right: true },
    { title: "AGENT", value: ({ agentId }) => agentId ?? "" },
    { title: "REASON", value: ({ reason }) => reason ?? "" },
  ];
  return text + title("History") + indent(table(task.history, history, io));
}

const indent = (text: string) => text.replace(/^(?=.)/gm, "  ");

const targetOf = ({ type: _, ...target }: Agent["delivery"]): string[] => Object.values(target);

function describeAgent(io: Io, agent: Agent, tasks: readonly Task[]): string {
  const paint = painter(io.colour);
  const now = io.now();
  const { stats } = agent;
  let text = fields(
    [
      ["Agent", safe(agent.name)],
      ["Id", agent.id],
      ["Status", paint(colourOf(agent.status), agent.status)],
      ["Description", agent.description && safeLines(agent.description)],
      ["Role", agent.role && safe(agent.role)],
      ["Type", agent.type && safe(agent.type)],
      ["Slots", `${agent.running} of ${agent.maxConcurrency} in use, ${agent.freeSlots} free`],
      [
        "Capabilities",
        list(
          agent.capabilities.map(
            ({ name, level, cost }) =>
              `${name}${level === undefined ? "" : ` level ${level}`}${cost === undefined ? "" : ` cost ${cost}`}`,
          ),
        ),
      ],
      ["Labels", list(Object.entries(agent.labels).map(([key, value]) => `${key}=${value}`))],
      ["Delivery", list([agent.delivery.type, ...targetOf(agent.delivery)])],
      [
        "Failing",
        agent.deliveryFailures &&
          paint("red", safe(`${agent.deliveryFailures.count} in a row: ${agent.deliveryFailures.lastError}`)),
      ],
      ["Lease", duration(agent.leaseSeconds * 1000)],
      [
        "Done",
        `${stats.completed} completed, ${stats.failed} failed${stats.completed + stats.failed > 0 ? ` (${Math.round(stats.successRate * 100)}% succeed, ${duration(stats.averageSeconds * 1000)} on average)` : ""}`,
      ],
      ["Seen", when(agent.lastSeenAt, now)],
      ["Lease until", when(agent.leaseExpiresAt, now)],
      ["Registered", when(agent.createdAt, now)],
    ],
    io,
  );
  const metadata = payload(agent.metadata);
  if (metadata !== undefined) text += `\n${paint("bold", "Metadata")}\n  ${metadata.split("\n").join("\n  ")}\n`;
  if (tasks.length > 0) {
    const columns: Column<Task>[] = [
      { title: "ID", value: ({ id }) => id },
      { title: "TYPE", value: ({ type }) => type, max: 28 },
      { title: "STATUS", value: ({ status }) => status, colour: ({ status }) => colourOf(status) },
      { title: "RAN", value: (task) => ran(task, now) },
    ];
    text += `\n${paint("bold", "Newest tasks")}\n${indent(table(tasks, columns, io))}`;
  }
  return text;
}

interface Explanation {
  summary?: string;
  status?: string;
  waiting?: { reason: string; since: string };
  agents?: { known: number; eligible: number; free: number };
  decision?: Task["decision"];
  candidates?: {
    agentId: string;
    name: string;
    eligible: boolean;
    score?: number;
    freeSlots?: number;
    refusal?: string;
  }[];
  limits?: Limit[];
  unmetDependencies?: string[];
}

interface Limit {
  key: string;
  running: number;
  waiting: number;
  concurrency?: number;
  rate?: { limit: number; perSeconds: number };
  weight?: number;
  roomAt?: string;
}

function limitText({ key, running, waiting, concurrency, rate, weight = 1, roomAt }: Limit, now: number): string {
  const used = `${running}${concurrency === undefined ? "" : ` of ${concurrency}`} in use`;
  const each = weight === 1 ? "" : `, of which this takes ${weight}`;
  const started = rate && `${rate.limit} in ${rate.perSeconds} s${each}`;
  const room = roomAt && `room ${when(roomAt, now)}`;
  return `${safe(key)}: ${[used, started, `${waiting} waiting`, room].filter(Boolean).join(", ")}`;
}

export const explain = (io: Io, text: string, options: CommonOptions): Promise<number> =>
  withClient(io, options, async ({ client, format }) => {
    const id = await findTask(client, text);
    const found = await client.tasks.explain(id);
    if (isDocument(format)) {
      await document(io, format, found);
      return exit.ok;
    }
    const paint = painter(io.colour);
    const told = found as Explanation;
    io.out(
      `${paint("dim", id)} is ${paint(colourOf(told.status ?? ""), told.status ?? "")}: ${safe(told.summary ?? "")}\n`,
    );
    io.out(
      fields(
        [
          ["Waits", told.waiting && `${safe(told.waiting.reason)}, since ${when(told.waiting.since, io.now())}`],
          [
            "Chosen by",
            told.decision &&
              `${told.decision.strategy}, score ${told.decision.score}: ${safe(told.decision.reasons.join("; "))}`,
          ],
          [
            "Agents",
            told.agents &&
              `${told.agents.known} known, ${told.agents.eligible} may serve it, ${told.agents.free} of them free`,
          ],
          ["Waits for", told.unmetDependencies?.join(", ")],
          ["Limits", told.limits?.map((limit) => limitText(limit, io.now())).join("; ")],
        ],
        io,
      ),
    );
    if (told.candidates && told.candidates.length > 0) {
      const columns: Column<NonNullable<Explanation["candidates"]>[number]>[] = [
        { title: "AGENT", value: ({ name }) => name },
        {
          title: "FITS",
          value: ({ eligible }) => (eligible ? "yes" : "no"),
          colour: ({ eligible }) => (eligible ? "green" : "dim"),
        },
        { title: "SCORE", value: ({ score }) => (score === undefined ? "" : String(score)), right: true },
        { title: "FREE", value: ({ freeSlots }) => (freeSlots === undefined ? "" : String(freeSlots)), right: true },
        { title: "WHY NOT", value: ({ refusal }) => refusal ?? "" },
      ];
      io.out(`\n${table(told.candidates, columns, io)}`);
    }
    return exit.ok;
  });
