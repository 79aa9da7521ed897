// Bundles every package to its dist folder. Run by npm when it installs, and by hand after a change: node build.mjs
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = fileURLToPath(new URL(".", import.meta.url));
const common = {
  absWorkingDir: root,
  bundle: true,
  format: "esm",
  target: "es2022",
  sourcemap: true,
  sourcesContent: false,
  outExtension: { ".js": ".mjs" },
  logLevel: "warning",
};
const node = { ...common, platform: "node", target: "node20" };

// Libraries find each other as packages, so that one process holds each of them once.
const libraries = readdirSync(`${root}packages`).filter(
  (name) => !["sdk", "cli", "engine-aws"].includes(name) && existsSync(`${root}packages/${name}/src/index.ts`),
);
const library = (entry, outdir, more = {}) =>
  build({ ...node, entryPoints: [entry].flat(), outdir, splitting: true, packages: "external", ...more });

// A program is whole in itself, server and all, so that it starts without looking for files: only native code stays
// outside. Rare parts are chunks of their own, loaded when they are needed.
const program = async (entryPoints, outdir) => {
  const { metafile } = await build({
    ...node,
    metafile: true,
    entryPoints,
    outdir,
    chunkNames: "chunk/[name]-[hash]",
    splitting: true,
    minifySyntax: true,
    minifyWhitespace: true,
    conditions: ["source"],
    external: ["lmdb", "bufferutil", "utf-8-validate"],
    banner: {
      js: 'import { createRequire as __createRequire } from "node:module"; const require = __createRequire(import.meta.url);',
    },
  });
  // Chunks are named by their content: those of earlier builds go once the new ones stand.
  const current = new Set(Object.keys(metafile.outputs).map((path) => path.split("/").at(-1)));
  const chunks = `${root}${outdir}/chunk`;
  for (const name of existsSync(chunks) ? readdirSync(chunks) : []) if (!current.has(name)) rmSync(`${chunks}/${name}`);
};

// The engine on AWS holds the clients it needs, so that a function is small whoever bundles it. Rare parts are files without
// ties to the others: what a bundler would have them share with those, every function would load at its start.
const engineAws = () => {
  rmSync(`${root}packages/engine-aws/dist`, { recursive: true, force: true });
  const part = (entry, lean) =>
    build({
      ...node,
      minify: true,
      legalComments: "none",
      splitting: true,
      entryPoints: { [entry]: `packages/engine-aws/src/${entry}.ts` },
      outdir: "packages/engine-aws/dist",
      chunkNames: "chunk/[name]-[hash]",
      // Their ES modules: what is not used falls away.
      mainFields: ["module", "main"],
      conditions: ["module"],
      external: ["@waggle/*"],
      plugins: lean ? [withoutIdleParts] : [],
    });
  const idle = {
    // Where credentials come from is ours to say, and the chain a part of its own.
    "@aws-sdk/credential-provider-node":
      'export const defaultProvider = () => { throw new Error("clients are given credentials"); };',
    // Off unless it is asked for, and nobody asks.
    "@aws-sdk/middleware-endpoint-discovery": `export const resolveEndpointDiscoveryConfig = (config) => config;
       const none = () => undefined;
       export const NODE_ENDPOINT_DISCOVERY_CONFIG_OPTIONS = { environmentVariableSelector: none, configFileSelector: none };`,
  };
  const withoutIdleParts = {
    name: "without-idle-parts",
    setup({ onResolve, onLoad }) {
      onResolve({ filter: /^@aws-sdk/ }, ({ path }) => (path in idle ? { path, namespace: "idle" } : undefined));
      // Of its whole manifest a client wants to know its version.
      onLoad({ filter: /@aws-sdk.client-[a-z0-9-]+.package\.json$/ }, ({ path }) => ({
        contents: JSON.stringify({ version: JSON.parse(readFileSync(path, "utf8")).version }),
        loader: "json",
      }));
      onLoad({ filter: /.*/, namespace: "idle" }, ({ path }) => ({ contents: idle[path] }));
    },
  };
  const parts = ["index", "open", "resources", "sdk/events", "sdk/queues", "sdk/s3", "sdk/sockets", "sdk/streams"];
  return [...parts.map((entry) => part(entry, true)), part("sdk/credentials", false)];
};

await Promise.all([
  ...libraries.map((name) =>
    name === "core"
      ? library(
          ["index", "audit/index", "transfer/index"].map((entry) => `packages/core/src/${entry}.ts`),
          "packages/core/dist",
        )
      : library(`packages/${name}/src/index.ts`, `packages/${name}/dist`),
  ),
  ...engineAws(),
  library("packages/sdk/src/node.ts", "packages/sdk/dist"),
  build({ ...common, platform: "browser", entryPoints: ["packages/sdk/src/browser.ts"], outdir: "packages/sdk/dist" }),
  program(["packages/cli/src/main.ts"], "packages/cli/dist"),
  program(["packages/demo/src/start.ts", "packages/demo/src/agent.ts"], "packages/demo/dist"),
]);
