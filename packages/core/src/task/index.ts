export { createBatch } from "./batch.ts";
export { create } from "./create.ts";
export { cancel, retry } from "./end.ts";
export { missing } from "./error.ts";
export * as Task from "./index.ts";
export { events, explain, get, list } from "./read.ts";
export { assignmentJson, type Row, toJson } from "./row.ts";
export { complete, type Ended, fail, heartbeat, release, start } from "./run.ts";
export * from "./schema.ts";
