import type { QueueName } from "@waggle/core";

/** Where everything lies; nothing in it is secret. Credentials are found by the SDK. */
export interface AwsConfig {
  readonly region: string;
  readonly table: string;
  /** URLs of the queues. */
  readonly queues: Readonly<Record<QueueName, string>>;
  readonly deadLetters: Readonly<Record<QueueName, string>>;
  readonly bus: string;
  readonly bucket: string;
  /** `https://…execute-api…/stage` of the WebSocket API; without it nothing is pushed to connections. */
  readonly socketEndpoint?: string;
  /** An emulator that stands for every service. */
  readonly endpoint?: string;
  /** An emulator that stands for DynamoDB alone. */
  readonly storeEndpoint?: string;
}

export const forQueues = <T>(of: (name: QueueName) => T): Record<QueueName, T> => ({
  dispatch: of("dispatch"),
  timers: of("timers"),
  deliver: of("deliver"),
  intake: of("intake"),
});

/**
 * Reads `WAGGLE_TABLE`, `WAGGLE_QUEUE_DISPATCH` …, `WAGGLE_DLQ_DISPATCH` …, `WAGGLE_BUS`, `WAGGLE_BUCKET`,
 * `WAGGLE_SOCKET_ENDPOINT` and what the SDK reads: `AWS_REGION`, `AWS_ENDPOINT_URL`, `AWS_ENDPOINT_URL_DYNAMODB`.
 * Throws an error that names every variable that is missing.
 */
export function configFromEnv(env: Readonly<Record<string, string | undefined>>): AwsConfig {
  const missing: string[] = [];
  const need = (name: string): string => {
    const value = env[name];
    if (!value) missing.push(name);
    return value ?? "";
  };
  const config: AwsConfig = {
    region: need("AWS_REGION"),
    table: need("WAGGLE_TABLE"),
    queues: forQueues((name) => need(`WAGGLE_QUEUE_${name.toUpperCase()}`)),
    deadLetters: forQueues((name) => need(`WAGGLE_DLQ_${name.toUpperCase()}`)),
    bus: need("WAGGLE_BUS"),
    bucket: need("WAGGLE_BUCKET"),
    ...(env.WAGGLE_SOCKET_ENDPOINT && { socketEndpoint: env.WAGGLE_SOCKET_ENDPOINT }),
    ...(env.AWS_ENDPOINT_URL && { endpoint: env.AWS_ENDPOINT_URL }),
    ...(env.AWS_ENDPOINT_URL_DYNAMODB && { storeEndpoint: env.AWS_ENDPOINT_URL_DYNAMODB }),
  };
  if (missing.length > 0) throw new Error(`the environment lacks ${missing.join(", ")}`);
  return config;
}
