import { describe, expect, test } from "vitest";
import type { Strategy } from "../task/schema.ts";
import { type Candidate, choose, type Wish } from "./strategy.ts";

const agent = (id: string, more: Partial<Candidate> = {}): Candidate => ({
  id,
  capabilities: new Map([["x", { level: 1, cost: 0 }]]),
  labels: {},
  role: undefined,
  maxConcurrency: 10,
  used: 0,
  lastAssigned: 0,
  assigned: 0,
  completed: 0,
  failed: 0,
  busyMs: 0,
  ...more,
});
const skilled = (level: number, cost = 0) => new Map([["x", { level, cost }]]);
const wish: Wish = { requires: [{ capability: "x" }], labels: [] };
const winner = (strategy: Strategy, candidates: Candidate[], asked: Wish = wish, random = () => 0) =>
  choose(strategy, asked, candidates, random)?.agent.id;

describe("a strategy chooses", () => {
  test("best_fit: the more skilled, then the less loaded, then the more reliable", () => {
    expect(
      winner("best_fit", [agent("low", { capabilities: skilled(0.4) }), agent("high", { capabilities: skilled(0.9) })]),
    ).toBe("high");
    expect(winner("best_fit", [agent("busy", { used: 8 }), agent("idle")])).toBe("idle");
    expect(
      winner("best_fit", [agent("bad", { failed: 9, completed: 1 }), agent("good", { failed: 1, completed: 9 })]),
    ).toBe("good");
  });
  test("best_fit: a preferred label above skill, and a negative weight against it", () => {
    const labels = [{ key: "zone", op: "eq" as const, value: "a", required: false, weight: 5 }];
    const near = agent("near", { labels: { zone: "a" }, capabilities: skilled(0.5) });
    const far = agent("far", { labels: { zone: "b" }, capabilities: skilled(1) });
    expect(winner("best_fit", [far, near], { ...wish, labels })).toBe("near");
    expect(winner("best_fit", [far, near], { ...wish, labels: [{ ...labels[0]!, weight: -5 }] })).toBe("far");
  });
  test("least_loaded: the smallest share of slots in use, not the smallest number", () => {
    expect(
      winner("least_loaded", [
        agent("small", { maxConcurrency: 2, used: 1 }),
        agent("large", { maxConcurrency: 10, used: 3 }),
      ]),
    ).toBe("large");
  });
  test("round_robin: the one served longest ago", () => {
    expect(
      winner("round_robin", [
        agent("a", { lastAssigned: 5 }),
        agent("b", { lastAssigned: 3 }),
        agent("c", { lastAssigned: 4 }),
      ]),
    ).toBe("b");
  });
  test("weighted: by the label weight, three to one over four tasks", () => {
    const served: string[] = [];
    const counts: Record<string, number> = { heavy: 0, light: 0 };
    for (let i = 0; i < 4; i++) {
      const id = winner("weighted", [
        agent("heavy", { labels: { weight: 3 }, assigned: counts.heavy! }),
        agent("light", { labels: { weight: 1 }, assigned: counts.light! }),
      ])!;
      counts[id]!++;
      served.push(id);
    }
    expect(counts).toEqual({ heavy: 3, light: 1 });
  });
  test("cheapest: the lowest cost of what is required", () => {
    expect(
      winner("cheapest", [
        agent("dear", { capabilities: skilled(1, 5) }),
        agent("cheap", { capabilities: skilled(0.2, 1) }),
      ]),
    ).toBe("cheap");
  });
  test("fastest: the shortest average, and a newcomer gets its chance", () => {
    const slow = agent("slow", { completed: 10, busyMs: 10_000 });
    const quick = agent("quick", { completed: 10, busyMs: 1000 });
    expect(winner("fastest", [slow, quick])).toBe("quick");
    expect(winner("fastest", [slow, quick, agent("new")])).toBe("new");
  });
  test("random_two: the less loaded of two, so the fullest of many is not chosen", () => {
    const fleet = [agent("full", { used: 9 }), agent("b", { used: 1 }), agent("c", { used: 2 })];
    for (const seed of [0, 0.2, 0.4, 0.6, 0.8, 0.99])
      expect(winner("random_two", fleet, wish, () => seed)).not.toBe("full");
  });
  test("sticky: the agent that served the key before, under every strategy", () => {
    const fleet = [
      agent("better", { capabilities: skilled(1) }),
      agent("known", { capabilities: skilled(0.1), used: 9 }),
    ];
    for (const strategy of ["sticky", "best_fit", "least_loaded"] as const)
      expect(winner(strategy, fleet, { ...wish, stickyAgentId: "known" })).toBe("known");
    expect(winner("sticky", fleet, { ...wish, stickyAgentId: "gone" })).toBe("better");
  });
  test("nobody, when there is nobody", () => {
    expect(winner("best_fit", [])).toBeUndefined();
  });
});
