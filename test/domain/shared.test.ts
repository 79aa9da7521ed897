import { mode } from "../support/system.ts";

// The promises of agents and tasks hold as well where other processes write to the same store.
mode.shared = true;
await import("./agent.test.ts");
await import("./task.test.ts");
await import("./deliver.test.ts");
await import("./transfer.test.ts");
