import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { Key, outboxKinds } from "@waggle/core";
import { beforeAll, expect, describe as group, test } from "vitest";
import { type FunctionEntry, functions, queues } from "../../infra/manifest.ts";
import { root } from "../support/root.ts";
import { graphOf, installPlatform, typesOf } from "./graph.ts";
import type { Graph, Inputs } from "./harness.ts";
import { describe, ofType, rolesOf, statementsOf } from "./policy.ts";

type Sizes = Record<string, { startBytes: number; allBytes: number }>;
/** Bytes: what is, and a little room. The API's goal is 500,000. */
const startLimits = { api: 450_000, other: 335_000 };

let trial: Graph;
let production: Graph;
let small: Graph;

// The first run in a checkout installs SST's components, about 100 MB.
beforeAll(async () => {
  await installPlatform();
  [trial, production, small] = await Promise.all([
    graphOf({ stage: "trial", bundles: true }),
    graphOf({ stage: "production" }),
    graphOf({ stage: "production", concurrencyQuota: 10, secrets: { ...secrets, AlarmEmail: "nobody" } }),
  ]);
}, 600_000);

const secrets = { AdminKey: "wgk_0123456789abcdefghijklmnopq", SecretKey: "a-secret-that-encrypts-secrets" };
const lambdas = (graph: Graph) => ofType(graph, "aws:lambda/function:Function");
const one = (graph: Graph, type: string): Inputs => {
  const [found, ...more] = ofType(graph, type);
  if (found === undefined || more.length > 0)
    throw new Error(`expected one ${type}, found ${more.length + (found ? 1 : 0)}`);
  return found.inputs;
};
const entries = Object.entries(functions) as [string, FunctionEntry][];

test("sst.config.ts and infra/ have no type errors against SST's own types", async () => {
  expect(await typesOf()).toBe("");
}, 120_000);

group("what a stage consists of", () => {
  test("a stage is made of these resources and no others", () => {
    const counts: Record<string, number> = {};
    for (const { type } of trial.resources) {
      if (type.startsWith("aws:")) counts[type.replace(/:.*[:]/, " ")] = (counts[type.replace(/:.*[:]/, " ")] ?? 0) + 1;
    }
    expect(Object.fromEntries(Object.entries(counts).sort())).toMatchSnapshot();
  });

  test("each entry of the manifest is one function, of the memory, time and text it says", () => {
    expect(
      lambdas(trial)
        .map(({ inputs }) => inputs.name)
        .sort(),
    ).toEqual(entries.map(([name]) => `waggle-trial-${name}`).sort());
    for (const { inputs } of lambdas(trial)) {
      const entry = functions[inputs.name.slice("waggle-trial-".length) as keyof typeof functions];
      expect(inputs).toMatchObject({
        description: entry.what,
        memorySize: entry.memoryMiB,
        timeout: entry.timeoutSeconds,
        architectures: ["arm64"],
        runtime: "nodejs24.x",
      });
    }
  });

  test("the stream is followed for the very rows the outbox works on", () => {
    expect(functions.outbox.trigger.kinds).toEqual([...outboxKinds]);
  });

  test("logs are JSON, kept for a week, and nothing but them", () => {
    for (const { inputs } of lambdas(trial)) {
      expect(inputs.loggingConfig).toMatchObject({ logFormat: "JSON", logGroup: `/aws/lambda/${inputs.name}` });
    }
    const groups = ofType(trial, "aws:cloudwatch/logGroup:LogGroup");
    expect(groups).toHaveLength(entries.length + 1);
    for (const { inputs } of groups) expect(inputs.retentionInDays).toBe(7);
  });

  test("resources of two stages never share a name", () => {
    const named = (graph: Graph) =>
      graph.resources
        // Code lies in a bucket of SST's, under a name that tells its content.
        .filter(({ type }) => type.startsWith("aws:") && !type.includes("BucketObject"))
        .map(({ type, inputs }) => `${type} ${inputs.name ?? inputs.bucket ?? ""}`)
        .filter((name) => !/ $/.test(name));
    const trials = named(trial);
    const others = named(production);
    expect(trials.length).toBeGreaterThan(40);
    expect(trials.filter((name) => others.includes(name) && !name.includes("$default"))).toEqual([]);
    expect(new Set(trials).size).toBe(trials.length);
  });
});

