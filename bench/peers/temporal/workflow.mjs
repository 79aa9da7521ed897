import { proxyActivities } from "@temporalio/workflow";

const { run } = proxyActivities({ startToCloseTimeout: "5 seconds", retry: { maximumAttempts: 3 } });

/** One task: one activity, tried again when its worker is silent for so long. */
export const task = (payload) => run(payload);
