import { createFaults } from "../../contract/faults.ts";
import { mode } from "../../support/system.ts";
import { onAws } from "../../support/system-aws.ts";

/** Plays the same faults again as far as calls come in the same order. */
const seed = Number(process.env.WAGGLE_FAULT_SEED ?? 1);
const rates = { throttle: 4, failure: 4, lostReply: 5, conflict: 4, partial: 25, reorder: 50, duplicate: 20 };

mode.repeats = true;
await onAws({
  suites: [
    () => import("../task.test.ts"),
    () => import("../deadline.test.ts"),
    () => import("../dependency.test.ts"),
    () => import("../agent.test.ts"),
    () => import("../deliver.test.ts"),
    () => import("../transfer.test.ts"),
  ],
  options: () => ({ onClient: createFaults(seed, rates, true).onClient, retry: { baseMs: 2, capMs: 20 } }),
});
