import * as z from "zod/mini";
import type { Target } from "../port/index.ts";

const url = () =>
  z.url({ protocol: /^https?$/, error: "expected a URL that begins with https://" }).check(z.maxLength(2048));
const pull = z.strictObject({ type: z.literal("pull") });
const lambda = z.strictObject({
  type: z.literal("lambda"),
  functionArn: z
    .string()
    .check(
      z.maxLength(256),
      z.regex(
        /^arn:aws[a-z-]*:lambda:[a-z0-9-]+:\d{12}:function:[\w-]+(:[\w$-]+)?$/,
        "expected the ARN of a Lambda function: arn:aws:lambda:<region>:<account>:function:<name>",
      ),
    ),
});
const queue = z.strictObject({ type: z.literal("queue"), queueUrl: url() });

/**
 * How work reaches the agent. `pull`: it asks for it, or holds a connection. The others are called: `webhook` by a signed
 * POST, `lambda` by an invocation, `queue` by a message to an SQS queue.
 */
export const Delivery = z.discriminatedUnion("type", [
  pull,
  z.strictObject({
    type: z.literal("webhook"),
    url: url(),
    /** Signs what is sent (Standard Webhooks): `whsec_` and base64, or any text. Made when none is given. */
    secret: z.optional(z.string().check(z.minLength(16), z.maxLength(256))),
  }),
  lambda,
  queue,
]);
export type Delivery = z.output<typeof Delivery>;

/** As it is shown: the secret never is. */
export const DeliveryInfo = z.discriminatedUnion("type", [
  pull,
  z.strictObject({ type: z.literal("webhook"), url: url() }),
  lambda,
  queue,
]);
export type DeliveryInfo = z.output<typeof DeliveryInfo>;

/** The agent is called; it is there whenever it has room. */
export const isCalled = <Row extends { readonly delivery: DeliveryInfo }>(
  row: Row,
): row is Row & { readonly delivery: Target } => row.delivery.type !== "pull";
