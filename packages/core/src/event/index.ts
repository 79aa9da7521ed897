export { eventKinds } from "./declared.ts";
export * as EventLog from "./index.ts";
export { endFrom, follow, hasTask, last, list, reach } from "./log.ts";
export * from "./schema.ts";
export { Subscription, subscribe, subscription } from "./subscription.ts";
