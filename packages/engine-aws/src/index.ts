import type { Engine } from "@waggle/core";
import type { Aws } from "./aws.ts";
import type { AwsConfig } from "./config.ts";
import type { OpenAwsOptions } from "./open.ts";
import type { ResourceOptions } from "./resources.ts";

export { type Aws, type AwsOptions, createAws } from "./aws.ts";
export { type AwsConfig, configFromEnv } from "./config.ts";
export type { AwsMeter } from "./meter.ts";
export type { OpenAwsOptions } from "./open.ts";
export { applyProjection, projectRecords } from "./project.ts";
export { fromSqs, type SqsRecord, toSqsResponse } from "./record.ts";
export type { ResourceOptions } from "./resources.ts";
export type { RetryPolicy } from "./retry.ts";
export { fromStream, type StreamRecord } from "./stream.ts";

// No function needs what follows: loaded when called, it costs their start nothing.

/**
 * The ports, and in this process what event source mappings do in an account: polls the queues and the table's stream, and
 * gives events to rules' targets. For an emulator, or to drive an account's table from one machine.
 * @example const engine = await openAws(await createResources({ prefix: "dev", endpoint: "http://localhost:4566" }))
 */
export const openAws = async (config: AwsConfig, options: OpenAwsOptions = {}): Promise<Engine & Pick<Aws, "meter">> =>
  (await import("@waggle/engine-aws/open")).open(config, options);

/**
 * Makes table, queues, bus and bucket where they are not there yet, as a deployment does: for emulators, where nothing is deployed.
 * @returns the configuration that names them
 */
export const createResources = async (options: ResourceOptions): Promise<AwsConfig> =>
  (await import("@waggle/engine-aws/resources")).create(options);

/** Takes away what `createResources` made, and all that is in it. A bucket must be empty to go; one that is not stays. */
export const deleteResources = async (config: AwsConfig): Promise<void> =>
  (await import("@waggle/engine-aws/resources")).remove(config);
