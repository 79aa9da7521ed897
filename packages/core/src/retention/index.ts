export * as Retention from "./index.ts";
export { get, put } from "./retention.ts";
export { Info, Put } from "./schema.ts";
