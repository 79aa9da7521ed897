export { type Aws, type AwsOptions, createAws } from "./aws.ts";
export { type AwsConfig, configFromEnv } from "./config.ts";
export type { AwsMeter } from "./meter.ts";
export { type OpenAwsOptions, openAws } from "./open.ts";
export { projectRecords } from "./project.ts";
export { fromSqs, type SqsRecord, toSqsResponse } from "./queue.ts";
export { createResources, deleteResources, type ResourceOptions } from "./resources.ts";
export type { RetryPolicy } from "./retry.ts";
export { fromStream, type StreamRecord } from "./stream.ts";
