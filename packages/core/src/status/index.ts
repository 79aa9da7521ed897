export * as Status from "./index.ts";
export { rates } from "./rates.ts";
export { load, metrics, read } from "./status.ts";
