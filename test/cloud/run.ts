import { randomBytes } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { dollarsOf, unitNames } from "../../bench/cost/units.ts";
import { pricesReadOn } from "../../bench/prices.ts";
import { apiOf } from "../support/api.ts";
import { launch } from "../support/process.ts";
import { root } from "../support/root.ts";
import { measured, nextMinute, type Places, settled } from "./cost.ts";

const help = `npm run test:cloud -- --stage NAME [--keep] [--tasks N]

Deploys a stage of its own into your AWS account, measures the latency of N tasks (default 200), runs the end-to-end tests
against its URL, asks CloudWatch what the N tasks took, and removes the stage. Needs AWS credentials (AWS_PROFILE, AWS_ACCESS_KEY_ID, or what your SDK finds) and AWS_REGION.
It costs a few cents. --keep leaves the stage; a stage that holds something of yours must not be named.`;

interface Deployed extends Omit<Places, "stage"> {
  readonly url: string;
  readonly concurrency: string;
}

/** Why nothing can be deployed from here; undefined when it can. Nothing is called. */
export function missing(env: Readonly<Record<string, string | undefined>>, home: string): string | undefined {
  const files = [env.AWS_SHARED_CREDENTIALS_FILE, env.AWS_CONFIG_FILE].filter((file) => file !== undefined);
  const found = [...files, join(home, ".aws/credentials"), join(home, ".aws/config")].some((file) => existsSync(file));
  const given = ["AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"];
  if (!found && !given.some((name) => env[name]))
    return "there are no AWS credentials: set AWS_PROFILE after `aws configure sso`, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
  if (!env.AWS_REGION && !env.AWS_DEFAULT_REGION && !found) return "set AWS_REGION to the region to deploy to";
  return undefined;
}

async function shell(program: string, args: readonly string[], env: Record<string, string> = {}): Promise<void> {
  const step = launch(program, args, { env });
  step.child.stdout?.pipe(process.stdout);
  step.child.stderr?.pipe(process.stderr);
  const code = await new Promise<number>((resolve) => step.child.once("close", (status) => resolve(status ?? 1)));
  if (code !== 0) throw new Error(`${program} ${args.slice(0, 2).join(" ")} ended with ${code}`);
}

const bin = (name: string) => join(root, "node_modules/.bin", name);

async function ready(url: string): Promise<void> {
  for (const end = Date.now() + 120_000; Date.now() < end; ) {
    const answer = await fetch(`${url}/health`).catch(() => undefined);
    await answer?.body?.cancel();
    if (answer?.ok) return;
    await sleep(1_000);
  }
  throw new Error(`${url} did not answer within two minutes`);
}

const at = (sorted: readonly number[], share: number) =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;

/** From the caller's machine, its way to the region included. */
async function latency(url: string, key: string, tasks: number): Promise<void> {
  const api = apiOf(url, key);
  const agent = await api.register({ maxConcurrency: 10 });
  const submits: number[] = [];
  const results: number[] = [];
  for (let i = 0; i < tasks; i++) {
    const began = performance.now();
    await api.delegate();
    submits.push(performance.now() - began);
    await agent.complete(await agent.take(), { n: i });
    results.push(performance.now() - began);
  }
  for (const [what, times] of Object.entries({ submit: submits, "submit to completed": results })) {
    times.sort((a, b) => a - b);
    console.log(`${what}: p50 ${at(times, 0.5).toFixed(0)} ms, p99 ${at(times, 0.99).toFixed(0)} ms, ${tasks} tasks`);
  }
}

/** What was consumed from one minute to another, beside what the bench counts for as many tasks. */
async function cost(places: Places, tasks: number, from: Date, to: Date): Promise<void> {
  const { CloudWatchClient } = await import("@aws-sdk/client-cloudwatch");
  const client = new CloudWatchClient({});
  console.log("waiting for the metrics of CloudWatch, which are some minutes late");
  const units = await settled(() => measured(client, places, from, to));
  for (const name of unitNames)
    if (units[name] > 0) console.log(`${name}: ${units[name].toFixed(2)}, ${(units[name] / tasks).toFixed(3)} a task`);
  const minutes = (to.getTime() - from.getTime()) / 60_000;
  const perMillion = (dollarsOf(units) / tasks) * 1e6;
  console.log(
    `cost: $${perMillion.toFixed(2)} a million tasks at ${pricesReadOn}'s prices, with events, lists, counters, and what a stage at rest takes in ${minutes} min`,
  );
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      stage: { type: "string" },
      keep: { type: "boolean", default: false },
      tasks: { type: "string", default: "200" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return console.log(help);
  const { stage } = values;
  if (stage === undefined || !/^[a-z][a-z0-9-]{0,30}$/.test(stage)) throw new Error(`--stage takes a name\n\n${help}`);
  const tasks = Number(values.tasks);
  if (!Number.isSafeInteger(tasks) || tasks < 1) throw new Error("--tasks takes a number");
  if (stage === "production") throw new Error("this test removes its stage afterwards: not production");
  const lack = missing(process.env, homedir());
  if (lack !== undefined) throw new Error(`cannot deploy: ${lack}`);

  const key = `wgk_${randomBytes(20).toString("base64url")}`;
  const sst = (...args: string[]) => shell(bin("sst"), [...args, "--stage", stage]);
  // SST reads secrets given so in preference to stored ones: nothing is left behind in the account.
  process.env.SST_SECRET_AdminKey = key;
  process.env.SST_SECRET_SecretKey = randomBytes(32).toString("base64url");
  try {
    await sst("deploy");
    const { url, concurrency, ...places } = JSON.parse(
      readFileSync(join(root, ".sst/outputs.json"), "utf8"),
    ) as Deployed;
    console.log(`deployed to ${url}; concurrency is ${concurrency}`);
    await ready(url.replace(/\/$/, ""));
    const from = await nextMinute();
    await latency(url.replace(/\/$/, ""), key, tasks);
    const to = await nextMinute();
    await shell(bin("vitest"), ["run", "test/e2e"], { WAGGLE_URL: url, WAGGLE_API_KEY: key });
    await cost({ stage, ...places }, tasks, from, to);
  } finally {
    if (!values.keep) await sst("remove");
  }
}

await main().catch((error: unknown) => {
  console.error(`test:cloud: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
});
