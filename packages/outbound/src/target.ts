import type { Target } from "@waggle/core";
import { refusalOf, type TargetRules } from "./guard.ts";

export type Env = Readonly<Record<string, string | undefined>>;

export const regionOfFunction = (arn: string): string => arn.split(":")[3] as string;

/** Of the queue's URL; where AWS is at an endpoint of its own, of the environment. */
export const regionOfQueue = (url: string, env: Env): string | undefined =>
  /^https:\/\/sqs\.([a-z0-9-]+)\.amazonaws\.com(\.cn)?\/\d{12}\/[\w-]+(\.fifo)?$/.exec(url)?.[1] ??
  (ownEndpoint(env) ? (env.AWS_REGION ?? env.AWS_DEFAULT_REGION) : undefined);

const ownEndpoint = (env: Env): string | undefined => env.AWS_ENDPOINT_URL_SQS ?? env.AWS_ENDPOINT_URL;

/** Why this target cannot be called, as far as it can be told without calling anything. */
export function targetRefusal(target: Target, rules: TargetRules, env: Env): string | undefined {
  if (target.type === "webhook") return refusalOf(target.url, rules);
  if (target.type === "lambda") return undefined;
  if (target.queueUrl.endsWith(".fifo")) return "a FIFO queue is not sent to; use a standard one";
  if (regionOfQueue(target.queueUrl, env) !== undefined) return undefined;
  return ownEndpoint(env)
    ? "this server does not know the queue's region: set AWS_REGION and start it again"
    : "expected the URL of an SQS queue: https://sqs.<region>.amazonaws.com/<account>/<name>";
}
