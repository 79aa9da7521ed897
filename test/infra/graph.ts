import { execFile } from "node:child_process";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { build } from "esbuild";
import { root } from "../support/root.ts";
import type { Graph, Options } from "./harness.ts";

const run = promisify(execFile);
const platform = join(root, ".sst/platform");

/** SST's own components and the AWS provider's types, installed by SST as a deployment would; once a checkout. */
export async function installPlatform(): Promise<void> {
  const wanted = JSON.parse(readFileSync(join(root, "node_modules/sst/package.json"), "utf8")) as { version: string };
  const marker = join(platform, "version");
  const current = existsSync(marker) && readFileSync(marker, "utf8").trim() === wanted.version;
  if (current && existsSync(join(platform, "node_modules/@pulumi/aws/package.json"))) return;
  // Without the first two it would fetch programs that nothing here runs.
  const env = {
    ...process.env,
    SST_SKIP_DEPENDENCY_CHECK: "1",
    SST_NO_BUN: "1",
    SST_TELEMETRY_DISABLED: "1",
    DO_NOT_TRACK: "1",
  };
  await run(join(root, "node_modules/.bin/sst"), ["install", "--stage", "test"], { cwd: root, env }).catch((error) => {
    throw new Error(`sst install: ${error.message}\n${error.stdout}\n${error.stderr}`);
  });
}

/** As SST installed it. */
const provider = "@pulumi/aws";

const entry = `
import { record } from "./test/infra/harness.ts";
const options = JSON.parse(process.argv[2]);
const platform = async () => ({
  pulumi: await import("@pulumi/pulumi"),
  aws: await import(${JSON.stringify(provider)}),
  components: await import("./.sst/platform/src/components/index.ts"),
  shim: await import("./.sst/platform/src/shim/run.js"),
  run: (await import("./.sst/platform/src/auto/run.ts")).run,
  config: async () => (await import("./sst.config.ts")).default,
});
await record(platform, options);
`;

/** What TypeScript finds wrong in sst.config.ts and infra/. */
export async function typesOf(): Promise<string> {
  const tsc = run(join(root, "node_modules/.bin/tsc"), ["-p", "infra"], { cwd: root, maxBuffer: 2 ** 26 });
  return await tsc.then(
    () => "",
    (error) => `${error.stdout}${error.stderr}`,
  );
}

let program: Promise<string> | undefined;

/** The harness, SST and our config as one file, beside the packages that SST installed: a second copy of Pulumi would not do. */
async function compile(): Promise<string> {
  const outfile = join(platform, ".graph/graph.mjs");
  await build({
    absWorkingDir: root,
    stdin: { contents: entry, resolveDir: root, sourcefile: "graph-entry.ts", loader: "ts" },
    outfile,
    bundle: true,
    platform: "node",
    format: "esm",
    target: "node20",
    packages: "external",
    sourcemap: "inline",
    logLevel: "error",
    banner: {
      js: 'import { createRequire as __createRequire } from "node:module"; const require = __createRequire(import.meta.url);',
    },
    plugins: [
      {
        name: "our-esbuild",
        setup(plugins) {
          const path = pathToFileURL(join(root, "node_modules/esbuild/lib/main.js")).href;
          plugins.onResolve({ filter: /^esbuild$/, namespace: "file" }, ({ importer }) =>
            importer.includes("/.sst/") ? undefined : { path, external: true },
          );
        },
      },
    ],
  });
  return outfile;
}

/** All that a deployment of a stage would make. */
export async function graphOf(options: Pick<Options, "stage"> & Partial<Options>): Promise<Graph & { out: string }> {
  program ??= compile();
  const out = join(root, ".cache/infra", `${options.stage}-${options.concurrencyQuota ?? ""}`);
  mkdirSync(out, { recursive: true });
  const all: Options = {
    root,
    out,
    concurrencyQuota: 1000,
    bundles: false,
    secrets: {
      AdminKey: "wgk_0123456789abcdefghijklmnopq",
      SecretKey: "a-secret-that-encrypts-secrets",
      AlarmEmail: "ops@example.com",
    },
    ...options,
  };
  await run(process.execPath, ["--enable-source-maps", await program, JSON.stringify(all)], {
    cwd: root,
    maxBuffer: 2 ** 26,
  }).catch((error) => {
    throw new Error(`${error.message}\n${error.stdout}\n${error.stderr}`);
  });
  return { ...(JSON.parse(readFileSync(join(out, "graph.json"), "utf8")) as Graph), out };
}
