export * as Audit from "./index.ts";
export { type Options, run } from "./run.ts";
export * from "./schema.ts";
