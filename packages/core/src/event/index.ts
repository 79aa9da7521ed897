export { type EventKind, eventKinds } from "./declared.ts";
export { gone } from "./error.ts";
export * as EventLog from "./index.ts";
export { eventChannel, follow, last, list, reach } from "./log.ts";
export * from "./schema.ts";
export { Subscription, subscribe, subscription } from "./subscription.ts";
