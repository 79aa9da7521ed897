export { list, redrive } from "./deadletter.ts";
export * as DeadLetter from "./index.ts";
export * from "./schema.ts";
