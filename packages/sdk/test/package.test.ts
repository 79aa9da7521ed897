import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const sdk = fileURLToPath(new URL("..", import.meta.url));
const modules = join(sdk, "../../node_modules");

/** What a user types, with a mistake the compiler has to find. */
const program = `
import { createAgent, createClient, type Task } from "@waggle/sdk";
import { createClient as inBrowser } from "@waggle/sdk/browser";

const client = createClient({ url: "http://127.0.0.1:9" });
export const make = (): Promise<Task> => client.tasks.create({ type: "sum", input: { a: 1 }, priority: 7 });
export const sum = () => client.tasks.run<number>({ type: "sum", requires: [{ capability: "sum", minLevel: 0.5 }] });
export const half = async (): Promise<number> => (await sum()) / 2;
export const agent = createAgent({ name: "a", capabilities: ["sum"], handlers: { sum: async ({ input }) => input.a + 1 } });
// @ts-expect-error a priority is a number
export const wrong = () => client.tasks.create({ type: "sum", priority: "high" });
console.log(typeof client.tasks.run, typeof agent.start, typeof inBrowser);
`;

test("the package, as npm would publish it, compiles and runs in a project of its own", () => {
  const project = mkdtempSync(join(tmpdir(), "waggle-package-"));
  try {
    const [packed] = JSON.parse(
      execFileSync("npm", ["pack", "--json", "--pack-destination", project], { cwd: sdk, encoding: "utf8" }),
    ) as { filename: string }[];
    const own = join(project, "node_modules/@waggle/sdk");
    mkdirSync(own, { recursive: true });
    execFileSync("tar", ["-xzf", join(project, packed?.filename ?? ""), "-C", own, "--strip-components=1"]);
    for (const name of ["ws", "zod", "@types"]) symlinkSync(join(modules, name), join(project, "node_modules", name));
    writeFileSync(join(project, "program.ts"), program);
    writeFileSync(join(project, "package.json"), '{"type":"module"}');
    const strict = ["--strict", "--module", "nodenext", "--target", "es2022", "--types", "node", "--outDir", "out"];
    const tsc = join(modules, "typescript/bin/tsc");
    const compiled = spawnSync(process.execPath, [tsc, ...strict, "program.ts"], { cwd: project, encoding: "utf8" });
    expect(`${compiled.stdout}${compiled.stderr}${compiled.signal ?? ""}`).toBe("");
    expect(compiled.status).toBe(0);
    const ran = execFileSync(process.execPath, ["out/program.js"], { cwd: project, encoding: "utf8" });
    expect(ran.trim()).toBe("function function function");
  } finally {
    rmSync(project, { recursive: true, force: true });
  }
}, 60_000);
