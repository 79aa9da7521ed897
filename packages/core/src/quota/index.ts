export { exceeded, throttled } from "./error.ts";
export * as Quota from "./index.ts";
export { get, put } from "./quota.ts";
export { Info, Quotas } from "./schema.ts";
