export * as Quota from "./index.ts";
export { get, put } from "./quota.ts";
export { Info, Quotas } from "./schema.ts";
