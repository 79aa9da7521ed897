import { onAws } from "../../support/system-aws.ts";

await onAws({
  suites: [
    () => import("../agent.test.ts"),
    () => import("../deliver.test.ts"),
    () => import("../transfer.test.ts"),
    () => import("../key.test.ts"),
  ],
});
