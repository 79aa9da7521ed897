// Writes the declarations of the package as it is published, dist/types. npm runs it before it packs.
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const out = join(here, "dist/types");
const tsc = join(createRequire(import.meta.url).resolve("typescript/package.json"), "../bin/tsc");

/** Files that a declaration names and that are not there. */
function missing() {
  const found = [];
  for (const name of readdirSync(out, { recursive: true }).filter((each) => each.endsWith(".d.ts"))) {
    const path = join(out, name);
    for (const [, from] of readFileSync(path, "utf8").matchAll(/from "(\.[^"]*)\.ts"/g)) {
      const named = join(dirname(path), `${from}.d.ts`);
      if (!existsSync(named)) found.push(relative(out, named));
    }
  }
  return found;
}

// TypeScript 7 was seen to leave files out on a busy machine and to say nothing of it; why is not known.
for (let tries = 3; ; tries--) {
  rmSync(out, { recursive: true, force: true });
  execFileSync(process.execPath, [tsc, "-p", join(here, "tsconfig.types.json")], { stdio: "inherit" });
  const lost = missing();
  if (lost.length === 0) break;
  if (tries === 1) throw new Error(`TypeScript did not write ${lost.join(", ")}`);
}

// Shapes are declared once, as schemas in core. Their declarations come along, so that the package needs no other.
const own = join(out, "sdk/src");
for (const name of readdirSync(own, { recursive: true }).filter((each) => each.endsWith(".d.ts"))) {
  const path = join(own, name);
  const toCore = `${relative(dirname(path), join(out, "core/src"))}/`;
  const text = readFileSync(path, "utf8")
    .replaceAll('"@waggle/core"', `"${toCore}index.ts"`)
    .replaceAll('"@waggle/core/transfer"', `"${toCore}transfer/index.ts"`);
  writeFileSync(path, text);
}
