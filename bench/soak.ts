import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { type Client, createClient } from "@waggle/sdk";
import { eventually } from "../test/support/eventually.ts";
import { memoryMiB } from "../test/support/process.ts";
import { startServer } from "../test/support/server.ts";
import { startFleet } from "./fleet.ts";
import { plotSoak } from "./plot.ts";
import { type Machine, machineFacts, resultsFile, show, writeJson } from "./results.ts";
import { percentile } from "./stats.ts";
import { payload } from "./systems/system.ts";
import { waggle } from "./systems/waggle.ts";
import { ownMiB, watchSteal } from "./usage.ts";

const help = `npm run bench -- soak [options]

Submits tasks at a constant rate for some minutes, to one server and one process of agents, and looks again and again how
the server is. Tasks and events are deleted some time after their end, so that the folder stops growing. Checks the books: each
acknowledged task has one outcome, one in ten is read as it ends and has its own result, and the event log has no gap. Fails
when they do not balance.

  --minutes N  how long (default 20)
  --rate N     tasks a second (default 200)
  --keep N     seconds that tasks and events are kept, 60 or more (default 120); 0 for ever
  --out FILE   raw values (default bench/results/soak.json); the plot goes beside it as .svg
  --json       the books and each sample as JSON lines on stdout
  --help`;

export interface Sample {
  readonly seconds: number;
  readonly rssMiB: number;
  /** Of it what is the process's own: the rest is pages of files. */
  readonly ownMiB: number;
  readonly fileMiB: number;
  /** Lag of the server's event loop since the sample before, p99. */
  readonly loopMs: number;
  /** Of the submits answered since the sample before: a submit is answered once it is on disk. */
  readonly submitP50: number;
  readonly submitP99: number;
  readonly completed: number;
  readonly submitted: number;
}

export interface Books {
  readonly acknowledged: number;
  /** Without outcome, or unknown. */
  readonly lost: number;
  /** With more than one outcome in the event log. */
  readonly twice: number;
  readonly read: number;
  /** Of those read. */
  readonly wrong: number;
  /** Places in the event log where the sequence does not rise by one. */
  readonly gaps: number;
}

export interface SoakResults {
  readonly at: string;
  readonly machine: Machine;
  readonly minutes: number;
  readonly perSecond: number;
  /** 0: for ever */
  readonly keepSeconds: number;
  readonly samples: readonly Sample[];
  readonly books: Books;
}

/** What the files take on the disk, in MiB. */
function folderMiB(folder: string): number {
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" });
  const blocks = names.map((name) => statSync(join(folder, name), { throwIfNoEntry: false })?.blocks ?? 0);
  return (blocks.reduce((sum, count) => sum + count, 0) * 512) / 2 ** 20;
}

/** The lag that `/metrics` tells of is that since it was last asked. */
export async function loopLagMs(url: string, key: string): Promise<number> {
  const answer = await fetch(`${url}/metrics`, { headers: { authorization: `Bearer ${key}` } });
  const found = /^nodejs_eventloop_lag_p99_seconds (\S+)/m.exec(await answer.text());
  if (found === null) throw new Error("the metrics do not tell the lag of the event loop");
  return Number(found[1]) * 1000;
}

interface Load {
  /** The ids of what was acknowledged, at the number of the task. */
  readonly ids: (string | undefined)[];
  /** Latencies of the submits since they were last taken, in ms. */
  take(): number[];
  /** Resolves when the time is up and all calls are answered. */
  readonly over: Promise<void>;
}

/** So many submits a second, whatever the answers take; at most 1,000 unanswered. */
function load(client: Client, perSecond: number, seconds: number): Load {
  const ids: (string | undefined)[] = [];
  let times: number[] = [];
  const open = new Set<Promise<void>>();
  const one = async (n: number) => {
    const began = performance.now();
    const task = { type: "bench", input: payload(n), requires: [{ capability: "bench" }] };
    ids[n] = (await client.tasks.create(task)).id;
    times.push(performance.now() - began);
  };
  const run = async () => {
    const began = performance.now();
    let next = 0;
    for (let passed = 0; passed < seconds; passed = (performance.now() - began) / 1000) {
      while (next < passed * perSecond && open.size < 1000) {
        const call: Promise<void> = one(next++).finally(() => open.delete(call));
        open.add(call);
      }
      await sleep(5);
    }
    await Promise.all(open);
  };
  return {
    ids,
    take() {
      const taken = times;
      times = [];
      return taken;
    },
    over: run(),
  };
}

const endings = ["task.completed", "task.failed", "task.cancelled", "task.expired"];

const checkedShare = 10;

interface Log {
  readonly outcomes: ReadonlyMap<string, number>;
  /** What was read of a task as it ended. */
  readonly results: ReadonlyMap<string, number | undefined>;
  gaps(): number;
  /** Reads what there is, and ends. */
  end(): Promise<void>;
}

