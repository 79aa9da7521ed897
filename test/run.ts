import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { launch } from "./support/process.ts";
import { root } from "./support/root.ts";

const help = `npm test [-- stage …]   every stage, or those named
npm run check           the static ones: types, lint, unused

Stages: build downloads types lint unused unit domain contract crash aws e2e localstack infra fuzz access cost simulation imports bench
localstack runs where CI=true, when it is named, or with --all.
--all     of stage aws every end-to-end test, of stage domain every suite on the engine of AWS, with faults and without
Exits 1 when anything fails; the last line is "N passed, N failed".`;

interface Stage {
  readonly name: string;
  readonly what: string;
  readonly command: readonly string[];
  /** Left out, and said so, unless it is named, with --all, or where CI=true: it downloads or takes much. */
  readonly seldom?: boolean;
  /** Counts its tests from vitest's report; any other stage counts as one. */
  readonly vitest?: boolean;
}

interface Outcome {
  readonly name: string;
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  readonly output: string;
}

const bin = (name: string) => join(root, "node_modules/.bin", name);
const vitest = (name: string, what: string, ...folders: string[]): Stage => ({
  name,
  what,
  command: [bin("vitest"), "run", ...folders, "--reporter=default", "--reporter=json", `--outputFile=${report(name)}`],
  vitest: true,
});
const report = (name: string) => join(root, ".cache/reports", `${name}.json`);

const check: readonly Stage[] = [
  { name: "types", what: "TypeScript", command: [bin("tsc"), "-p", "."] },
  { name: "lint", what: "Biome", command: [bin("biome"), "check", "."] },
  { name: "unused", what: "knip", command: [bin("knip")] },
];
const build: Stage = { name: "build", what: "bundles", command: [process.execPath, "build.mjs"] };
const downloads: Stage = {
  name: "downloads",
  what: "emulators of AWS into .cache, SST's components into .sst",
  command: [process.execPath, "ts.mjs", "test/support/install.ts"],
};
const unit = vitest("unit", "beside the source", "packages");
/** Two at a time, in this order: unit needs what is built; downloads wait, and the static ones are single-threaded in part. */
const first: readonly Stage[] = [build, downloads, ...check, unit];
/** Each takes the machine. */
const whole: readonly Stage[] = [
  vitest("domain", "agents, tasks, matching and limits, with a clock in hand", "test/domain"),
  vitest("contract", "every engine keeps the ports' promises", "test/contract"),
  {
    name: "crash",
    what: "agents and server harmed in every way under load",
    command: [process.execPath, "ts.mjs", "test/chaos/run.ts", "--minutes", "0.25", "--kills", "10"],
  },
];

/** Two at a time: each waits for half of its time, or is for the most part one process. */
const half: readonly Stage[] = [
  {
    name: "aws",
    what: "the functions' bundles on an emulator of AWS",
    command: [process.execPath, "ts.mjs", "test/aws/run.ts", "--report", report("aws")],
    vitest: true,
  },
  vitest("e2e", "a started server, over HTTP", "test/e2e"),
  {
    name: "localstack",
    what: "the engine and the functions on LocalStack",
    command: [process.execPath, "ts.mjs", "test/localstack/run.ts", "--short", "--report", report("localstack")],
    vitest: true,
    seldom: true,
  },
  vitest("infra", "what a deployment makes, and who may do what", "test/infra"),
  vitest("fuzz", "what nobody should send, to every route and socket", "test/fuzz"),
  vitest("access", "every call for everyone, and no secret where it can be read", "test/access"),
  vitest("cost", "no step takes more of AWS than it did", "test/cost"),
  vitest("simulation", "crashes wherever they may be, on a simulated disk", "test/simulation"),
  vitest("imports", "who may import whom; what ships stays small", "test/imports"),
  vitest("bench", "the figures shown are those that were measured", "test/bench"),
];

interface Report {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly numTodoTests: number;
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly message: string;
    readonly assertionResults: readonly {
      readonly status: string;
      readonly fullName: string;
      readonly failureMessages: readonly string[];
    }[];
  }[];
}

type Counts = Pick<Outcome, "passed" | "failed" | "skipped">;

const readReport = (name: string) => JSON.parse(readFileSync(report(name), "utf8")) as Report;

/** What failed in a stage of vitest and why, in few lines: whoever reads the end of a long log looks for no more. */
function failures(name: string): string[] {
  const found = readReport(name).testResults.flatMap((file) => [
    ...(file.assertionResults.length === 0 && file.status === "failed" ? [[file.name, file.message]] : []),
    ...file.assertionResults
      .filter(({ status }) => status === "failed")
      .map(({ fullName, failureMessages }) => [fullName, failureMessages.join("\n")]),
  ]) as [string, string][];
  return found.map(([what, why]) => {
    const lines = why.split("\n").filter((line) => line.trim() !== "" && !/^\s+at /.test(line));
    const some = lines.length > 24 ? [...lines.slice(0, 12), "…", ...lines.slice(-12)] : lines;
    return [`failed: ${name}: ${what}`, ...some.map((line) => `     ${line.slice(0, 2000)}`)].join("\n");
  });
}

