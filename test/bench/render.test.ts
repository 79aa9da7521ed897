import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { rendered, shortTable } from "../../bench/render.ts";
import { type Results, summarise } from "../../bench/results.ts";
import { root } from "../support/root.ts";

describe("published figures", () => {
  test.each(rendered().map(({ file, content }) => [file, content]))(
    "%s shows what the results say; else `npm run bench -- render`",
    (file, content) => {
      expect(readFileSync(join(root, file as string), "utf8")).toBe(content);
    },
  );

  test("say of a system that acknowledges early that it does", () => {
    const lines = summarise(
      new Map([
        [
          "W1/waggle",
          [
            { p50: 2, p99: 4 },
            { p50: 1, p99: 9 },
            { p50: 3, p99: 5 },
          ],
        ],
        ["W1/early", [{ p50: 0.5, p99: 1 }]],
      ]),
      ["waggle", "early"],
    );
    const results: Results = {
      at: "2026-01-02T00:00:00.000Z",
      machine: { cpu: "one", cpus: 2, gib: 8, kernel: "6", node: "v20.0.0", load: 0 },
      method: "",
      systems: [
        { id: "waggle", label: "Waggle, over HTTP by the SDK", durability: "on disk", notes: [] },
        { id: "early", label: "Early 1.0", durability: "in memory", notes: [] },
      ],
      floor: { flushP50: 0.1, flushP99: 1, postP50: 0.2, postP99: 1, postsPerSecond: 9 },
      lines,
    };
    const table = shortTable(results);
    expect(table).toContain("| **Waggle** | 2 / 5 |");
    expect(table).toContain("| Early * | 0.50 / 1 |");
    expect(table).toContain("\\* acknowledges before the task is on disk: in memory.");
  });
});
