import { onAws } from "../support/system-aws.ts";

// As aws, beside it.
await onAws({ suites: [() => import("./deadline.test.ts"), () => import("./dependency.test.ts")] });
