import { deliveryErrors, requestErrors, type Target } from "@waggle/core";

export interface AwsOptions {
  readonly env: Readonly<Record<string, string | undefined>>;
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
  const ownEndpoint = env.AWS_ENDPOINT_URL_SQS ?? env.AWS_ENDPOINT_URL;
  const ownRegion = env.AWS_REGION ?? env.AWS_DEFAULT_REGION;
  const regionOfFunction = (arn: string): string => arn.split(":")[3] as string;
  const regionOfQueue = (url: string): string | undefined =>
    /^https:\/\/sqs\.([a-z0-9-]+)\.amazonaws\.com(\.cn)?\/\d{12}\/[\w-]+(\.fifo)?$/.exec(url)?.[1];

  async function attempt<Answer>(seconds: number, run: (signal: AbortSignal) => Promise<Answer>): Promise<Answer> {
    const late = AbortSignal.timeout(seconds * 1000);
    try {
      return await run(AbortSignal.any([late, closing]));
    } catch (error) {
      if (closing.aborted) throw requestErrors.notReady("the server is stopping");
      const { name, message } = error as Error;
      const what = late.aborted ? `no answer within ${seconds} s` : name === "Error" ? message : `${name}: ${message}`;
      throw deliveryErrors.failed(what, { cause: error });
    }
  }

  return {
    async check(target: Target): Promise<string | undefined> {
      let client: { credentials(): Promise<unknown> };
      if (target.type === "lambda") client = await lambda(regionOfFunction(target.functionArn));
      else if (target.type === "queue") {
        if (target.queueUrl.endsWith(".fifo")) return "a FIFO queue is not sent to; use a standard one";
        const region = regionOfQueue(target.queueUrl);
        if (region === undefined && ownEndpoint === undefined)
          return "expected the URL of an SQS queue: https://sqs.<region>.amazonaws.com/<account>/<name>";
        const used = region ?? ownRegion;
        if (used === undefined)
          return "this server does not know the queue's region: set AWS_REGION and start it again";
        client = await sqs(used);
      } else return undefined;
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
        (await sqs(regionOfQueue(queueUrl) ?? ownRegion ?? "")).send(queueUrl, body, signal),
      ),
  };
}
