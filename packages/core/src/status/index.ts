export * as Status from "./index.ts";
export { rates } from "./rates.ts";
export { load, type Metric, metrics, read } from "./status.ts";
