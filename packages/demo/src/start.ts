import { mkdir } from "node:fs/promises";
import { basename, relative, resolve } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { createClient } from "@waggle/sdk";
import { toMaking } from "./fleet/made.ts";
import { roster } from "./fleet/roster.ts";
import { type Fleet, type FleetEvents, supervise } from "./fleet/supervise.ts";
import { createTracker, type Tracker } from "./fleet/track.ts";
import { GitError } from "./git.ts";
import { help, type Options, parseOptions, UsageError } from "./options.ts";
import { plural, seconds } from "./report/words.ts";
import { repositoryOf } from "./repository.ts";
import { cancelLeftovers, delegateReport } from "./run.ts";
import type { Server } from "./server.ts";
import { summary } from "./ui/summary.ts";
import { liveUi, plainUi, type Ui } from "./ui/terminal.ts";
import { paint, wantsColors } from "./ui/text.ts";
import { diedText, healedText, requeuedText, type State } from "./ui/view.ts";

const healWithinMs = 5000;
/** npm passes a Ctrl-C on to the program it runs, which the terminal has told already: that is no second one. */
const echoMs = 500;
const version = process.env.npm_package_version ?? "0.1.0";

/** npm starts its scripts in the package's folder; a path typed elsewhere means what it means there. */
const typedIn = process.env.INIT_CWD ?? process.cwd();
const given = (path: string, fallback: string) => (path === fallback ? resolve(path) : resolve(typedIn, path));

