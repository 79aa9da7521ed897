import { setTimeout as sleep } from "node:timers/promises";
import { createAgent } from "@waggle/sdk";
import { type Input, kinds, resultOf } from "./plan.ts";

/* One process with one agent, to be killed. */
const [, , url = "", key = "", name = ""] = process.argv;

const agent = createAgent({
  url,
  key,
  name,
  capabilities: ["chaos"],
  concurrency: 8,
  leaseSeconds: 3,
  handlers: {
    "*": async (task, { attempt, signal, progress }) => {
      const input = task.input as Input;
      if (input.busyMs > 200) progress({ percent: 50 }, { attempt });
      await sleep(input.busyMs, undefined, { signal });
      const { error } = kinds.find((kind) => kind.name === input.kind) ?? {};
      if (error !== undefined) throw Object.assign(new Error("meant to fail"), { code: error, retryable: false });
      if (input.kind === "flaky" && attempt === 1) throw Object.assign(new Error("not yet"), { code: "flaky" });
      return resultOf(input);
    },
  },
});
await agent.start();
process.send?.("ready");
process.on("disconnect", () => process.exit(0));
