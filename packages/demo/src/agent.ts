import { createAgent, createClient, type Task } from "@waggle/sdk";
import { handlers } from "./fleet/handlers.ts";
import { toMaking } from "./fleet/made.ts";
import { roster } from "./fleet/roster.ts";
import { GitError } from "./git.ts";
import type { Undone } from "./report/report.ts";

/** One agent, a process of its own: `node agent.mjs KIND NAME`, where KIND is a member of the roster. Started by the supervisor. */
const [kind = "", name = kind] = process.argv.slice(2);
const member = roster.find((entry) => entry.name === kind);
const { WAGGLE_URL: url, WAGGLE_API_KEY: key, WAGGLE_DEMO_REPO: repo, WAGGLE_DEMO_OUT: outDir } = process.env;
if (!member || !url || !key || !repo || !outDir) {
  process.stderr.write("this program is started by `npm start`\n");
  process.exit(2);
}
// The programs this one starts have no use for it.
delete process.env.WAGGLE_API_KEY;

const tell = (message: Record<string, unknown>) => {
  if (process.connected) process.send?.(message);
};
const log = (level: string) => (message: string) => tell({ log: message, level });
const client = createClient({ url, key });
/** A message a task this often is enough for any eye. */
const progressEveryMs = 150;

/** What the task waited for, at most a few at a time, in the order in which they were named. */
const dependenciesOf = async (task: Task) => {
  const found: Task[] = [];
  for (let from = 0; from < task.dependsOn.length; from += 10)
    found.push(...(await Promise.all(task.dependsOn.slice(from, from + 10).map((id) => client.tasks.get(id)))));
  return found;
};

const agent = createAgent({
  name,
  client,
  description: member.description,
  role: "demo",
  labels: { kind, pid: process.pid },
  capabilities: Object.entries(member.levels).map(([capability, level]) => ({ name: capability, level })),
  concurrency: member.concurrency,
  // One that is killed is started again, and that fences what it held at once; this is for a supervisor that is gone
  // too. Shorter, and a machine with too much to do loses agents that are merely late.
  leaseSeconds: 6,
  // See the end of this file.
  handleSignals: false,
  log: { debug: () => {}, info: () => {}, warn: log("warn"), error: log("error") },
  handlers: Object.fromEntries(
    member.stages.map((stage) => [
      stage,
      async (task: Task, context) => {
        let told = 0;
        const dependencies = dependenciesOf.bind(undefined, task);
        let fetched: Promise<Task[]> | undefined;
        const once = () => {
          fetched ??= dependencies();
          return fetched;
        };
        const work = handlers[stage](
          task.input,
          {
            signal: context.signal,
            progress: (percent, message) => {
              const now = Date.now();
              if (now - told < progressEveryMs) return;
              told = now;
              context.progress({
                percent: Math.max(0, Math.min(100, Math.round(percent))),
                message: message.slice(0, 200),
              });
            },
          },
          {
            repo,
            outDir,
            dependencies: async () => (await once()).map(({ type, result }) => ({ type, result })),
            making: async () => {
              const planId = (task.metadata as { planId?: string } | undefined)?.planId;
              const plan = planId === undefined ? [] : [await client.tasks.get(planId)];
              const agents = [];
              for await (const entry of client.agents.all({ role: "demo" })) agents.push(entry);
              // Itself as well: it runs while it writes about the others.
              return toMaking([...plan, ...(await once()), task], agents, Date.now(), client.url);
            },
          },
        );
        if (stage === "plan" || stage === "report") return work;
        return work.catch((error: unknown): Undone => {
          // What git refuses twice it will refuse again. One part less is better than no report.
          if (!(error instanceof GitError) || context.attempt < 2) throw error;
          return { undone: error.message };
        });
      },
    ]),
  ),
});

let leaving = false;
const leave = async (graceSeconds: number) => {
  if (leaving) return;
  leaving = true;
  // With the server gone there is nobody to say goodbye to.
  setTimeout(() => process.exit(0), graceSeconds * 1000 + 1000);
  await agent.stop({ graceSeconds }).catch(() => {});
  process.exit(0);
};
// Ctrl-C reaches the whole process group; the supervisor decides what it means.
process.on("SIGINT", () => {});
process.on("SIGTERM", () => leave(5));
// The supervisor is gone, and with it most likely the server.
process.on("disconnect", () => leave(0));

agent.start().then(
  (info) => tell({ ready: info.id }),
  (error: unknown) => {
    tell({ failed: error instanceof Error ? error.message : String(error) });
    process.exit(1);
  },
);
agent.stopped.then((reason) => {
  if (leaving) return;
  tell({ failed: reason });
  process.exit(1);
});
