import type { Requirement, Selector, Strategy } from "../task/schema.ts";
import { type Offer, selects } from "./requirement.ts";

/** What ranking reads of a candidate beside its offer. */
export interface Candidate extends Offer {
  readonly used: number;
  /** Rises with every assignment in the tenant; the lowest was served longest ago. */
  readonly lastAssigned: number;
  readonly assigned: number;
  readonly completed: number;
  readonly failed: number;
  readonly busyMs: number;
}

export interface Wish {
  readonly requires: readonly Requirement[];
  /** All selectors; the preferred ones rank. */
  readonly labels: readonly Selector[];
  /** The agent that served the sticky key last. */
  readonly stickyAgentId?: string | undefined;
}

const load = (agent: Candidate) => agent.used / agent.maxConcurrency;
/** Laplace's rule of succession: an agent without a record counts as 1/2 + a little. */
const success = (agent: Candidate) => (agent.completed + 1) / (agent.completed + agent.failed + 2);
const averageMs = (agent: Candidate) => {
  const ended = agent.completed + agent.failed;
  return ended === 0 ? 0 : agent.busyMs / ended;
};

function level(wish: Wish, agent: Candidate): number {
  if (wish.requires.length === 0) return 1;
  let sum = 0;
  for (const { capability } of wish.requires) sum += agent.capabilities.get(capability)?.level ?? 0;
  return sum / wish.requires.length;
}

function cost(wish: Wish, agent: Candidate): number {
  let sum = 0;
  for (const { capability } of wish.requires) sum += agent.capabilities.get(capability)?.cost ?? 0;
  if (wish.requires.length === 0) for (const own of agent.capabilities.values()) sum += own.cost;
  return sum;
}

/** Share of the preferred weights the agent meets, −1 to 1; 0 when there are none. */
function preference(wish: Wish, agent: Candidate): number {
  let total = 0;
  let met = 0;
  for (const selector of wish.labels) {
    if (selector.required) continue;
    const weight = selector.weight ?? 1;
    total += Math.abs(weight);
    if (selects(selector, agent.labels)) met += weight;
  }
  return total === 0 ? 0 : met / total;
}

/** 0–1, preferences first: they are what the caller said; then skill, then record, then room. */
function bestFit(wish: Wish, agent: Candidate): number {
  return (
    0.4 * ((preference(wish, agent) + 1) / 2) +
    0.3 * level(wish, agent) +
    0.15 * success(agent) +
    0.15 * (1 - load(agent))
  );
}

/** Weight of an agent: its label `weight`, else its concurrency. */
function weight(agent: Candidate): number {
  const label = agent.labels.weight;
  return typeof label === "number" && label > 0 ? label : agent.maxConcurrency;
}

/**
 * One number a candidate, the highest wins. Preferred labels break ties, then the agent served longest ago.
 * Each is a pure function of what it is given.
 */
export const score: Readonly<Record<Strategy, (wish: Wish, agent: Candidate) => number>> = {
  best_fit: bestFit,
  least_loaded: (_, agent) => 1 - load(agent),
  round_robin: (_, agent) => -agent.lastAssigned,
  weighted: (_, agent) => -(agent.assigned + 1) / weight(agent),
  sticky: (wish, agent) => (agent.id === wish.stickyAgentId ? 2 : 0) + bestFit(wish, agent),
  cheapest: (wish, agent) => -cost(wish, agent),
  fastest: (_, agent) => -averageMs(agent),
  random_two: (_, agent) => 1 - load(agent),
};

/** Why the winner won, in words. Where a sticky key decided, that is said instead. */
export const why: Readonly<Record<Strategy, (score: number) => string>> = {
  best_fit: (score) => `it fits best, by preferred labels, level, record and room: ${score} of 1`,
  least_loaded: (score) => `it has the least load: ${Math.round((1 - score) * 100)} % of its slots`,
  round_robin: () => "it was given work longest ago",
  weighted: () => "it has had the least work for its weight",
  sticky: (score) => `nobody it would stick to is free, and it fits best: ${score} of 1`,
  cheapest: (score) => `it costs the least: ${Math.abs(score)}`,
  fastest: (score) => (score === 0 ? "it has no record yet" : `it takes the least time: ${-score} ms on average`),
  random_two: (score) =>
    `of two taken at random it has the least load: ${Math.round((1 - score) * 100)} % of its slots`,
};

/** The winner among candidates that are all eligible and free. */
export function choose(
  strategy: Strategy,
  wish: Wish,
  candidates: readonly Candidate[],
  random: () => number,
): { agent: Candidate; score: number } | undefined {
  let pool = candidates;
  if (strategy === "random_two" && candidates.length > 2) {
    const first = Math.floor(random() * candidates.length);
    const second = (first + 1 + Math.floor(random() * (candidates.length - 1))) % candidates.length;
    pool = [candidates[first] as Candidate, candidates[second] as Candidate];
  }
  // A sticky key is a preference under every strategy: an agent that knows the session beats one that scores better.
  if (wish.stickyAgentId !== undefined) {
    const known = pool.find((agent) => agent.id === wish.stickyAgentId);
    if (known) return { agent: known, score: score.sticky(wish, known) };
  }
  const rank = score[strategy];
  let best: Candidate | undefined;
  let bestScore = Number.NEGATIVE_INFINITY;
  for (const agent of pool) {
    const value = rank(wish, agent);
    if (best === undefined || value > bestScore || (value === bestScore && closer(wish, agent, best))) {
      best = agent;
      bestScore = value;
    }
  }
  return best && { agent: best, score: bestScore };
}

function closer(wish: Wish, agent: Candidate, than: Candidate): boolean {
  const difference = preference(wish, agent) - preference(wish, than);
  return difference !== 0 ? difference > 0 : agent.lastAssigned < than.lastAssigned;
}