group("nothing is lost", () => {
  test("every queue sends what fails again and again to dead letters, kept 14 days, and takes 1 MiB", () => {
    const all = ofType(trial, "aws:sqs/queue:Queue").map(({ inputs }) => inputs);
    for (const name of Object.keys(queues)) {
      const queue = all.find((each) => each.name === `waggle-trial-${name}`) as Inputs;
      const { deadLetterTargetArn, maxReceiveCount } = JSON.parse(queue.redrivePolicy);
      expect(deadLetterTargetArn).toMatch(new RegExp(`:waggle-trial-${name}-dead$`));
      expect(maxReceiveCount).toBeGreaterThanOrEqual(5);
    }
    for (const each of all) {
      expect(each).toMatchObject({ maxMessageSize: 1_048_576, sqsManagedSseEnabled: true });
      if (each.redrivePolicy === undefined) expect(each.messageRetentionSeconds).toBe(14 * 86_400);
    }
  });

  test("a message stays hidden for six times as long as its function may take", () => {
    for (const [name, { trigger, timeoutSeconds }] of entries) {
      if (trigger.type !== "queue") continue;
      expect(queues[trigger.queue].visibilitySeconds, name).toBeGreaterThanOrEqual(6 * timeoutSeconds);
    }
  });

  test("a queue's function fails message by message, and is never asked for more than is kept for it", () => {
    const mappings = ofType(trial, "aws:lambda/eventSourceMapping:EventSourceMapping").map(({ inputs }) => inputs);
    const ofQueues = mappings.filter((each) => each.eventSourceArn.includes(":sqs:"));
    expect(ofQueues).toHaveLength(Object.keys(queues).length);
    for (const each of ofQueues) {
      expect(each.functionResponseTypes).toEqual(["ReportBatchItemFailures"]);
      const { reserved } = functions[each.functionName.split("-").at(-1) as keyof typeof functions];
      expect(each.scalingConfig?.maximumConcurrency).toBeLessThan(reserved);
    }
  });

  test("the stream is read from its start; a batch that fails is halved, tried a limited time, and noted in a queue", () => {
    const mapping = ofType(trial, "aws:lambda/eventSourceMapping:EventSourceMapping").find(({ inputs }) =>
      inputs.eventSourceArn.includes("/stream/"),
    )?.inputs as Inputs;
    expect(mapping).toMatchObject({
      startingPosition: "TRIM_HORIZON",
      bisectBatchOnFunctionError: true,
      functionResponseTypes: ["ReportBatchItemFailures"],
      parallelizationFactor: 1,
    });
    expect(mapping.maximumRetryAttempts).toBeGreaterThan(0);
    expect(mapping.destinationConfig).toEqual({
      onFailure: { destinationArn: expect.stringMatching(/:waggle-trial-stream-failed$/) },
    });
    const patterns = mapping.filterCriteria.filters.map(({ pattern }) => JSON.parse(pattern));
    expect(patterns).toEqual([
      { dynamodb: { NewImage: { kind: { S: ["task", "agent"] } } } },
      { dynamodb: { OldImage: { kind: { S: ["task", "agent"] } } } },
    ]);
  });

  test("schedules and what they call have dead letters too", () => {
    for (const { inputs } of ofType(trial, "aws:scheduler/schedule:Schedule")) {
      expect(inputs.target.deadLetterConfig).toEqual({
        arn: expect.stringMatching(/:waggle-trial-schedule-failed$/),
      });
    }
    for (const { inputs } of ofType(trial, "aws:lambda/functionEventInvokeConfig:FunctionEventInvokeConfig")) {
      expect(inputs.destinationConfig).toEqual({
        onFailure: { destination: expect.stringMatching(/:waggle-trial-schedule-failed$/) },
      });
    }
  });

  test("calls of the API that fail raise an alarm, though its function does not", () => {
    const watched = ofType(trial, "aws:cloudwatch/metricAlarm:MetricAlarm").map(({ inputs }) => inputs);
    expect(watched.find(({ metricName }) => metricName === "Url5xxCount")?.dimensions).toEqual({
      FunctionName: "waggle-trial-api",
    });
  });

  test("calls that fail raise an alarm for each function, refused ones for all that share the account's quota", () => {
    const watched = ofType(trial, "aws:cloudwatch/metricAlarm:MetricAlarm").map(({ inputs }) => inputs);
    const { metricQueries = [] } = watched.find(({ name }) => name === "waggle-trial-errors") as Inputs;
    const failing = metricQueries.flatMap(({ metric }) => metric?.dimensions.FunctionName ?? []);
    expect(failing.sort()).toEqual(entries.map(([name]) => `waggle-trial-${name}`).sort());
    // More CloudWatch does not add up in one alarm.
    expect(failing.length).toBeLessThanOrEqual(10);
    const throttles = watched.find(({ metricName }) => metricName === "Throttles");
    expect(throttles).toMatchObject({ namespace: "AWS/Lambda", statistic: "Sum" });
    expect(throttles?.dimensions).toBeUndefined();
  });

  test("every dead letter raises an alarm", () => {
    const watched = ofType(trial, "aws:cloudwatch/metricAlarm:MetricAlarm")
      .filter(({ inputs }) => inputs.metricName === "ApproximateNumberOfMessagesVisible")
      .map(({ inputs }) => inputs.dimensions.QueueName);
    const dead = ofType(trial, "aws:sqs/queue:Queue")
      .map(({ inputs }) => inputs.name)
      .filter((name) => /-(dead|failed)$/.test(name));
    expect(watched.sort()).toEqual(dead.sort());
    expect(dead).toHaveLength(6);
  });

  test("Lambda does not take a chain of timers for a loop", () => {
    const allowed = ofType(trial, "aws:lambda/functionRecursionConfig:FunctionRecursionConfig");
    expect(allowed.map(({ inputs }) => inputs)).toContainEqual({
      functionName: "waggle-trial-timers",
      recursiveLoop: "Allow",
    });
  });

  test("the table keeps 35 days of history, both images in its stream, and deletes by ttl", () => {
    expect(one(trial, "aws:dynamodb/table:Table")).toMatchObject({
      hashKey: "pk",
      rangeKey: "sk",
      billingMode: "PAY_PER_REQUEST",
      streamViewType: "NEW_AND_OLD_IMAGES",
      pointInTimeRecovery: { enabled: true, recoveryPeriodInDays: 35 },
      ttl: { attributeName: "ttl", enabled: true },
      globalSecondaryIndexes: [],
    });
  });

  test("production outlives a mistake, and a trial stage leaves nothing behind", () => {
    expect(production.app).toMatchObject({ removal: "retain", protect: true });
    expect(one(production, "aws:dynamodb/table:Table").deletionProtectionEnabled).toBe(true);
    expect(one(production, "aws:s3/bucket:Bucket").forceDestroy).toBe(false);
    expect(one(production, "aws:s3/bucketVersioning:BucketVersioning").versioningConfiguration).toEqual({
      status: "Enabled",
    });
    const { rules } = one(production, "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration");
    expect(rules).toMatchObject([{ noncurrentVersionExpiration: { noncurrentDays: 35 } }]);
    expect(trial.app).toMatchObject({ removal: "remove", protect: false });
    expect(one(trial, "aws:dynamodb/table:Table").deletionProtectionEnabled).toBe(false);
    expect(one(trial, "aws:s3/bucket:Bucket").forceDestroy).toBe(true);
  });
});

