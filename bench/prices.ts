/**
 * What AWS asks in us-east-1, on demand, in dollars, without the free tier. Read on 2026-11-26; a price that changes is
 * changed here and nowhere else.
 */
export const pricesReadOn = "2026-11-26";

export interface Price {
  readonly dollars: number;
  /** What the price is for. */
  readonly per: string;
  readonly units: number;
  readonly source: string;
}

const price = (dollars: number, units: number, per: string, source: string): Price => ({ dollars, per, units, source });
const million = 1_000_000;
const dynamo = "https://aws.amazon.com/dynamodb/pricing/on-demand/";
const lambda = "https://aws.amazon.com/lambda/pricing/";
const gateway = "https://aws.amazon.com/api-gateway/pricing/";

export const prices = {
  writeUnits: price(0.625, million, "write request units of 1 KB", dynamo),
  readUnits: price(0.125, million, "read request units of 4 KB, strongly consistent", dynamo),
  queueRequests: price(0.4, million, "requests of 64 KB, standard queues", "https://aws.amazon.com/sqs/pricing/"),
  busEvents: price(1, million, "custom events of 64 KB", "https://aws.amazon.com/eventbridge/pricing/"),
  lambdaCalls: price(0.2, million, "requests", lambda),
  lambdaGbSeconds: price(0.0000133334, 1, "GB-second on ARM", lambda),
  socketMessages: price(1, million, "WebSocket messages of 32 KB, either way", gateway),
  socketMinutes: price(0.25, million, "minutes a WebSocket is connected", gateway),
} as const satisfies Readonly<Record<string, Price>>;
export type Metered = keyof typeof prices;

/**
 * What the meter cannot know: how long a function runs, on the memory the deployment gives it. A function waits for AWS most of
 * that time. Billed by the millisecond, from the start of the call to its end; a cold start comes on top, rarely.
 */
export const assumed = {
  /** One request to the API, or one message of a WebSocket. */
  requestMs: 20,
  /** One that submits: it looks for an agent, takes its slots and sends it the task, too. */
  submitMs: 30,
  /** One message of a batch of a queue, worked on one after the other. */
  messageMs: 15,
  /** A batch of the change stream, and each change in it. */
  batchMs: 40,
  changeMs: 1,
  /** The time a called agent takes to answer; the messages of a batch wait together. */
  agentAnswerMs: 100,
  /** A run of a scheduled function. */
  scheduledMs: 200,
  /** Lambda reads each shard of the stream this often. https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html */
  streamPollsPerSecond: 4,
  /** Queues at rest are asked too: long polls of 20 s, five at a time, each of the deployment's four. */
  queues: 4,
  pollersPerQueue: 5,
  pollSeconds: 20,
  daysPerMonth: 30,
} as const;
