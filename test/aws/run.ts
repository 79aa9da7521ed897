import { parseArgs } from "node:util";
import { emulators } from "../support/emulator.ts";
import { launch } from "../support/process.ts";
import { root } from "../support/root.ts";
import { lack, openDeployment, stoodIn } from "./deploy.ts";

const help = `node ts.mjs test/aws/run.ts [--all] [--report file] [--log] [pattern …]

Runs the real bundles of the functions on an emulator of AWS, and the end-to-end tests against them.
  --all      every end-to-end test, and functions killed at work; else those that matter most
  --report   vitest's report as JSON
  --log      what the functions write`;

/** What differs most between one process and many. The others are run by --all. */
const suites = ["submit", "cancel", "dependencies"];

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      all: { type: "boolean", default: process.env.WAGGLE_AWS_ALL === "1" },
      report: { type: "string" },
      log: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(help);
    return 0;
  }
  if (lack !== undefined) {
    console.log(`skipped: aws: ${lack}`);
    return 0;
  }
  console.log(stoodIn);
  const environment = { WAGGLE_ALLOW_PRIVATE_TARGETS: "1", WAGGLE_WEBHOOK_SECONDS: "1" };
  const log = values.log ? console.log : () => {};
  const deployment = await openDeployment({ environment, log });
  const chosen = values.all ? ["test/e2e/"] : suites.map((name) => `test/e2e/${name}.test.ts`);
  const tests = launch(
    `${root}/node_modules/.bin/vitest`,
    [
      "run",
      ...(positionals.length > 0 ? positionals : [values.all ? "test/aws/" : "test/aws/deployment.test.ts", ...chosen]),
      // One emulator in one thread serves them all.
      "--maxWorkers=1",
      "--testTimeout=60000",
      "--reporter=default",
      ...(values.report === undefined ? [] : ["--reporter=json", `--outputFile=${values.report}`]),
    ],
    {
      env: {
        WAGGLE_URL: deployment.url,
        WAGGLE_API_KEY: deployment.key,
        WAGGLE_CALLS_LOOPBACK: "1",
        WAGGLE_AWS_BUNDLES: deployment.bundles,
        ...(values.all && { WAGGLE_AWS_ALL: "1" }),
      },
    },
  );
  tests.child.stdout?.pipe(process.stdout);
  tests.child.stderr?.pipe(process.stderr);
  const code = await new Promise<number>((resolve) => tests.child.once("close", (status) => resolve(status ?? 1)));
  for (const { name, counts } of Object.values(deployment.functions)) {
    const mean = (counts.ms / Math.max(1, counts.invocations)).toFixed(0);
    console.log(
      `${name}: ${counts.invocations} calls of ${mean} ms, ${counts.errors} failed, ${counts.cold} cold starts`,
    );
  }
  await deployment.stop();
  await (await emulators.ministack()).end();
  return code;
}

process.exit(
  await main().catch((error: unknown) => {
    console.error(error);
    return 1;
  }),
);
