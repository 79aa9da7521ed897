import { describe } from "vitest";
import { mode } from "../support/system.ts";

// The promises of agents and tasks hold as well where other processes write to the same store.
mode.shared = true;
const suites = [
  () => import("./agent.test.ts"),
  () => import("./task.test.ts"),
  () => import("./deadline.test.ts"),
  () => import("./dependency.test.ts"),
  () => import("./deliver.test.ts"),
  () => import("./transfer.test.ts"),
];
// One by one: what a suite does before each of its tests is not for those of the others.
for (const load of suites) describe("where others write to the same store", async () => void (await load()));
