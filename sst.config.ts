/// <reference path="./.sst/platform/config.d.ts" />

export default $config({
  app(input) {
    const { stage } = input;
    const production = stage === "production";
    // It would have none of the safeguards that its name promises.
    if (!production && /^(production|prod|prd|live)([^a-z]|$)/i.test(stage))
      throw new Error(`a stage that must not be lost is called production, in lower case; ${stage} is none`);
    if (stage.length > 40)
      throw new Error("a stage's name has at most 40 characters: those of functions hold it, and have 64");
    return {
      name: "waggle",
      home: "aws",
      // What holds data outlives a stage that is removed by mistake.
      removal: production ? "retain" : "remove",
      protect: production,
    };
  },
  async run() {
    // To remove a stage SST may ask what it is made of, in a checkout that never deployed.
    if (["deploy", "diff", "remove"].includes($cli.command)) {
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
      // Without its slash at the end: paths are put behind it.
      url: functions.api.url.apply((url) => url.replace(/\/$/, "")),
      table: table.name,
      socketUrl: socket.url,
      bus: bus.name,
      intakeQueue: queues.intake.queue.arn,
      intakeDeadLetters: queues.intake.dead.arn,
      concurrency: reserves.apply((yes) =>
        yes
          ? "reserved"
          : $app.protect
            ? "not reserved: the account's quota is too low"
            : "not reserved: only production's is",
      ),
    };
  },
});
