export * as Status from "./index.ts";
export { type Metric, metrics, read } from "./status.ts";
