import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { plotResults } from "../../bench/plot.ts";
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

  const measuredAs = (lines: Results["lines"]): Results => ({
    at: "2026-01-02T00:00:00.000Z",
    machine: { cpu: "one", cpus: 2, gib: 8, kernel: "6", node: "v20.0.0", load: 0 },
    method: "",
    systems: [
      { id: "waggle", label: "Waggle, over HTTP by the SDK", durability: "on disk", notes: [] },
      { id: "early", label: "Early 1.0", durability: "in memory", notes: [] },
    ],
    floor: { flushP50: 0.1, flushP99: 1, postP50: 0.2, postP99: 1, postsPerSecond: 9 },
    lines,
  });

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
    const table = shortTable(measuredAs(lines));
    expect(table).toContain("| **Waggle** | 2 / 5 |");
    expect(table).toContain("| Early * | 0.50 / 1 |");
    expect(table).toContain("\\* acknowledges before the task is on disk: in memory.");
  });

  test("say which systems could not be measured, and why", () => {
    const lines = summarise(new Map([["W1/waggle", [{ p50: 1, p99: 2 }]]]), ["waggle"]);
    const absent = [{ label: "Late 2.0", why: "it is built with Go, which is not installed" }];
    const said = "Late 2.0 is not measured: it is built with Go, which is not installed.";
    expect(shortTable({ ...measuredAs(lines), absent })).toContain(said);
    expect(shortTable(measuredAs(lines))).not.toContain("not measured");
  });

  test("say how a peer that is called by gRPC is called", () => {
    const results = measuredAs(summarise(new Map([["W1/waggle", [{ p50: 1, p99: 2 }]]]), ["waggle"]));
    const temporal = { id: "temporal", label: "Temporal 1.0, SQLite", durability: "on disk", notes: [] };
    const table = shortTable({ ...results, systems: [...results.systems, temporal] });
    expect(table).toContain("called over HTTP, Temporal by gRPC; the others'");
    expect(shortTable(results)).not.toContain("gRPC");
  });

  test("break off a bar beside which nothing would be seen of the others, and say so", () => {
    const plotted = (slowest: number) =>
      plotResults(
        measuredAs(
          summarise(
            new Map([
              ["W1/waggle", [{ p50: 1, p99: 4 }]],
              ["W1/early", [{ p50: 3, p99: slowest }]],
            ]),
            ["waggle", "early"],
          ),
        ),
      );
    expect(plotted(200)).toContain("longer than drawn");
    expect(plotted(200)).toContain("3 / 200");
    expect(plotted(12)).not.toContain("longer than drawn");
  });
});
