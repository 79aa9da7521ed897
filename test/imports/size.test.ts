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