/** As a POSIX shell takes it. */
const quoted = (path: string) => (/^[\w./+@:-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`);

const reasonOf = (error: unknown) => (error instanceof Error ? error.message : String(error)).split("\n")[0]!;

const usage = (message: string): never => {
  process.stderr.write(`waggle: ${message} (--help lists the options)\n`);
  process.exit(2);
};

/** The command line, or the end of the process with what is wrong with it. */
const optionsOf = (args: readonly string[]) => {
  try {
    return parseOptions(args);
  } catch (error) {
    if (error instanceof UsageError) return usage(error.message);
    throw error;
  }
};

/** The repository and the two folders, which are made if they are missing. */
const placesOf = async (options: Options) => {
  const repo = await repositoryOf(options.repo === undefined ? "." : resolve(typedIn, options.repo)).catch(
    (error: unknown) => {
      if (error instanceof GitError)
        return usage(`--repo: ${error.message}${options.repo === undefined ? "; give one with --repo PATH" : ""}`);
      throw error;
    },
  );
  const dataDir = given(options.data, ".waggle");
  const outDir = given(options.out, ".");
  const make = (option: string, path: string, mode?: number) =>
    mkdir(path, { recursive: true, mode }).catch((error: NodeJS.ErrnoException) =>
      usage(`${option}: ${/^(EEXIST|ENOTDIR)$/.test(error.code ?? "") ? `${path} is not a folder` : reasonOf(error)}`),
    );
  await make("--out", outDir);
  await make("--data", dataDir, 0o700);
  return { repo, dataDir, outDir };
};

/** Kills the busiest agent, once, at a moment when there is something to lose. */
const createChaos = (tracker: Tracker, say: Ui["say"]) => {
  let killed = false;
  return (fleet: Fleet) => {
    if (killed) return;
    const { total, done } = tracker.count();
    if (total < 5 || done < Math.max(2, total * 0.15)) return;
    const victim = [...fleet.processes.values()]
      .filter((own) => own.state === "ready" && own.agentId !== undefined && own.member.name !== "reporter")
      .map((own) => ({ own, tasks: tracker.running(own.agentId!).length }))
      .sort((a, b) => b.tasks - a.tasks)[0];
    if (!victim || victim.tasks === 0) return;
    killed = true;
    say(`chaos: kill -9 ${victim.own.pid} (${victim.own.name})`, "bad");
    process.kill(victim.own.pid, "SIGKILL");
  };
};

/** What happens to the fleet's processes, told to the tracker and on the screen. */
const reportFleet = (tracker: Tracker, ui: Ui): FleetEvents => ({
  ready(own) {
    const incident = tracker.back(own.agentId!, own.pid);
    if (incident && incident.healedAt === undefined)
      ui.say(`${own.name} is back as pid ${own.pid} after ${seconds(Date.now() - incident.at)}`);
    ui.changed();
  },
  died(own, how) {
    ui.say(diedText(tracker.died(own.name, own.agentId ?? "", own.pid, how)), "bad");
  },
  gaveUp(own, reason) {
    ui.say(`${own.name} does not start: ${reason}`, "bad");
  },
  said(own, level, message) {
    if (level === "error") ui.say(`${own.name}: ${message}`, "bad");
  },
});

const main = async () => {
  const options = optionsOf(process.argv.slice(2));
  if (options === "help") {
    process.stdout.write(help);
    return;
  }
  const { repo, dataDir, outDir } = await placesOf(options);

  const startedAt = Date.now();
  const colors = paint(wantsColors(process.stdout, process.env));
  const aborter = new AbortController();
  let fleet: Fleet | undefined;
  let server: Server | undefined;
  let ui: Ui | undefined;
  let leaving = false;
  let askedAt: number | undefined;
  let written = false;

  const shutDown = async (code: number) => {
    leaving = true;
    aborter.abort();
    ui?.close();
    await fleet?.stop();
    await server?.stop();
    process.exit(code);
  };
  const interrupted = () => {
    if (askedAt !== undefined && performance.now() - askedAt < echoMs) return;
    askedAt ??= performance.now();
    if (leaving) {
      fleet?.kill();
      process.exit(130);
    }
    ui?.close();
    process.stdout.write(
      "\nStopping: the agents finish what they hold, then the server stops. Press Ctrl-C again to stop at once.\n",
    );
    if (options.once && !written) process.stderr.write("waggle: stopped before the report was written\n");
    void shutDown(options.once && !written ? 130 : 0);
  };
  // Nobody reads on (`npm start | head`): the report is written all the same.
  process.stdout.on("error", () => {});
  process.on("SIGINT", interrupted);
  process.on("SIGTERM", interrupted);

  const run = async () => {
    const { openServer } = await import("./server.ts");
    const opened = await openServer({
      dataDir,
      version,
      ...(options.port === undefined ? {} : { port: options.port }),
      log: (line) => ui?.say(`server: ${line}`, "bad"),
    });
    server = opened;
    const client = createClient({ url: opened.url, key: opened.key });
    // A fleet of another run on the same server keeps its names.
    const suffix = opened.own ? "" : `.${process.pid}`;
    if (opened.own) await cancelLeftovers(client);

    const nameOf = (agentId: string) =>
      [...(fleet?.processes.values() ?? [])].find((own) => own.agentId === agentId)?.name ?? agentId;
    const tracker = createTracker({
      nameOf,
      now: Date.now,
      changed: () => {
        ui?.changed();
        if (options.chaos && !leaving && fleet) chaos(fleet);
      },
      requeued: (incident) => ui?.say(requeuedText(incident)),
      healed: (incident) => ui?.say(healedText(incident), "good"),
    });
    const chaos = createChaos(tracker, (text, tone) => ui?.say(text, tone));
    const state: State = {
      url: opened.url,
      repo: basename(repo),
      startedAt,
      phase: "starting the fleet",
      fleet: undefined,
      tracker,
      news: [],
    };
    const live = process.stdout.isTTY === true && process.env.TERM !== "dumb" && !options.plain;
    ui = live ? liveUi(process.stdout, state, colors) : plainUi(process.stdout, state, colors);
    ui.say(
      `Waggle ${version} at ${opened.url} (data in ${relative(process.cwd(), dataDir) || dataDir})${opened.note ? `: ${opened.note}` : ""}`,
    );

    fleet = supervise({
      program: fileURLToPath(new URL("./agent.mjs", import.meta.url)),
      suffix,
      env: { WAGGLE_URL: opened.url, WAGGLE_API_KEY: opened.key, WAGGLE_DEMO_REPO: repo, WAGGLE_DEMO_OUT: outDir },
      events: reportFleet(tracker, ui),
    });
    state.fleet = fleet;
    await fleet.ready;
    const pids = [...fleet.processes.values()].map((own) => `${own.name} ${own.pid}`).join(", ");
    ui.say(
      `${plural(roster.length, "agent")} registered in ${seconds(Date.now() - startedAt)}, each a process: ${pids}`,
    );

    state.phase = "planning";
    const outcome = await delegateReport({
      client,
      tracker,
      repo,
      outDir,
      signal: aborter.signal,
      planned(plan) {
        state.repo = plan.name;
        state.commit = plan.commit;
        ui?.say(
          `${plan.name}${plan.commit ? ` at ${plan.commit.slice(0, 10)}` : " (no commits yet)"}: ${plural(plan.tasks.length, "task")} delegated, the report depends on all of them`,
        );
      },
    });
    if (leaving) return;
    if (!outcome.report) {
      ui.close();
      process.stderr.write(`waggle: the report was not written: ${outcome.problem ?? "no reason given"}\n`);
      await shutDown(1);
      return;
    }
    written = true;
    // A kill at the very end: its story is told to its end as well.
    const patience = Date.now() + healWithinMs;
    while (tracker.incidents.some((incident) => incident.healedAt === undefined) && Date.now() < patience && !leaving)
      await pause(50);
    if (leaving) return;
    const agents = [];
    for await (const agent of client.agents.all({ role: "demo" })) agents.push(agent);
    const { tasks: made } = toMaking(outcome.tasks, agents, Date.now());
    ui.close();
    const ownData = options.data !== ".waggle";
    const lines = summary(
      {
        made,
        incidents: tracker.incidents,
        report: outcome.report,
        url: opened.url,
        prefix: ownData ? `WAGGLE_DATA=${quoted(dataDir)} ` : "",
        stays: !options.once,
        tookMs: Date.now() - startedAt,
      },
      process.stdout.columns || 120,
      colors,
    );
    process.stdout.write(`${lines.join("\n")}\n`);
    if (options.once) await shutDown(0);
  };
  await run().catch(async (error: unknown) => {
    // What is under way when everything stops ends with an error of its own.
    if (leaving) return;
    ui?.close();
    process.stderr.write(`waggle: ${reasonOf(error)}\n`);
    await shutDown(1);
  });
};

main().catch((error: unknown) => {
  process.stderr.write(`waggle: ${reasonOf(error)}\n`);
  process.exit(1);
});
