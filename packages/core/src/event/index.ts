export * as EventLog from "./index.ts";
export { eventChannel, follow, last, list } from "./log.ts";
export * from "./schema.ts";