function counts(name: string): Counts | undefined {
  try {
    const found = readReport(name);
    // A file that does not even load holds no test, and is a failure all the same.
    const broken = found.testResults.filter((file) => file.status === "failed" && file.assertionResults.length === 0);
    return {
      passed: found.numPassedTests,
      failed: found.numFailedTests + broken.length,
      skipped: found.numPendingTests + found.numTodoTests,
    };
  } catch {
    return;
  }
}

/** How often a stage that takes long says how far it is. */
const stillMs = 120_000;

async function run(stage: Stage, say: (mark: string, what: string) => void): Promise<Outcome> {
  const [program, ...args] = stage.command as [string, ...string[]];
  const stopped = launch(program, args, { env: { FORCE_COLOR: "0" } });
  const still = setInterval(() => {
    const files = stopped.output().match(/^ .*\.test\.ts \(.*$/gm) ?? [];
    const last = files.length === 0 ? "" : `${files.length} files, the last:${files.at(-1)}`;
    say("…", last);
  }, stillMs);
  const code = await new Promise<number>((resolve) => {
    stopped.child.once("close", (status) => resolve(status ?? 1));
    stopped.child.once("error", () => resolve(1));
  });
  clearInterval(still);
  const output = stopped.output();
  const found = stage.vitest ? counts(stage.name) : { passed: code === 0 ? 1 : 0, failed: 0, skipped: 0 };
  const { passed, failed, skipped } = found ?? { passed: 0, failed: 0, skipped: 0 };
  return { name: stage.name, passed, failed: code !== 0 && failed === 0 ? 1 : failed, skipped, output };
}

const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;

async function runAll(stages: readonly Stage[], inParallel: number): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  const waiting = [...stages];
  const lane = async () => {
    for (let stage = waiting.shift(); stage !== undefined; stage = waiting.shift()) {
      const began = performance.now();
      const say = (mark: string, what: string) =>
        console.log(
          `${mark.padEnd(5)}${stage.name.padEnd(10)}${seconds(performance.now() - began).padStart(7)}  ${what}`,
        );
      const outcome = await run(stage, say);
      const { passed, failed, skipped, output } = outcome;
      const tests = stage.vitest
        ? `${passed} passed${failed ? `, ${failed} failed` : ""}${skipped ? `, ${skipped} skipped` : ""}`
        : "";
      say(failed ? "FAIL" : "ok", tests || stage.what);
      // What a machine lacks for some of them, and what is not the real thing, in the words of the suite.
      for (const line of new Set(output.match(/^(skipped:|stood in for by) .*$/gm))) console.log(`     ${line}`);
      if (failed) console.log(output.replace(/^/gm, "     | "));
      outcomes.push(outcome);
    }
  };
  await Promise.all(Array.from({ length: inParallel }, lane));
  return outcomes;
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      check: { type: "boolean", default: false },
      all: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return console.log(help);
  if (values.all) process.env.WAGGLE_AWS_ALL = "1";
  const often = (stage: Stage) => !stage.seldom || values.all || process.env.CI === "true";
  const wanted = (stage: Stage) =>
    values.check ? check.includes(stage) : positionals.length === 0 ? often(stage) : positionals.includes(stage.name);
  const known = [...first, ...whole, ...half];
  const wrong = positionals.find((name) => !known.some((stage) => stage.name === name));
  if (wrong !== undefined) throw new Error(`no stage ${wrong}\n${help}`);

  const began = performance.now();
  rmSync(join(root, ".cache/reports"), { recursive: true, force: true });
  mkdirSync(join(root, ".cache/reports"), { recursive: true });
  const outcomes = await runAll(first.filter(wanted), 2);
  outcomes.push(...(await runAll(whole.filter(wanted), 1)));
  outcomes.push(...(await runAll(half.filter(wanted), 2)));

  if (!values.check && positionals.length === 0)
    for (const { name, what } of known)
      if (!outcomes.some((outcome) => outcome.name === name))
        console.log(`skipped: ${name}: ${what}; npm test -- ${name} runs it`);
  const sum = (part: "passed" | "failed" | "skipped") => outcomes.reduce((total, outcome) => total + outcome[part], 0);
  for (const { name, failed } of outcomes) {
    if (!failed || !known.find((stage) => stage.name === name)?.vitest) continue;
    try {
      for (const each of failures(name)) console.log(each);
    } catch {
      console.log(`failed: ${name}: it ended without a report`);
    }
  }
  console.log(seconds(performance.now() - began));
  console.log(`${sum("passed")} passed, ${sum("failed")} failed${sum("skipped") ? `, ${sum("skipped")} skipped` : ""}`);
  process.exitCode = sum("failed") === 0 && outcomes.length > 0 ? 0 : 1;
}

await main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  console.log("0 passed, 1 failed");
  process.exitCode = 2;
});
