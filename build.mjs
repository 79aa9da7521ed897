// Bundles every package to its dist folder. Run by npm when it installs, and by hand after a change: node build.mjs
import { existsSync, readdirSync, rmSync } from "node:fs";
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
  (name) => name !== "sdk" && name !== "cli" && existsSync(`${root}packages/${name}/src/index.ts`),
);
const library = (entry, outdir, more = {}) =>
  build({ ...node, entryPoints: [entry], outdir, splitting: true, packages: "external", ...more });

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

await Promise.all([
  ...libraries.map((name) => library(`packages/${name}/src/index.ts`, `packages/${name}/dist`)),
  library("packages/sdk/src/node.ts", "packages/sdk/dist"),
  build({ ...common, platform: "browser", entryPoints: ["packages/sdk/src/browser.ts"], outdir: "packages/sdk/dist" }),
  program(["packages/cli/src/main.ts"], "packages/cli/dist"),
  program(["packages/demo/src/start.ts", "packages/demo/src/agent.ts"], "packages/demo/dist"),
]);
