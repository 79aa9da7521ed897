import { expect, test, vi } from "vitest";
import { report } from "../../functions/support/lambda.ts";

test("a function's log is lines of JSON, in which keys, tokens and secrets are cut", () => {
  const lines: string[] = [];
  const out = vi.spyOn(process.stdout, "write").mockImplementation((line) => lines.push(String(line)) > 0);
  const secret = `wgk_${"x".repeat(27)}`;
  report("api req_1", new Error(`no route for\n${secret}`, { cause: new Error(`at ${secret}`) }));
  report("timers", `nothing but ${secret}`);
  out.mockRestore();
  expect(lines.join("")).not.toContain(secret);
  expect(lines.map((line) => JSON.parse(line))).toMatchObject([
    { level: "ERROR", component: "api req_1", message: "no route for\nwgk_…", cause: "Error: at wgk_…" },
    { level: "ERROR", component: "timers", message: "nothing but wgk_…" },
  ]);
});
