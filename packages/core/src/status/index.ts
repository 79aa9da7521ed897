export * as Status from "./index.ts";
export { load, type Metric, metrics, read } from "./status.ts";
