import { deliveryErrors, isError, requestErrors, type Target } from "@waggle/core";
import { type Env, regionOfFunction, regionOfQueue } from "./target.ts";

export interface AwsOptions {
  readonly env: Env;
  /** The longest a function may take to answer. */
  readonly totalSeconds: number;
  readonly closing: AbortSignal;
}

const sendSeconds = 10;

const noCredentials = (cause: string) =>
  `this server has no AWS credentials to call it with: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and start it again (${cause})`;

/**
 * Lambda functions and SQS queues. The AWS packages are loaded when the first such agent is registered or called: a server
 * without any should not take longer to start for them.
 */
export function createAws({ env, totalSeconds, closing }: AwsOptions) {
  const once = <Made>(make: (region: string) => Promise<Made>) => {
    const made = new Map<string, Promise<Made>>();
    return (region: string): Promise<Made> => {
      const known = made.get(region) ?? make(region);
      made.set(region, known);
      return known;
    };
  };
  // Files of their own, so that a bundler keeps what they import as they import it.
  const lambda = once(async (region) => (await import("./lambda.ts")).createLambda(region));
  const sqs = once(async (region) => (await import("./sqs.ts")).createSqs(region));

  async function attempt<Answer>(seconds: number, run: (signal: AbortSignal) => Promise<Answer>): Promise<Answer> {
    const late = AbortSignal.timeout(seconds * 1000);
    try {
      return await run(AbortSignal.any([late, closing]));
    } catch (error) {
      if (closing.aborted) throw requestErrors.notReady("the server is stopping");
      if (isError(error)) throw error;
      const { name, message } = error as Error;
      const what = late.aborted ? `no answer within ${seconds} s` : name === "Error" ? message : `${name}: ${message}`;
      throw deliveryErrors.failed(what, { cause: error });
    }
  }

  return {
    /** Whether there are credentials for a target that is well formed. */
    async check(target: Target): Promise<string | undefined> {
      if (target.type === "webhook") return undefined;
      const client =
        target.type === "lambda"
          ? await lambda(regionOfFunction(target.functionArn))
          : await sqs(regionOfQueue(target.queueUrl, env) ?? "");
      try {
        await client.credentials();
        return undefined;
      } catch (error) {
        return noCredentials((error as Error).message.split("\n")[0] ?? "");
      }
    },
    invoke: (functionArn: string, payload: string, timeoutSeconds = Number.POSITIVE_INFINITY) =>
      attempt(Math.min(totalSeconds, timeoutSeconds), async (signal) =>
        (await lambda(regionOfFunction(functionArn))).invoke(functionArn, payload, signal),
      ),
    send: (queueUrl: string, body: string) =>
      attempt(sendSeconds, async (signal) =>
        (await sqs(regionOfQueue(queueUrl, env) ?? "")).send(queueUrl, body, signal),
      ),
  };
}
