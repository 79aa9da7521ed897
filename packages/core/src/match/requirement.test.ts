import { describe, expect, test } from "vitest";
import { type Need, type Offer, refusal, selects, signature } from "./requirement.ts";

const need = (more: Partial<Need> = {}): Need => ({ requires: [], labels: [], slots: 1, ...more });
const offer = (more: Partial<Offer> = {}): Offer => ({
  id: "agt_1",
  capabilities: new Map([["review", { level: 0.7, cost: 1 }]]),
  labels: { region: "eu", cores: 8 },
  role: "reviewer",
  maxConcurrency: 2,
  ...more,
});
const selector = (op: string, value?: unknown, key = "cores") =>
  ({ key, op, required: true, ...(value !== undefined && { value }) }) as Need["labels"][number];

describe("eligibility", () => {
  test("an agent with the capability at the level asked for may serve", () => {
    expect(refusal(need({ requires: [{ capability: "review", minLevel: 0.7 }] }), offer())).toBeUndefined();
  });
  test.each([
    ["a missing capability", need({ requires: [{ capability: "deploy" }] }), "lacks capability deploy"],
    [
      "a level too low",
      need({ requires: [{ capability: "review", minLevel: 0.8 }] }),
      "review at level 0.7 is below 0.8",
    ],
    ["another role", need({ role: "writer" }), "has role reviewer, not writer"],
    ["another agent's task", need({ agentId: "agt_2" }), "the task names another agent"],
    ["more slots than it has", need({ slots: 3 }), "needs 3 slots, the agent has 2"],
    [
      "a label that does not match",
      need({ labels: [selector("eq", "us", "region")] }),
      'label region does not match eq "us"',
    ],
  ])("refuses %s and says so", (_, asked, words) => {
    expect(refusal(asked, offer())).toBe(words);
  });
});

describe("label selectors", () => {
  test.each([
    ["eq", 8, true],
    ["eq", "8", false],
    ["ne", 9, true],
    ["ne", 8, false],
    ["gt", 7, true],
    ["gt", 8, false],
    ["gte", 8, true],
    ["lt", 9, true],
    ["lte", 7, false],
    ["in", [4, 8], true],
    ["in", ["8"], false],
    ["exists", true, true],
    ["exists", false, false],
    ["exists", undefined, true],
  ])("cores=8 %s %j is %s", (op, value, expected) => {
    expect(selects(selector(op, value), { cores: 8 })).toBe(expected);
  });
  test("a label the agent does not carry matches only ne and exists: false", () => {
    expect(
      ["eq", "in", "gt", "gte", "lt", "lte"].some((op) => selects(selector(op, op === "in" ? [1] : 1, "gpu"), {})),
    ).toBe(false);
    expect(selects(selector("ne", 1, "gpu"), {})).toBe(true);
    expect(selects(selector("exists", false, "gpu"), {})).toBe(true);
  });
  test("names of Object.prototype are labels like any other", () => {
    expect(selects(selector("exists", true, "toString"), {})).toBe(false);
  });
});

describe("signature", () => {
  const a = { capability: "a", minLevel: 0.5 };
  const b = { capability: "b" };
  test("the order of requirements makes no difference", () => {
    expect(signature(need({ requires: [a, b] }))).toBe(signature(need({ requires: [b, a] })));
  });
  test.each([
    ["a level", need({ requires: [a, b] }), need({ requires: [{ ...a, minLevel: 0.6 }, b] })],
    ["a name that reads like a level", need({ requires: [a] }), need({ requires: [{ capability: "a>=0.5" }] })],
    ["a role", need({ requires: [a, b] }), need({ requires: [a, b], role: "x" })],
    ["slots", need(), need({ slots: 2 })],
    ["a selector", need({ labels: [selector("gt", 1)] }), need({ labels: [selector("gte", 1)] })],
    ["the agent", need({ agentId: "x" }), need({ agentId: "y" })],
    ["what the agent has to be able to", need({ agentId: "x" }), need({ agentId: "x", requires: [b] })],
    ["whether an agent is named", need({ requires: [b] }), need({ agentId: "x", requires: [b] })],
  ])("tells %s apart", (_, one, other) => {
    expect(signature(one)).not.toBe(signature(other));
  });
});
