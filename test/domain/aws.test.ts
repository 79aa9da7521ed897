import { onAws } from "../support/system-aws.ts";

// The promises of tasks hold on the engine of AWS, as here and in aws-deadlines. With --all those of agents, deliveries and
// transfers, too, and with faults: see all/.
await onAws({ suites: [() => import("./task.test.ts")] });
