import { join } from "node:path";
import { parseArgs } from "node:util";
import { launch } from "../support/process.ts";
import { root } from "../support/root.ts";
import { openLocalStack } from "./localstack.ts";

const help = `npm run test:localstack [-- --short] [--report file]

The promises of the engine on AWS, held to LocalStack: the one AWS_ENDPOINT_URL names; else its image in Docker, when
LOCALSTACK_AUTH_TOKEN or LOCALSTACK_IMAGE is set; else its open core, installed into .cache (Java 17, Maven; Python 3.13 or Linux
on x86-64, where one is installed along).
  --short    the store and the functions, as CI does
  --report   vitest's report as JSON

Exits 1 when anything fails, and 0 having said so when what it needs is missing; with CI=true missing is failing.`;

/** See docs/localstack.md. */
const lacks = `LocalStack's open core lacks, and what stands in:
  EventBridge Scheduler never fires   the server calls the minute's handler itself (dev:localstack)
  archives are not replayed           nothing here replays; the event log is the table's own
  API Gateway v2, WebSocket           the server's own HTTP and WebSocket; pushes to @connections are tested on MiniStack
  old receipts still delete           not tried here; MiniStack and the embedded engine hold to it
  capacity of transactions is double  the cost of calls is held to on DynamoDB Local`;

/** Of the contract, those that an engine is given to: the most telling first. */
const suites = ["store", "queue", "ports"];

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      short: { type: "boolean", default: false },
      report: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(help);
    return 0;
  }
  const localstack = await openLocalStack({ env: process.env, log: console.log });
  if ("lack" in localstack) {
    console.log(`skipped: localstack: ${localstack.lack}`);
    return process.env.CI === "true" ? 1 : 0;
  }
  console.log(`on ${localstack.what}: ${localstack.endpoint}\n\n${lacks}\n`);
  const tests = launch(
    join(root, "node_modules/.bin/vitest"),
    [
      "run",
      "test/localstack",
      ...suites.slice(0, values.short ? 1 : suites.length).map((name) => `test/contract/${name}.test.ts`),
      "--testTimeout=60000",
      "--reporter=default",
      ...(values.report === undefined ? [] : ["--reporter=json", `--outputFile=${values.report}`]),
    ],
    {
      env: {
        AWS_ENDPOINT_URL: localstack.endpoint,
        ...(localstack.functions && { WAGGLE_FUNCTIONS_ENDPOINT: localstack.endpoint }),
        WAGGLE_RECEIPTS_STAY: "LocalStack takes any receipt of a message",
      },
    },
  );
  tests.child.stdout?.pipe(process.stdout);
  tests.child.stderr?.pipe(process.stderr);
  const code = await new Promise<number>((resolve) => {
    tests.child.once("close", (status) => resolve(status ?? 1));
    tests.child.once("error", () => resolve(1));
  });
  await localstack.end();
  return code === 0 ? 0 : 1;
}

process.exitCode = await main();
