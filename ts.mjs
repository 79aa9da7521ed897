// Runs a TypeScript file on any Node 20 or later: node ts.mjs path/to/file.ts [arguments]
// Only our own file is compiled; every package is loaded as it ships, from its dist folder.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, renameSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { buildSync } from "esbuild";

const [, , file, ...args] = process.argv;
if (file === undefined) {
  console.error("usage: node ts.mjs path/to/file.ts [arguments]");
  process.exit(2);
}
const root = fileURLToPath(new URL(".", import.meta.url));
const { outputFiles } = buildSync({
  entryPoints: [resolve(root, file)],
  bundle: true,
  write: false,
  platform: "node",
  format: "esm",
  target: "node20",
  packages: "external",
  sourcemap: "inline",
  logLevel: "error",
});
const code = outputFiles[0].contents;
const cache = join(root, ".cache");
const name = `${basename(file, ".ts")}-${createHash("sha256").update(code).digest("hex").slice(0, 16)}.mjs`;
const target = join(cache, name);
if (!existsSync(target)) {
  mkdirSync(cache, { recursive: true });
  // Several processes may do this at once: a rename is seen whole or not at all.
  writeFileSync(`${target}.${process.pid}`, code);
  renameSync(`${target}.${process.pid}`, target);
}
// On Node 20 the AWS SDK warns of its versions to come, in every process; the lock file says which is used.
process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= "true";
process.setSourceMapsEnabled(true);
process.argv = [process.argv[0], resolve(root, file), ...args];
await import(pathToFileURL(target).href);
