// Bundles the Lambda functions to dist/functions: node functions/build.mjs [folder]
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";

const root = fileURLToPath(new URL("..", import.meta.url));

const common = {
  absWorkingDir: root,
  bundle: true,
  splitting: true,
  minify: true,
  metafile: true,
  platform: "node",
  format: "esm",
  target: "es2024",
  mainFields: ["module", "main"],
  // What our packages are written in.
  conditions: ["source", "module"],
  outExtension: { ".js": ".mjs" },
  logLevel: "warning",
};

/** Clients few calls need: bundles of their own, loaded on first use. What they share with others is there twice, and not in the way. */
const rare = {
  "@aws-sdk/client-s3": "s3",
  "@aws-sdk/client-lambda": "lambda",
  "@aws-sdk/client-apigatewaymanagementapi": "connections",
  "@aws-sdk/client-dynamodb-streams": "streams",
};

/** What a module exports, bundled here and now. */
async function exportsOf(contents) {
  const stdin = { contents, resolveDir: root, loader: "ts" };
  const { outputFiles } = await build({ ...common, stdin, splitting: false, write: false });
  const file = join(root, ".cache", `functions-${process.pid}.mjs`);
  mkdirSync(join(root, ".cache"), { recursive: true });
  writeFileSync(file, outputFiles[0].contents);
  return import(pathToFileURL(file).href).finally(() => rmSync(file));
}

const lean = (name) => join(root, `functions/lean/${name}.ts`);

/** Of core, by name: the file each is made in. */
const namespaces = new Map(
  Array.from(
    readFileSync(join(root, "packages/core/src/index.ts"), "utf8").matchAll(
      /^export \{ (\w+) \} from "\.\/(\w+\/index\.ts)";$/gm,
    ),
    ([, name, path]) => [name, path],
  ),
);

