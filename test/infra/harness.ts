import { mkdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";

/*
 * Runs sst.config.ts as `sst deploy` does, but for the engine below: SST's real components make resources of the real AWS
 * provider's types, and what would go to AWS is recorded. Loaded in a process of its own, beside SST's packages.
 */

/** What a resource is made with; the fields that tests look into are typed as AWS has them, each in some resources only. */
export interface Inputs {
  readonly name: string;
  readonly bucket: string;
  readonly function: string;
  readonly functionName: string;
  readonly policy: string;
  readonly assumeRolePolicy: string | object;
  readonly inlinePolicies?: readonly { readonly policy: string }[];
  readonly managedPolicyArns?: readonly string[];
  readonly redrivePolicy: string;
  readonly eventSourceArn: string;
  readonly scalingConfig?: { readonly maximumConcurrency: number };
  readonly filterCriteria: { readonly filters: readonly { readonly pattern: string }[] };
  readonly target: { readonly deadLetterConfig: unknown };
  readonly dimensions: { readonly QueueName: string; readonly FunctionName: string };
  readonly metricQueries?: readonly { readonly metric?: Pick<Inputs, "dimensions"> }[];
  readonly tags?: Readonly<Record<string, string>>;
  readonly [other: string]: unknown;
}

export interface Resource {
  readonly type: string;
  readonly name: string;
  readonly inputs: Inputs;
}

export interface Graph {
  readonly resources: readonly Resource[];
  readonly outputs: Readonly<Record<string, unknown>>;
  readonly app: App;
}

/** SST's platform, as its own modules export it; typed only as far as it is used here. */
export interface Platform {
  readonly pulumi: {
    readonly runtime: {
      setMocks(mocks: object, project: string, stack: string, preview: boolean): Promise<void>;
      runInPulumiStack(program: () => Promise<unknown>): Promise<unknown>;
      disconnect(): Promise<void>;
    };
    output(value: unknown): { apply(use: (value: never) => unknown): unknown };
  };
  readonly aws: object;
  readonly components: object;
  readonly shim: Readonly<Record<string, unknown>>;
  readonly run: (program: () => Promise<unknown>) => Promise<unknown>;
  readonly config: () => Promise<{ app(input: object): Promise<App> | App; run(): Promise<unknown> }>;
}
interface App {
  readonly name: string;
  readonly removal?: string;
  readonly protect?: boolean;
}

export interface Options {
  readonly root: string;
  readonly stage: string;
  /** The account's quota of concurrent executions of functions. */
  readonly concurrencyQuota: number;
  /** Make the functions' bundles; else their code is empty. */
  readonly bundles: boolean;
  readonly secrets: Readonly<Record<string, string>>;
  readonly out: string;
}

/** What SST says of a function that is to be packed. */
interface Build {
  readonly bundle: string;
  readonly handler: string;
}

const accountId = "123456789012";
const region = "us-east-1";

/** What AWS would answer for a resource that is made. */
function made(type: string, name: string, inputs: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const known = (inputs.name ?? inputs.bucket ?? name) as string;
  const service = type.split(":")[1]?.split("/")[0] ?? "";
  const arns: Readonly<Record<string, string>> = {
    "aws:lambda/function:Function": `arn:aws:lambda:${region}:${accountId}:function:${known}`,
    "aws:dynamodb/table:Table": `arn:aws:dynamodb:${region}:${accountId}:table/${known}`,
    "aws:s3/bucket:Bucket": `arn:aws:s3:::${known}`,
    "aws:cloudwatch/logGroup:LogGroup": `arn:aws:logs:${region}:${accountId}:log-group:${known}`,
    "aws:cloudwatch/eventBus:EventBus": `arn:aws:events:${region}:${accountId}:event-bus/${known}`,
    "aws:iam/role:Role": `arn:aws:iam::${accountId}:role/${known}`,
  };
  const arn = arns[type] ?? `arn:aws:${service}:${region}:${accountId}:${known}`;
  return {
    ...inputs,
    name: known,
    bucket: known,
    arn,
    url: `https://sqs.${region}.amazonaws.com/${accountId}/${known}`,
    qualifiedArn: `${arn}:1`,
    invokeArn: `arn:aws:apigateway:${region}:lambda:path/2015-03-31/functions/${arn}/invocations`,
    functionUrl: `https://${name.toLowerCase()}.lambda-url.${region}.on.aws/`,
    apiEndpoint: `wss://${name.toLowerCase()}.execute-api.${region}.amazonaws.com`,
    executionArn: `arn:aws:execute-api:${region}:${accountId}:${name.toLowerCase()}`,
    streamArn: `${arn}/stream/2030-01-01T00:00:00.000`,
    base64: Buffer.alloc(32, 7).toString("base64"),
    version: "1",
    ...(type === "aws:apigateway/account:Account" && { cloudwatchRoleArn: `arn:aws:iam::${accountId}:role/logs` }),
  };
}

/** What AWS would answer to a question. */
function answered(token: string, inputs: Readonly<Record<string, unknown>>, quota: number): Record<string, unknown> {
  const name = token.split(":").at(-1);
  if (name === "getRegion") return { region, name: region };
  if (name === "getCallerIdentity") return { accountId };
  if (name === "getPartition") return { partition: "aws" };
  if (name === "getServiceQuota") return { ...inputs, value: quota };
  if (name === "getPolicyDocument") return { ...inputs, json: JSON.stringify(inputs) };
  throw new Error(`the deployment asks AWS for ${token}, which the test does not know`);
}

/** The part of SST's command line that components call: it hands over the code of functions. */
async function startCommandLine({ out, bundles }: Options) {
  const empty = join(out, "empty");
  mkdirSync(empty, { recursive: true });
  writeFileSync(join(empty, "bundle.mjs"), "");
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const call = JSON.parse(Buffer.concat(chunks).toString()) as { method: string; params: [Build] };
    const answer = await answerOf(call).catch((error: Error) => ({ error: error.message }));
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify(answer));
  });
  async function answerOf({ method, params: [input] }: { method: string; params: [Build] }) {
    if (method === "Provider.Aws.Bootstrap") return { result: { asset: "sst-asset", state: "sst-state" } };
    if (method !== "Runtime.Build") return { error: `rpc: can't find ${method}` };
    return { result: { out: bundles ? input.bundle : empty, handler: input.handler, errors: [], sourcemaps: [] } };
  }
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  process.env.SST_SERVER = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return server;
}

