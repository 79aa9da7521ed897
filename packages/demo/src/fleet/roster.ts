import type { Stage } from "../plan.ts";

/** A process of the fleet. `levels` are capabilities with how good it is at them, 0 to 1. */
export type Member = {
  name: string;
  description: string;
  levels: Readonly<Record<string, number>>;
  concurrency: number;
  stages: readonly Stage[];
};

/**
 * Nine processes. Two can do everything about history; the archivist is not good enough for `ownership` (which asks for
 * 0.8) and takes logs and marks; the tester lends the linguist a hand.
 */
export const roster: readonly Member[] = [
  {
    name: "scout",
    description: "Looks the repository over and plans the work",
    levels: { planning: 1, git: 0.8 },
    concurrency: 2,
    stages: ["plan", "overview", "large-files"],
  },
  {
    name: "linguist",
    description: "Counts languages",
    levels: { languages: 0.9 },
    concurrency: 3,
    stages: ["languages"],
  },
  {
    name: "historian-1",
    description: "Reads git log and git blame",
    levels: { history: 0.95 },
    concurrency: 2,
    stages: ["history", "ownership", "todos"],
  },
  {
    name: "historian-2",
    description: "Reads git log and git blame",
    levels: { history: 0.9 },
    concurrency: 2,
    stages: ["history", "ownership", "todos"],
  },
  {
    name: "archivist",
    description: "Reads git log, and blames single lines",
    levels: { history: 0.6 },
    concurrency: 1,
    stages: ["history", "todos"],
  },
  {
    name: "auditor",
    description: "Reads lock files",
    levels: { dependencies: 0.9 },
    concurrency: 2,
    stages: ["dependencies"],
  },
  {
    name: "twin-finder",
    description: "Finds copies",
    levels: { duplicates: 0.9 },
    concurrency: 2,
    stages: ["duplicates.fingerprint", "duplicates.match"],
  },
  {
    name: "tester",
    description: "Takes stock of tests",
    levels: { tests: 0.9, languages: 0.4 },
    concurrency: 2,
    stages: ["tests", "languages"],
  },
  {
    name: "reporter",
    description: "Puts it all together and writes it down",
    levels: { report: 1 },
    concurrency: 1,
    stages: ["report"],
  },
];