test("a stage whose name promises safeguards it would not have, or is too long, is refused", async () => {
  Object.assign(globalThis, { $config: (config: object) => config });
  const file = pathToFileURL(join(root, "sst.config.ts")).href;
  const { app } = ((await import(file)) as { default: { app(input: { stage: string }): object } }).default;
  for (const stage of ["prod", "Production", "prod-eu", "live", `t${"x".repeat(40)}`])
    expect(() => app({ stage }), stage).toThrow(/stage/);
  for (const stage of ["production", "trial", "product", "alive"])
    expect(app({ stage })).toMatchObject({ name: "waggle" });
});

test("the address a deployment prints takes a path behind it, as docs/deploy.md puts one there", () => {
  expect(trial.outputs.url).toMatch(/^https:\/\/[^/]+\.on\.aws$/);
});

test("what docs/deploy.md says a small fleet costs adds up, to $5 at most, with as many metrics as the alarms have", () => {
  const text = readFileSync(join(root, "docs/deploy.md"), "utf8");
  const [, table = ""] = text.split(/## What it costs|## How it is tested/);
  const amounts = [...table.matchAll(/\| \**(\d+\.\d\d)\** \|$/gm)].map(([, amount]) => Number(amount));
  const total = amounts.pop() as number;
  expect(amounts.length).toBeGreaterThan(10);
  expect(amounts.reduce((sum, amount) => sum + amount, 0)).toBeCloseTo(total, 5);
  expect(total).toBeLessThanOrEqual(5);
  const found = ofType(trial, "aws:cloudwatch/metricAlarm:MetricAlarm");
  const metrics = found.flatMap(({ inputs }) => inputs.metricQueries?.filter(({ metric }) => metric) ?? [{}]);
  expect(table).toContain(`| ${metrics.length} metrics in ${found.length} alarms |`);
});

test("what docs/deploy.md tells EventBridge is JSON, and makes messages that the intake takes", () => {
  const text = readFileSync(join(root, "docs/deploy.md"), "utf8");
  const [, targets = ""] = /--targets '(.*?)'/s.exec(text) ?? [];
  const [{ InputTransformer }] = JSON.parse(targets);
  const values: Readonly<Record<string, unknown>> = { id: "evt-1", detail: { order: 7 } };
  const message = InputTransformer.InputTemplate.replaceAll(/<(\w+)>/g, (_: string, name: string) =>
    JSON.stringify(values[name]),
  );
  expect(Object.keys(InputTransformer.InputPathsMap)).toEqual(Object.keys(values));
  expect(JSON.parse(message)).toMatchObject({ tenant: "default", id: "evt-1", task: { input: { order: 7 } } });
});

group("who may do what", () => {
  test("every permission is in the table that people read", async () => {
    await expect(describe(trial)).toMatchFileSnapshot("iam.golden.md");
  });

  test("roles are assumed by their service alone, and no statement speaks of all resources or all actions", () => {
    for (const { name, statements, managed, assumedBy } of rolesOf(trial)) {
      expect(managed, name).toEqual([]);
      expect(assumedBy, name).toMatch(/^(lambda|scheduler)\.amazonaws\.com$/);
      for (const each of statements) {
        expect(each.resources, name).not.toContain("*");
        expect(
          each.actions.filter((action) => action.includes("*")),
          name,
        ).toEqual([]);
      }
    }
  });

  test("rows are reached by what their keys begin with, and by no other way", () => {
    for (const { name, statements } of rolesOf(trial)) {
      for (const each of statements) {
        if (!each.actions.some((action) => action.startsWith("dynamodb:"))) continue;
        if (each.resources.every((resource) => resource.includes("/stream/"))) continue;
        expect(
          each.conditions?.map(({ test, variable }) => `${test} ${variable}`),
          name,
        ).toEqual(["ForAllValues:StringLike dynamodb:LeadingKeys"]);
        expect(each.actions).not.toContain("dynamodb:Scan");
      }
    }
  });

  test("keys are made by the API alone; connections look up who bears one, and the intake whose one is", () => {
    const reached = (pattern: string, action: string) =>
      rolesOf(trial)
        .filter(({ statements }) =>
          statements.some(
            ({ actions, conditions = [] }) =>
              actions.includes(action) && conditions.some(({ values }) => values.includes(pattern)),
          ),
        )
        .map(({ name }) => name);
    expect(reached("K#*", "dynamodb:PutItem")).toEqual(["ApiFunctionRole"]);
    expect(reached("*#K", "dynamodb:PutItem")).toEqual(["ApiFunctionRole"]);
    expect(reached("*#K", "dynamodb:GetItem")).toEqual(["ApiFunctionRole", "IntakeFunctionRole"]);
    expect(reached("K#*", "dynamodb:GetItem")).toEqual(["ApiFunctionRole", "SocketFunctionRole"]);
  });

  test("a role's policies are well within the 10,240 characters it may have", () => {
    for (const { inputs } of ofType(trial, "aws:iam/role:Role")) {
      const characters = (inputs.inlinePolicies ?? []).reduce((sum, { policy }) => sum + policy.length, 0);
      expect(characters, inputs.name).toBeLessThan(8_000);
    }
  });

  test("only what is tagged as an agent's is called, and nothing of Waggle's own carries the tag", () => {
    const wide = rolesOf(trial).flatMap(({ name, statements }) =>
      statements
        .filter(({ resources }) => resources.some((each) => /:(function:)?\*$/.test(each) && !/log-group/.test(each)))
        .map(({ conditions }) => ({ name, conditions })),
    );
    const conditions = [{ test: "StringEquals", variable: "aws:ResourceTag/waggle:agent", values: ["trial"] }];
    expect(wide).toEqual([
      { name: "DeliverFunctionRole", conditions },
      { name: "DeliverFunctionRole", conditions },
    ]);
    const tags = trial.resources.map(({ inputs }) => inputs.tags ?? {});
    expect(tags.filter((each) => "waggle:agent" in each)).toEqual([]);
    expect(tags.filter((each) => each["waggle:stage"] === "trial").length).toBeGreaterThan(30);
  });

  test("nothing is public but the API's URL and the connections", () => {
    const open = ofType(trial, "aws:lambda/permission:Permission")
      .map(({ inputs }) => inputs)
      .filter((each) => each.principal === "*" || each.sourceArn === undefined);
    expect(new Set(open.map((each) => each.function))).toEqual(new Set(["waggle-trial-api"]));
    expect(one(trial, "aws:lambda/functionUrl:FunctionUrl")).toMatchObject({
      functionName: "waggle-trial-api",
      invokeMode: "RESPONSE_STREAM",
    });
    expect(one(trial, "aws:lambda/functionUrl:FunctionUrl").cors).toBeUndefined();
    expect(ofType(trial, "aws:apigatewayv2/api:Api")).toHaveLength(1);
    expect(ofType(trial, "aws:s3/bucketCorsConfiguration:BucketCorsConfiguration")).toEqual([]);
    expect(one(trial, "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock")).toMatchObject({
      blockPublicAcls: true,
      blockPublicPolicy: true,
      ignorePublicAcls: true,
      restrictPublicBuckets: true,
    });
    const policies = ["sqs/queuePolicy:QueuePolicy", "sns/topicPolicy:TopicPolicy", "s3/bucketPolicy:BucketPolicy"];
    for (const { name, inputs } of policies.flatMap((type) => ofType(trial, `aws:${type}`))) {
      for (const { effect, principals = [], conditions = [] } of statementsOf(inputs.policy)) {
        if (effect === "Deny") continue;
        expect(
          principals.flatMap(({ identifiers }) => identifiers),
          name,
        ).not.toContain("*");
        expect(
          conditions.map(({ variable }) => variable),
          name,
        ).toContain("aws:SourceAccount");
      }
    }
  });

  test("the admin's key itself is deployed nowhere, only its hash", () => {
    const deployed = trial.resources.filter(({ type }) => type.startsWith("aws:"));
    expect(JSON.stringify(deployed)).not.toContain(secrets.AdminKey);
    const withHash = lambdas(trial).filter(({ inputs }) =>
      JSON.stringify(inputs.environment).includes("WAGGLE_ADMIN_KEY_HASH"),
    );
    expect(withHash.map(({ inputs }) => inputs.name)).toEqual(["waggle-trial-api"]);
    expect(JSON.stringify(withHash[0]?.inputs.environment)).toContain(`"${Key.hashOf(secrets.AdminKey)}"`);
  });

  test("a key that nobody could use is refused before anything is deployed", async () => {
    await expect(graphOf({ stage: "wrong", secrets: { ...secrets, AdminKey: "hunter2" } })).rejects.toThrow(
      /AdminKey is not a key/,
    );
  });
});

group("an account with a small quota", () => {
  test("a new account of 10 concurrent executions can be deployed to: nothing is reserved, and the output says so", () => {
    for (const { inputs } of lambdas(small)) expect(inputs.reservedConcurrentExecutions).toBe(-1);
    expect(small.outputs.concurrency).toMatch(/quota is too low/);
  });

  test("there the queues together leave some of them to the API, its connections, the stream and the schedules", () => {
    const limits = ofType(small, "aws:lambda/eventSourceMapping:EventSourceMapping").flatMap(
      ({ inputs }) => inputs.scalingConfig?.maximumConcurrency ?? [],
    );
    expect(limits).toEqual(Object.keys(queues).map(() => 2));
    for (const { inputs } of ofType(production, "aws:lambda/eventSourceMapping:EventSourceMapping")) {
      const { trigger }: FunctionEntry = functions[inputs.functionName.split("-").at(-1) as keyof typeof functions];
      if (trigger.type === "queue") expect(inputs.scalingConfig?.maximumConcurrency).toBe(trigger.concurrency);
    }
  });

  test("production alone keeps executions for each function, so that a trial beside it fits into a quota of 1,000", () => {
    for (const { inputs } of lambdas(production)) {
      const { reserved } = functions[inputs.name.slice("waggle-production-".length) as keyof typeof functions];
      expect(inputs.reservedConcurrentExecutions).toBe(reserved);
    }
    expect(production.outputs.concurrency).toBe("reserved");
    for (const { inputs } of lambdas(trial)) expect(inputs.reservedConcurrentExecutions).toBe(-1);
    expect(trial.outputs.concurrency).toMatch(/only production/);
  });

  test("who names no address for alarms gets none sent", () => {
    expect(ofType(small, "aws:sns/topicSubscription:TopicSubscription")).toEqual([]);
    expect(one(trial, "aws:sns/topicSubscription:TopicSubscription")).toMatchObject({ endpoint: "ops@example.com" });
  });
});

group("what functions weigh", () => {
  test("each function is small when it starts, so that it starts quickly", () => {
    const sizes = JSON.parse(readFileSync(join(root, "dist/functions/sizes.json"), "utf8")) as Sizes;
    expect(Object.keys(sizes).sort()).toEqual(Object.keys(functions).sort());
    for (const [name, { startBytes }] of Object.entries(sizes))
      expect(startBytes, name).toBeLessThan(name === "api" ? startLimits.api : startLimits.other);
  });

  test("a bundle loads by itself, with a handler in it", async () => {
    const load = `globalThis.awslambda = { streamifyResponse: (handler) => handler };
      for (const name of ${JSON.stringify(Object.keys(functions))}) {
        const { handler } = await import("./dist/functions/" + name + "/bundle.mjs");
        if (typeof handler !== "function") throw new Error(name);
      }`;
    await promisify(execFile)(process.execPath, ["--input-type=module", "-e", load], { cwd: root });
  });

  const called = async (...args: string[]) => {
    const command = ["ts.mjs", "test/infra/call.ts", ...args];
    const { stdout } = await promisify(execFile)(process.execPath, command, { cwd: root, maxBuffer: 2 ** 22 });
    return JSON.parse(stdout) as { statusCode: number; text: string };
  };

  test("what is no web request is refused by the API, and does not end its function with an error", async () => {
    const { statusCode, text } = await called("/v1/tasks", "TRACE");
    expect([statusCode, JSON.parse(text).code]).toEqual([400, "request.invalid"]);
  });

  test("the API's bundle answers a function URL's call, its text of OpenAPI included", async () => {
    const { statusCode, text } = await called("/openapi.json");
    expect(statusCode).toBe(200);
    expect(Object.keys(JSON.parse(text).paths)).toContain("/v1/tasks");
  });
});
