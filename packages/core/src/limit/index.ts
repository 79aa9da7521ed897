export * as Limit from "./index.ts";
export { get, list, put } from "./limit.ts";
export { Info, Key as LimitKey, Put } from "./schema.ts";
