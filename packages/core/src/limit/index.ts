export * as Limit from "./index.ts";
export { get, list, put, remove } from "./limit.ts";
export { Info, Key as LimitKey, Put } from "./schema.ts";
