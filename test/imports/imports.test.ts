import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { expect, test } from "vitest";
import { root } from "../support/root.ts";

/** What each part may import of ours. What is not named here may import nothing of ours. */
const allowed: Readonly<Record<string, readonly string[]>> = {
  core: [],
  "engine-embedded": ["core"],
  "engine-aws": ["core"],
  edge: ["core"],
  outbound: ["core"],
  api: ["core"],
  local: ["core", "edge", "api", "engine-embedded", "outbound"],
  sdk: ["core (types)"],
  functions: ["core", "edge", "api", "engine-aws", "outbound", "cli"],
  cli: ["core", "local", "sdk"],
  demo: ["core", "local", "sdk"],
  test: [
    "core",
    "edge",
    "api",
    "engine-embedded",
    "engine-aws",
    "outbound",
    "local",
    "sdk",
    "cli",
    "demo",
    "infra",
    "bench",
    "functions",
  ],
  bench: ["core", "edge", "api", "engine-embedded", "engine-aws", "test", "sdk", "infra"],
};
/** Packages of others; a part that is not named may use those of its package.json. */
const vendors: Readonly<Record<string, readonly string[]>> = { core: ["zod"], sdk: ["ws"], edge: [] };

interface Import {
  readonly from: string;
  readonly to: string;
  readonly typeOnly: boolean;
}

function sources(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory())
      return entry.name.startsWith(".") || ["node_modules", "dist"].includes(entry.name) ? [] : sources(path);
    return /\.(ts|tsx|mjs)$/.test(entry.name) ? [path] : [];
  });
}

const statement =
  /^\s*(import|export)\s+(type\s)?(?:[^;"'`]*?\sfrom\s+)?["']([^"']+)["']|\bimport\(\s*["']([^"']+)["']\s*\)/gm;

function importsOf(file: string): Import[] {
  const text = readFileSync(file, "utf8").replace(/\/\*[\s\S]*?\*\//g, "");
  return [...text.matchAll(statement)].map((match) => ({
    from: file,
    to: match[3] ?? (match[4] as string),
    typeOnly: match[2] !== undefined,
  }));
}

/** `packages/core/src/x.ts` → core, `test/e2e/x.ts` → test. */
function partOf(file: string): string {
  const [first = "", second = ""] = relative(root, file).split("/");
  return first === "packages" ? second : first;
}
const isTest = (file: string) => /\.test\.tsx?$/.test(file) || /packages\/[^/]+\/test\//.test(file);

const files = ["packages", "functions", "infra", "test", "bench"].flatMap((folder) => sources(join(root, folder)));
const imports = files.flatMap(importsOf);
const shown = ({ from, to }: Import) => `${relative(root, from)} → ${to}`;

function partReached({ from, to }: Import): string | undefined {
  if (to.startsWith("@waggle/")) return to.split("/")[1];
  return to.startsWith(".") ? partOf(resolve(dirname(from), to)) : undefined;
}

test("finds the imports it is to judge", () => {
  const core = (part: string) => imports.some((entry) => partOf(entry.from) === part && partReached(entry) === "core");
  expect(files.length).toBeGreaterThan(50);
  expect(["api", "engine-embedded", "local"].filter((part) => !core(part))).toEqual([]);
});

test("imports point inwards only: core ← engines, api, edge ← functions, local ← cli, test, bench", () => {
  const wrong = imports.filter((entry) => {
    const [part, reached] = [partOf(entry.from), partReached(entry)];
    if (reached === undefined || reached === part) return false;
    const may = allowed[part] ?? [];
    if (may.includes(reached) || (entry.typeOnly && may.includes(`${reached} (types)`))) return false;
    // A package's own tests may start the real system around it.
    return (
      !(isTest(entry.from) && (allowed.test ?? []).includes(reached)) && !(isTest(entry.from) && reached === "test")
    );
  });
  expect(wrong.map(shown)).toEqual([]);
});

test("core needs zod and nothing else, the SDK no package but ws, and AWS packages are its engine's and outbound's", () => {
  const wrong = imports.filter((entry) => {
    if (isTest(entry.from) || entry.to.startsWith(".") || entry.to.startsWith("@waggle/")) return false;
    const part = partOf(entry.from);
    // A function chooses what of an engine's clients it carries, and what tests or measures a deployment is no part of what runs.
    const may =
      ["engine-aws", "outbound", "functions", "test", "bench"].includes(part) || entry.to.startsWith("@pulumi/");
    if (entry.to.includes("aws") && !may && !entry.typeOnly) return true;
    const mayUse = vendors[part];
    if (mayUse === undefined || entry.typeOnly) return false;
    // The domain reaches the world by its ports alone.
    if (entry.to.startsWith("node:")) return part === "core" && entry.to !== "node:crypto";
    return !mayUse.includes(entry.to.split("/")[0] as string);
  });
  expect(wrong.map(shown)).toEqual([]);
});

test("no two files need each other at run time", () => {
  const edges = new Map<string, string[]>();
  for (const entry of imports) {
    if (entry.typeOnly || !entry.to.startsWith(".")) continue;
    const target = resolve(dirname(entry.from), entry.to);
    // `export * as Task from "./index.ts"` is how a module names itself.
    if (target !== entry.from) edges.set(entry.from, [...(edges.get(entry.from) ?? []), target]);
  }
  const cycles = new Set<string>();
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]) => {
    const at = path.indexOf(file);
    if (at >= 0) cycles.add([...path.slice(at), file].map((step) => relative(root, step)).join(" → "));
    if (at >= 0 || done.has(file)) return;
    for (const next of edges.get(file) ?? []) visit(next, [...path, file]);
    done.add(file);
  };
  for (const file of edges.keys()) visit(file, []);
  expect([...cycles]).toEqual([]);
});

test("a file imports only packages that its own package.json names, of those it is developed with only types", () => {
  const manifests = new Map<string, { runs: Set<string>; builds: Set<string> }>();
  const named = (folder: string) => {
    const manifest = JSON.parse(readFileSync(join(root, folder, "package.json"), "utf8"));
    const { dependencies, peerDependencies, optionalDependencies, devDependencies = {} } = manifest;
    return {
      runs: new Set(Object.keys({ ...dependencies, ...peerDependencies, ...optionalDependencies })),
      builds: new Set(Object.keys(devDependencies)),
    };
  };
  const wrong = imports.filter((entry) => {
    if (!relative(root, entry.from).startsWith("packages/") || isTest(entry.from)) return false;
    if (entry.to.startsWith(".") || entry.to.startsWith("node:")) return false;
    const part = partOf(entry.from);
    const manifest = manifests.get(part) ?? named(`packages/${part}`);
    manifests.set(part, manifest);
    const name = entry.to.startsWith("@")
      ? entry.to.split("/").slice(0, 2).join("/")
      : (entry.to.split("/")[0] as string);
    if (name === `@waggle/${part}` || manifest.runs.has(name)) return false;
    return !(entry.typeOnly && (name === "zod" || manifest.builds.has(name)));
  });
  expect(wrong.map(shown)).toEqual([]);
});