/** Of files below a folder: what esbuild cannot see that a function does not need. */
const rewrites = [
  // Of a namespace that another module exports everything is kept; of one made here, what is used.
  [
    "/",
    (source) =>
      source.replace(/^import \{([^}]*)\} from "@waggle\/core";$/gm, (_, list) => {
        const names = list.split(",").map((name) => name.trim());
        const own = names.filter((name) => namespaces.has(name));
        const others = names.filter((name) => !namespaces.has(name));
        return [
          ...own.map((name) => `import * as ${name} from "@waggle/core/${namespaces.get(name)}";`),
          `import { ${others.join(", ")} } from "@waggle/core";`,
        ].join(" ");
      }),
  ],
  // Making a schema changes nothing: one that nobody uses goes.
  [
    "/packages/core/src/",
    (source) => {
      if (!source.includes('from "zod/mini"')) return source;
      const makers = /(?<![\w.])(z(\.\w+)+|integer|jsonText|name|number|pageLimit|text)\(/g;
      const code = /^(?!\s*(\/\*|\*|\/\/)).*$/gm;
      return source.replace(code, (line) => line.replace(makers, "/* @__PURE__ */ $&"));
    },
  ],
  // A function does not listen.
  ["/packages/api/src/index.ts", (source) => source.replace(/^export .* from "\.\/server\.ts";$/m, "")],
  // The words of the API's description and the schemas of its answers are in the text that is made of them, above.
  [
    "/packages/api/src/routes/",
    (source) =>
      source
        .replace(/\b(description:\s*"[^"]*"),\s*schema:\s*[\w.]+/g, "$1")
        .replace(/\b(summary|description):\s*"[^"]*"/g, '$1: ""'),
  ],
];

/** Leaves out of a function what it never uses. */
const slim = (openApi) => ({
  name: "slim",
  setup(plugins) {
    const aliases = {
      "@aws-sdk/credential-provider-node": lean("credentials"),
      "@aws-sdk/middleware-endpoint-discovery": lean("discovery"),
    };
    // Of its own package.json a client uses one line.
    plugins.onLoad({ filter: /@aws-sdk\/client-[^/]+\/package\.json$/ }, async ({ path }) => {
      const { version } = JSON.parse(await readFile(path, "utf8"));
      return { contents: JSON.stringify({ version }), loader: "json" };
    });
    plugins.onResolve({ filter: /^@aws-sdk\// }, ({ path, kind }) => {
      if (aliases[path]) return { path: aliases[path] };
      // A file of its own is reached from the files of the bundle, not from itself.
      if (kind !== "entry-point" && rare[path])
        return { path: `./rare/${rare[path]}.mjs`, external: true, sideEffects: false };
      return undefined;
    });
    // The text is the same for every request: made here, it needs none of what makes it.
    plugins.onLoad({ filter: /packages\/api\/src\/openapi\.ts$/ }, () => ({
      contents: `export const openApiText = () => ${JSON.stringify(openApi)};`,
    }));
    plugins.onLoad({ filter: /\/(packages|functions)\/.*\.ts$/ }, async ({ path }) => {
      const source = await readFile(path, "utf8");
      const slimmer = rewrites.filter(([where]) => path.includes(where));
      return { contents: slimmer.reduce((text, [, rewrite]) => rewrite(text), source), loader: "ts" };
    });
    plugins.onResolve({ filter: /^@waggle\/core\/\w+\/index\.ts$/ }, ({ path }) => ({
      path: join(root, path.replace("@waggle/core", "packages/core/src")),
      sideEffects: false,
    }));
    // As a module it opens stdin, stdout and stderr, which takes 6 ms; as a global it does not.
    plugins.onResolve({ filter: /^node:process$/ }, () => ({ path: lean("global-process") }));
    plugins.onResolve({ filter: /^@waggle\/engine-aws\/(open|resources)$/ }, () => ({ path: lean("process") }));
    // Our modules do nothing when they are loaded: what nobody imports from them is left out.
    plugins.onResolve({ filter: /^(@waggle\/|\.\.?\/.*\.ts$)/ }, async ({ path, pluginData, ...from }) => {
      if (pluginData === "asked") return undefined;
      const found = await plugins.resolve(path, { ...from, pluginData: "asked" });
      return found.errors.length > 0 ? found : { ...found, pluginData: undefined, sideEffects: false };
    });
  },
});

/** Bytes of the files that are loaded when the function starts, and of all. */
function sizes(metafile, entry) {
  const files = new Map(Object.entries(metafile.outputs).filter(([path]) => path.endsWith(".mjs")));
  const start = new Set([...files].filter(([, { entryPoint }]) => entryPoint === entry).map(([path]) => path));
  for (const path of start)
    for (const each of files.get(path).imports)
      if (each.kind !== "dynamic-import" && files.has(each.path)) start.add(each.path);
  const bytes = (paths) => [...paths].reduce((sum, path) => sum + files.get(path).bytes, 0);
  return { startBytes: bytes(start), allBytes: bytes(files.keys()) };
}

/**
 * One folder a function, `bundle.mjs` in each; and `sizes.json`: of each, `startBytes` are loaded when it starts, `allBytes`
 * is what is uploaded.
 */
async function buildFunctions(out = join(root, "dist/functions")) {
  const { functions, openApi } = await exportsOf(`
    import manifest from "./packages/cli/package.json";
    import { openApiText } from "./packages/api/src/openapi.ts";
    import { routes } from "./packages/api/src/routes/index.ts";
    export { functions } from "./infra/manifest.ts";
    export const openApi = openApiText(manifest.version, routes);
  `);
  const found = {};
  rmSync(out, { recursive: true, force: true });
  for (const name of Object.keys(functions)) {
    const folder = join(out, name);
    const entry = `functions/${name}.ts`;
    const own = await build({
      ...common,
      entryPoints: [{ in: entry, out: "bundle" }],
      outdir: folder,
      plugins: [slim(openApi)],
    });
    const wanted = Object.entries(rare).filter(([, file]) =>
      Object.values(own.metafile.outputs).some(({ imports }) =>
        imports.some(({ path }) => path.endsWith(`/${file}.mjs`)),
      ),
    );
    const more = await build({
      ...common,
      entryPoints: wanted.map(([path, file]) => ({ in: path, out: `rare/${file}` })),
      outdir: folder,
      chunkNames: "rare/[name]-[hash]",
      plugins: [slim(openApi)],
    });
    const required = Object.values(own.metafile.inputs)
      .flatMap(({ imports }) => imports)
      .find(({ kind, external }) => kind === "require-call" && external);
    if (required) throw new Error(`${name} requires ${required.path}, and a module has no require`);
    // What is said here is of something that will not run as it was written.
    if (own.warnings.length + more.warnings.length > 0) throw new Error(`${name} was built with warnings: see above`);
    const { startBytes, allBytes } = sizes(own.metafile, entry);
    found[name] = { startBytes, allBytes: allBytes + sizes(more.metafile, "").allBytes };
  }
  writeFileSync(join(out, "sizes.json"), JSON.stringify(found));
}

await buildFunctions(process.argv[2]);