/** Reads the event log as it is written: later it is gone. */
function follow(client: Client): Log {
  const outcomes = new Map<string, number>();
  const results = new Map<string, number | undefined>();
  let gaps = 0;
  let ending = false;
  const ended = async (taskId: string) => {
    outcomes.set(taskId, (outcomes.get(taskId) ?? 0) + 1);
    if (outcomes.size % checkedShare !== 0 || results.has(taskId)) return;
    const { result } = await client.tasks.get(taskId);
    results.set(taskId, (result as { n?: number } | undefined)?.n);
  };
  const run = async () => {
    for (let after = 0; ; ) {
      const { items } = await client.events.list({ after, limit: 200 });
      for (const { sequence, taskId, type } of items) {
        if (sequence !== after + 1) gaps++;
        after = sequence;
        if (taskId && endings.includes(type)) await ended(taskId);
      }
      if (items.length > 0) continue;
      if (ending) return;
      await sleep(50);
    }
  };
  const running = run();
  // Whoever ends it is told.
  running.catch(() => {});
  return {
    outcomes,
    results,
    gaps: () => gaps,
    end() {
      ending = true;
      return running;
    },
  };
}

function balance(ids: readonly (string | undefined)[], log: Log): Books {
  const known = ids.flatMap((id, n) => (id === undefined ? [] : [{ id, n }]));
  const { outcomes, results } = log;
  return {
    acknowledged: known.length,
    lost: known.filter(({ id }) => !outcomes.has(id)).length,
    twice: [...outcomes.values()].filter((count) => count > 1).length,
    read: results.size,
    wrong: known.filter(({ id, n }) => results.has(id) && results.get(id) !== n).length,
    gaps: log.gaps(),
  };
}

/** So far, those that are gone included. */
const completedTasks = async (client: Client): Promise<number> => (await client.status.get()).totals.completed;

const line = (sample: Sample) =>
  `${show(sample.seconds / 60).padStart(5)} min  ${show(sample.rssMiB)} MiB, ${show(sample.ownMiB)} its own  files ${show(sample.fileMiB)} MiB  loop p99 ${show(sample.loopMs)} ms  ` +
  `submit ${show(sample.submitP50)} / ${show(sample.submitP99)} ms  ${sample.completed} of ${sample.submitted} completed`;

/** Looks at the server until the load is over. */
async function watch(
  server: { url: string; key: string; dataDir: string; pid: number },
  client: Client,
  work: Load,
  everySeconds: number,
) {
  const samples: Sample[] = [];
  const began = performance.now();
  let going = true;
  void work.over.finally(() => {
    going = false;
  });
  await loopLagMs(server.url, server.key);
  while (going) {
    await Promise.race([sleep(everySeconds * 1000), work.over]);
    const times = work.take();
    const sample = {
      seconds: (performance.now() - began) / 1000,
      rssMiB: memoryMiB(server.pid).now,
      ownMiB: ownMiB(server.pid),
      fileMiB: folderMiB(server.dataDir),
      loopMs: await loopLagMs(server.url, server.key),
      submitP50: percentile(times, 0.5),
      submitP99: percentile(times, 0.99),
      completed: await completedTasks(client),
      submitted: work.ids.length,
    };
    // The last stretch may be too short to say anything.
    if (times.length === 0) continue;
    samples.push(sample);
    console.error(line(sample));
  }
  await work.over;
  return samples;
}

/** `npm run bench -- soak`: see `help`. */
export async function soak(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      minutes: { type: "string", default: "20" },
      rate: { type: "string", default: "200" },
      keep: { type: "string", default: "120" },
      out: { type: "string", default: resultsFile("soak") },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return console.log(help);
  const [minutes, perSecond, keepSeconds] = [Number(values.minutes), Number(values.rate), Number(values.keep)];
  if (!(minutes > 0 && perSecond > 0)) throw new Error("--minutes and --rate take numbers above 0");
  const [at, facts, steal] = [new Date().toISOString(), machineFacts(), watchSteal()];
  const dataDir = mkdtempSync(join(process.env.WAGGLE_BENCH_DIR ?? tmpdir(), "waggle-soak-"));
  const server = await startServer({ dataDir });
  try {
    const { url, key } = server;
    const client = createClient({ url, key });
    await client.retention.put({ taskSeconds: keepSeconds, eventSeconds: keepSeconds });
    const log = follow(client);
    const fleet = await startFleet(waggle("sdk"), { connection: { url, key } }, [
      { agents: 1, concurrency: 100, prefix: "soak" },
    ]);
    const work = load(client, perSecond, minutes * 60);
    const everySeconds = Math.max(1, (minutes * 60) / 240);
    const samples = await watch({ url, key, dataDir, pid: server.process.pid }, client, work, everySeconds);
    const total = work.ids.filter((id) => id !== undefined).length;
    const done = async () => (await completedTasks(client)) >= total;
    await eventually("all are completed", done, { seconds: 120, everyMs: 100 });
    await log.end();
    const books = balance(work.ids, log);
    await fleet.end();
    client.close();
    const results: SoakResults = {
      at,
      machine: { ...facts, steal: steal() },
      minutes,
      perSecond,
      keepSeconds,
      samples,
      books,
    };
    writeJson(values.out, results);
    writeFileSync(values.out.replace(/(\.json)?$/, ".svg"), plotSoak(results));
    if (values.json) for (const entry of [...samples, books]) console.log(JSON.stringify(entry));
    else
      console.log(
        Object.entries(books)
          .map(([name, count]) => `${name} ${count}`)
          .join(", "),
      );
    if (books.lost + books.twice + books.wrong + books.gaps > 0) throw new Error("the books do not balance");
  } finally {
    await server.stop();
    rmSync(dataDir, { recursive: true, force: true, maxRetries: 5 });
  }
}