export async function record(platform: () => Promise<Platform>, options: Options): Promise<void> {
  const { root, stage, out } = options;
  for (const [name, value] of Object.entries(options.secrets)) process.env[`SST_SECRET_${name}`] = value;
  const server = await startCommandLine(options);
  const globals = globalThis as unknown as Record<string, unknown>;
  globals.$dev = false;
  globals.$cli = {
    command: options.bundles ? "deploy" : "refresh",
    rpc: "",
    backend: "",
    env: {},
    paths: { home: out, root, work: out, platform: join(root, ".sst/platform") },
    state: { version: {} },
  };
  globals.$app = { name: "waggle", stage, removal: "retain", protect: false, providers: {} };
  const { pulumi, aws, components, shim, run, config } = await platform();
  Object.assign(globals, shim, { aws, sst: components });
  const resources: Resource[] = [];
  await pulumi.runtime.setMocks(
    {
      newResource({ type, name, inputs }: { type: string; name: string; inputs: Inputs }) {
        resources.push({ type, name, inputs });
        return { id: `${name}-id`, state: made(type, name, inputs) };
      },
      call: ({ token, inputs }: { token: string; inputs: Record<string, unknown> }) =>
        answered(token, inputs, options.concurrencyQuota),
    },
    "waggle",
    stage,
    false,
  );
  const settings = await config();
  const app = await settings.app({ stage });
  globals.$app = { ...(globals.$app as object), ...app };
  let outputs: Record<string, unknown> = {};
  await pulumi.runtime.runInPulumiStack(async () => {
    const returned = await run(settings.run);
    await new Promise<void>((resolve) =>
      pulumi.output(returned).apply((value: Record<string, unknown>) => {
        outputs = value;
        resolve();
      }),
    );
    return returned;
  });
  await pulumi.runtime.disconnect();
  server.close();
  const graph: Graph = { resources, outputs, app };
  writeFileSync(join(out, "graph.json"), JSON.stringify(graph));
}
