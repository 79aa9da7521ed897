/// <reference path="./.sst/platform/config.d.ts" />

export default $config({
  app(input) {
    const production = input.stage === "production";
    return {
      name: "waggle",
      home: "aws",
      // What holds data outlives a stage that is removed by mistake.
      removal: production ? "retain" : "remove",
      protect: production,
    };
  },
  async run() {
    if ($cli.command === "deploy" || $cli.command === "diff") {
      const { execFileSync } = await import("node:child_process");
      execFileSync(process.execPath, ["functions/build.mjs"], { stdio: "inherit" });
    }
    const { functions, reserves } = await import("./infra/functions.ts");
    const { socket } = await import("./infra/socket.ts");
    const { queues } = await import("./infra/queues.ts");
    const { table } = await import("./infra/store.ts");
    const { bus } = await import("./infra/bus.ts");
    await import("./infra/triggers.ts");
    await import("./infra/alarms.ts");
    return {
      url: functions.api.url,
      table: table.name,
      socketUrl: socket.url,
      bus: bus.name,
      intakeQueue: queues.intake.queue.arn,
      intakeDeadLetters: queues.intake.dead.arn,
      concurrency: reserves.apply((yes) => (yes ? "reserved" : "not reserved: the account's quota is too low")),
    };
  },
});
