import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { expect, test } from "vitest";

const entry = fileURLToPath(new URL("../src/browser.ts", import.meta.url));

test("the browser's client carries nothing of Node, no package, and little weight", async () => {
  const { metafile, outputFiles } = await build({
    entryPoints: [entry],
    bundle: true,
    minify: true,
    write: false,
    metafile: true,
    format: "esm",
    platform: "browser",
    external: ["node:*"],
  });
  const foreign = Object.keys(metafile.inputs).filter((path) => !path.includes("packages/sdk/src/"));
  expect(foreign).toEqual([]);
  const [output] = outputFiles;
  expect(output?.text).not.toMatch(/from\s*"node:|import\("/);
  expect(output?.contents.length).toBeLessThan(17_250);
});
