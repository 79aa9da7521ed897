import { join } from "node:path";
import { build } from "esbuild";
import { expect, test } from "vitest";
import { root } from "../support/root.ts";

test("the API with all it needs stays below 500 KB, so that a function with it starts quickly", async () => {
  const { metafile, outputFiles } = await build({
    entryPoints: [join(root, "packages/api/src/app.ts")],
    absWorkingDir: root,
    bundle: true,
    minify: true,
    write: false,
    metafile: true,
    platform: "node",
    format: "esm",
    conditions: ["source"],
  });
  expect(outputFiles[0]?.contents.length).toBeLessThan(500_000);
  // What an engine brings is not the API's.
  expect(Object.keys(metafile.inputs).filter((path) => /lmdb|msgpackr|engine-/.test(path))).toEqual([]);
});

test("the API with the engine on AWS stays below 505 KB, and loads the rarer clients only when they are used", async () => {
  const { metafile } = await build({
    stdin: {
      contents: `export { createApp } from "@waggle/api"; export { configFromEnv, createAws } from "@waggle/engine-aws";`,
      resolveDir: root,
    },
    absWorkingDir: root,
    bundle: true,
    minify: true,
    splitting: true,
    write: false,
    metafile: true,
    platform: "node",
    format: "esm",
    outdir: "bundle",
  });
  // What starts with the function: the entry, and what it imports before it runs.
  const started = new Set<string>();
  const follow = (path: string) => {
    if (started.has(path)) return;
    started.add(path);
    for (const { path: next, kind } of metafile.outputs[path]?.imports ?? []) {
      if (kind === "import-statement" && metafile.outputs[next]) follow(next);
    }
  };
  follow("bundle/stdin.js");
  const bytes = [...started].reduce((sum, path) => sum + (metafile.outputs[path]?.bytes ?? 0), 0);
  expect(bytes).toBeGreaterThan(300_000);
  expect(bytes).toBeLessThan(505 * 1024);
  const rare = [...started].flatMap((path) => Object.keys(metafile.outputs[path]?.inputs ?? {}));
  expect(rare.filter((path) => /engine-aws.dist.(sdk|open|resources)/.test(path))).toEqual([]);
});
