import { emulatorsLack, renewedDynamo } from "../../support/emulator.ts";
import { onAws } from "../../support/system-aws.ts";

await onAws({
  suites: [
    () => import("../task.test.ts"),
    () => import("../deadline.test.ts"),
    () => import("../dependency.test.ts"),
    () => import("../agent.test.ts"),
  ],
  dynamo: renewedDynamo(10),
  lack: emulatorsLack.dynamo(),
});
