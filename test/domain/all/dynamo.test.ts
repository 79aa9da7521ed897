import { emulators, emulatorsLack } from "../../support/emulator.ts";
import { onAws } from "../../support/system-aws.ts";

await onAws({
  suites: [() => import("../task.test.ts"), () => import("../agent.test.ts")],
  dynamo: emulators.dynamo,
  lack: emulatorsLack.dynamo(),
});
