import { randomBytes } from "node:crypto";
import { parseArgs } from "node:util";
import { Key } from "@waggle/core";
import { createResources, deleteResources, openAws } from "@waggle/engine-aws";
import { serve } from "@waggle/local";
import { createOutbound, outboundFromEnv } from "@waggle/outbound";
import manifest from "../../packages/cli/package.json" with { type: "json" };
import { openLocalStack } from "./localstack.ts";

const help = `npm run dev:localstack [-- --port 9244]

The whole system on LocalStack, in one process: table, queues, bus and bucket there, the API and every handler here.
LocalStack is the one AWS_ENDPOINT_URL names; else its image in Docker, when LOCALSTACK_AUTH_TOKEN or LOCALSTACK_IMAGE is
set; else its open core, installed into .cache (see docs/localstack.md). Ctrl-C stops it and removes all it made.`;

/** Each is a poll that is always out, and LocalStack a single process. */
const deliveries = 16;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: { help: { type: "boolean", default: false }, port: { type: "string", default: "9244" } },
  });
  if (values.help) {
    console.log(help);
    return 0;
  }
  const interrupted = new Promise<void>((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      // What is there ends a test at once; here is something to take away first.
      process.removeAllListeners(signal);
      process.once(signal, () => resolve());
    }
  });
  // The SDK wants some; LocalStack takes any.
  process.env.AWS_ACCESS_KEY_ID ??= "test";
  process.env.AWS_SECRET_ACCESS_KEY ??= "test";
  const localstack = await openLocalStack({ env: process.env, log: console.log });
  if ("lack" in localstack) {
    console.error(localstack.lack);
    return 1;
  }
  const config = await createResources({
    prefix: `waggle-dev-${randomBytes(4).toString("hex")}`,
    endpoint: localstack.endpoint,
  });
  let url: string | undefined;
  const secret = randomBytes(32).toString("base64url");
  const outbound = createOutbound({
    publicUrl: () => url,
    secretKey: () => secret,
    allowLoopbackTargets: true,
    ...outboundFromEnv(process.env),
  });
  const engine = await openAws(config, { outbound });
  try {
    const served = await serve(engine, {
      port: Number(values.port),
      version: manifest.version,
      log: console.error,
      deliveries,
    });
    try {
      const key = await Key.bootstrap(engine.ports);
      url = served.url;
      served.deliver();
      console.log(`
Waggle ${manifest.version} is ready on ${localstack.what} (${localstack.endpoint})

  API    ${url}
  Docs   ${url}/docs
  Table  ${config.table}

In another terminal, for the command and the SDK:

  export WAGGLE_URL=${url} WAGGLE_API_KEY=${key}
`);
      await interrupted;
      console.log("\nStopping, and removing what was made");
    } finally {
      await served.stop(() => outbound.close());
    }
  } finally {
    await engine.close();
    await deleteResources(config);
    await localstack.end();
  }
  return 0;
}

process.exitCode = await main();
