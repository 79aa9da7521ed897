import type { ApiGatewayManagementApiClient } from "@aws-sdk/client-apigatewaymanagementapi";
import { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import type { DynamoDBStreamsClient } from "@aws-sdk/client-dynamodb-streams";
import type { EventBridgeClient } from "@aws-sdk/client-eventbridge";
import type { S3Client } from "@aws-sdk/client-s3";
import type { SQSClient } from "@aws-sdk/client-sqs";
import type { AwsConfig } from "./config.ts";
import { credentials } from "./credentials.ts";

/** Sees every client that is made, to add middleware to it. */
export type OnClient = (client: { readonly middlewareStack: unknown }) => void;

/** The SDK's clients, each made when it is first asked for: a function pays only for those it uses. */
export interface Clients {
  dynamo(): DynamoDBClient;
  /** These are files of their own in a split bundle: few calls need them. */
  sqs(): Promise<SQSClient>;
  bus(): Promise<EventBridgeClient>;
  s3(): Promise<S3Client>;
  streams(): Promise<DynamoDBStreamsClient>;
  sockets(): Promise<ApiGatewayManagementApiClient>;
  destroy(): void;
}

type Next = (args: unknown) => Promise<{ response: { body?: { on?: (event: string, listener: () => void) => void } } }>;

/** A connection may end amid an answer that nobody reads to its end; without a listener that would end the process. */
function spare(client: { readonly middlewareStack: unknown }): void {
  const stack = client.middlewareStack as { add(of: (next: Next) => Next, how: object): void };
  stack.add(
    (next) => async (args) => {
      const result = await next(args);
      result.response.body?.on?.("error", () => {});
      return result;
    },
    { step: "deserialize", priority: "low", name: "spare" },
  );
}

export function createClients(config: AwsConfig, onClient: OnClient = () => {}): Clients {
  const made: { destroy(): void }[] = [];
  const once = <T>(make: () => T): (() => T) => {
    let value: T | undefined;
    return () => (value ??= make());
  };
  /** One that could not be loaded is loaded anew by the next call. */
  const loaded = <T>(make: () => Promise<T>): (() => Promise<T>) => {
    let value: Promise<T> | undefined;
    return () =>
      (value ??= make().catch((error) => {
        value = undefined;
        throw error;
      }));
  };
  function keep<T extends { readonly middlewareStack: unknown; destroy(): void }>(client: T): T {
    made.push(client);
    spare(client);
    onClient(client);
    return client;
  }
  const common = (endpoint: string | undefined) => ({
    region: config.region,
    credentials,
    // Ours is the one retry policy: see retry.ts.
    maxAttempts: 1,
    requestHandler: {
      connectionTimeout: 1_000,
      httpAgent: { keepAlive: true, maxSockets: 256 },
      httpsAgent: { keepAlive: true, maxSockets: 256 },
    },
    ...(endpoint !== undefined && { endpoint }),
  });
  return {
    dynamo: once(() => keep(new DynamoDBClient(common(config.storeEndpoint ?? config.endpoint)))),
    sqs: loaded(async () => {
      const { SQSClient } = await import("@waggle/engine-aws/sdk/queues");
      return keep(new SQSClient(common(config.endpoint)));
    }),
    bus: loaded(async () => {
      const { EventBridgeClient } = await import("@waggle/engine-aws/sdk/events");
      return keep(new EventBridgeClient(common(config.endpoint)));
    }),
    s3: loaded(async () => {
      const { S3Client } = await import("@waggle/engine-aws/sdk/s3");
      // A bucket as a host name is nothing an emulator on loopback can be found by.
      return keep(new S3Client({ ...common(config.endpoint), forcePathStyle: config.endpoint !== undefined }));
    }),
    streams: loaded(async () => {
      const { DynamoDBStreamsClient } = await import("@waggle/engine-aws/sdk/streams");
      return keep(new DynamoDBStreamsClient(common(config.storeEndpoint ?? config.endpoint)));
    }),
    sockets: loaded(async () => {
      const { ApiGatewayManagementApiClient } = await import("@waggle/engine-aws/sdk/sockets");
      return keep(new ApiGatewayManagementApiClient(common(config.socketEndpoint)));
    }),
    destroy() {
      for (const client of made) client.destroy();
    },
  };
}
