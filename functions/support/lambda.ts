import { type Message, type Outbound, type Ports, type QueueName, withoutSecrets } from "@waggle/core";
import type { BatchOutcome, OnError } from "@waggle/edge";
import { type Aws, configFromEnv, createAws, fromSqs, type SqsRecord, toSqsResponse } from "@waggle/engine-aws";
import { createChecker, type OutboundOptions, outboundFromEnv } from "@waggle/outbound";

export interface Context {
  readonly awsRequestId: string;
  getRemainingTimeInMillis(): number;
}

/** Left of an invocation for its answer when calls to AWS give up. */
const answerMs = 500;
/** And, of a batch, for giving back what failed: else that would stay hidden for its visibility time, which is minutes. */
const givingBackMs = 1_500;
/** A message that failed comes again after this, doubled each time, at most. */
const againSeconds = { first: 1, most: 120 } as const;

let outbound: (options: OutboundOptions) => Outbound = createChecker;
/** For the function that calls agents: the others carry nothing of what that needs. */
export function callAgentsWith(make: typeof outbound): void {
  outbound = make;
}

let made: Aws | undefined;
/** The ports, made at the first call and kept while this process lives. */
export const aws = (): Aws =>
  (made ??= createAws(configFromEnv(process.env), {
    outbound: outbound(outboundFromEnv(process.env)),
    onUnsent: (error) => report("connections", error),
  }));

/** One line of JSON, as Lambda's own lines are, for CloudWatch to search by field. */
export function say(level: "INFO" | "ERROR", component: string, fields: object): void {
  process.stdout.write(`${JSON.stringify({ timestamp: new Date().toISOString(), level, component, ...fields })}\n`);
}

export const report: OnError = (component, error) => {
  const { name, message, stack = "", cause } = error instanceof Error ? error : new Error(String(error));
  say("ERROR", component, {
    error: name,
    message: withoutSecrets(message),
    stack: withoutSecrets(stack),
    ...(cause !== undefined && { cause: withoutSecrets(String(cause)) }),
  });
};

/** Runs one call within its deadline. What is thrown is reported, then thrown on, so that AWS calls again: cut, too, as Lambda logs it as it is. */
export async function invocation<T>(
  component: string,
  context: Context,
  run: (ports: Ports) => Promise<T>,
): Promise<T> {
  try {
    return await aws().invocation(context.getRemainingTimeInMillis() - answerMs, () => run(aws().ports));
  } catch (error) {
    report(component, error);
    throw new Error(withoutSecrets(String(error)));
  }
}

type QueueHandler = (ports: Ports, onError: OnError) => (messages: readonly Message[]) => Promise<BatchOutcome>;

/** Makes what a function needs of the ports at its first call, and keeps it. */
export function kept<T>(make: (ports: Ports) => T): (ports: Ports) => T {
  let value: { readonly of: T } | undefined;
  return (ports) => {
    value ??= { of: make(ports) };
    return value.of;
  };
}

/**
 * A handler of a queue as a Lambda function: what failed comes again soon, not only when its visibility time is over.
 * @param hiddenSeconds messages are hidden for so long at a time while they are worked on. Those of a process that dies come again then,
 *   and not after the queue's visibility time, which has to be a multiple of the function's; a request a batch, and more for a long one
 */
export function onQueue(name: QueueName, handler: QueueHandler, hiddenSeconds?: number) {
  const handle = kept((ports) => handler(ports, report));
  return (event: { readonly Records: readonly SqsRecord[] }, context: Context) =>
    invocation(name, context, async (ports) => {
      const messages = fromSqs(event.Records);
      const later = (some: readonly Message[], seconds: number): Promise<void> =>
        ports.queues[name]
          .retry(
            some.map(({ receipt }) => receipt),
            seconds,
          )
          .catch((error) => report(name, error));
      const stopHiding =
        hiddenSeconds === undefined ? undefined : keepDoing(() => later(messages, hiddenSeconds), hiddenSeconds / 3);
      const { failed } = await aws()
        .invocation(context.getRemainingTimeInMillis() - answerMs - givingBackMs, () => handle(ports)(messages))
        .finally(stopHiding);
      const again = messages.filter(({ id }) => failed.includes(id));
      const delays = new Set(again.map(againAfter));
      await Promise.all(
        [...delays].map((seconds) =>
          later(
            again.filter((each) => againAfter(each) === seconds),
            seconds,
          ),
        ),
      );
      return toSqsResponse({ failed });
    });
}

const againAfter = ({ receives }: Message): number =>
  Math.min(againSeconds.first * 2 ** (receives - 1), againSeconds.most);

/** @returns ends it, once what is under way is done */
function keepDoing(run: () => Promise<void>, everySeconds: number): () => Promise<void> {
  let last = run();
  const timer = setInterval(() => {
    last = run();
  }, everySeconds * 1000);
  return () => {
    clearInterval(timer);
    return last;
  };
}
