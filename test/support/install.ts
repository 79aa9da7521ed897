import { installPlatform } from "../infra/graph.ts";
import { installLocalStack, localStackLacks } from "../localstack/localstack.ts";
import { emulatorsLack, installEmulator } from "./emulator.ts";

/* Installs what tests need beside packages, so that none waits for a download: node ts.mjs test/support/install.ts */
for (const name of ["ministack", "dynamo"] as const) {
  const lack = emulatorsLack[name]();
  if (lack === undefined) await installEmulator(name);
  else {
    console.log(`${lack}: the engine on AWS is not tested on it`);
    if (process.env.CI === "true") process.exitCode = 1;
  }
}

if (process.env.CI === "true" && localStackLacks() === undefined) await installLocalStack(console.log);

await installPlatform();
