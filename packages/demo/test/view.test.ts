import type { WaggleEvent } from "@waggle/sdk";
import { describe, expect, it } from "vitest";
import { createTracker, type Incident } from "../src/fleet/track.ts";
import { bar, cut, fit, paint, wantsColors, width } from "../src/ui/text.ts";
import { healedText, progressLine, type State, screen } from "../src/ui/view.ts";

const setup = () => {
  let time = 0;
  const healed: Incident[] = [];
  const tracker = createTracker({
    nameOf: (id) => ({ a: "one", b: "two" })[id] ?? id,
    changed: () => {},
    healed: (incident) => healed.push(incident),
    requeued: () => {},
    now: () => time,
  });
  let sequence = 0;
  const tell = (type: string, taskId: string, agentId?: string, data: Record<string, unknown> = {}) => {
    sequence += 1;
    tracker.apply({
      sequence,
      type: `task.${type}`,
      at: "",
      taskId,
      ...(agentId ? { agentId } : {}),
      data,
    } as WaggleEvent);
  };
  return { tracker, tell, healed, at: (next: number) => (time = next) };
};

describe("following a run", () => {
  it("tells a kill from its beginning to its end", () => {
    const { tracker, tell, healed, at } = setup();
    for (const id of ["1", "2"]) tracker.add({ ref: id, type: "languages", description: "" }, id, "queued");
    tell("started", "1", "a");
    at(1000);
    tracker.died("one", "a", 11, "killed (SIGKILL)");
    // Given to it a moment before it died, told a moment after.
    tell("assigned", "2", "a");
    tell("retried", "1", "a");
    tell("retried", "2", "a");
    tell("started", "1", "b");
    tell("completed", "1", "b");
    at(1500);
    tracker.back("a", 12);
    expect(healed).toEqual([]);
    tell("started", "2", "a");
    at(2500);
    tell("completed", "2", "a");
    expect(healed).toHaveLength(1);
    expect(healedText(healed[0]!)).toBe(
      "healed: one (pid 11) was killed (SIGKILL); its 2 tasks went back to the queue and were done by one (now pid 12) and two, all within 1.5 s; it was back after 500 ms",
    );
  });
  it("misses nothing that was told before it knew the task", () => {
    const { tracker, tell } = setup();
    tell("started", "9", "a");
    tell("progress", "9", "a", { percent: 40, message: "x" });
    tracker.add({ ref: "r", type: "tests", description: "" }, "9", "queued");
    expect(tracker.tasks.get("9")).toMatchObject({ status: "running", percent: 40 });
    expect(tracker.running("a")).toHaveLength(1);
  });
});

describe("the screen", () => {
  const state = (): State => {
    const { tracker, tell } = setup();
    for (let n = 0; n < 9; n += 1) tracker.add({ ref: `t${n}`, type: "languages", description: "" }, `t${n}`, "queued");
    tell("started", "t1", "a", {});
    tell("completed", "t2", "a", {});
    return {
      url: "http://127.0.0.1:1",
      repo: "名前のとても長いリポジトリ".repeat(5),
      startedAt: 0,
      phase: "planning",
      fleet: undefined,
      tracker,
      news: Array.from({ length: 20 }, (_, n) => ({
        at: n,
        text: `news ${n} \x1b[31m${"x".repeat(200)}`,
        tone: "plain" as const,
      })),
    };
  };
  it.each([
    [200, 60],
    [80, 24],
    [40, 10],
    [10, 3],
  ])("fits %i columns and %i rows", (columns, rows) => {
    const lines = screen(state(), { columns, rows }, paint(false), 1234);
    expect(lines.length).toBeLessThan(rows);
    if (columns >= 80) for (const line of lines) expect(width(line), line).toBeLessThan(columns);
    expect(lines.join("")).not.toContain("\x1b");
  });
  it("is one line for logs", () => {
    expect(progressLine(state(), 2000)).toBe("2.0 s  1 of 9 tasks done, 1 running (languages)");
  });
});

describe("text on a terminal", () => {
  it("is measured in columns, and cut there", () => {
    expect(width("aé漢字")).toBe(6);
    expect(cut("漢字漢字", 5)).toBe("漢字…");
    expect(fit("ab", 4)).toBe("ab  ");
    expect(cut("a\x1b[2Jb\n", 20)).toBe("a\\u001b[2Jb\\n");
  });
  it("has bars of exactly their length", () => {
    for (const share of [-1, 0, 0.01, 0.33, 0.999, 1, 2]) expect(width(bar(share, 10, paint(false)))).toBe(10);
  });
  it("has no colours for NO_COLOR, pipes and dumb terminals", () => {
    expect(wantsColors({ isTTY: true }, {})).toBe(true);
    expect(wantsColors({ isTTY: true }, { NO_COLOR: "1" })).toBe(false);
    expect(wantsColors({ isTTY: true }, { NO_COLOR: "" })).toBe(true);
    expect(wantsColors({}, {})).toBe(false);
    expect(wantsColors({ isTTY: true }, { TERM: "dumb" })).toBe(false);
  });
});
