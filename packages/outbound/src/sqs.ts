import { SendMessageCommand, SQSClient } from "@aws-sdk/client-sqs";
import { deliveryErrors } from "@waggle/core";

/** SQS refuses a message with either of these, which JSON may have in a text, and may as well escape. */
const sendable = (json: string): string =>
  json.replace(/[\ufffe\uffff]/g, (each) => `\\u${each.charCodeAt(0).toString(16)}`);

/** Queues of one region. One try a call: whoever delivers tries again. */
export function createSqs(region: string) {
  // A queue's URL names a queue, not the host to send our signature to.
  const client = new SQSClient({ region, maxAttempts: 1, useQueueUrlAsEndpoint: false });
  return {
    credentials: () => client.config.credentials(),
    async send(queueUrl: string, body: string, abortSignal: AbortSignal): Promise<void> {
      try {
        await client.send(new SendMessageCommand({ QueueUrl: queueUrl, MessageBody: sendable(body) }), { abortSignal });
      } catch (error) {
        // A queue of its own, smaller limit: it takes others, and would not take this one the next time.
        const limit = /must be shorter than (\d+) bytes/.exec((error as Error).message)?.[1];
        if (limit === undefined) throw error;
        throw deliveryErrors.answerTooLarge(`the queue takes messages of less than ${limit} bytes`, { cause: error });
      }
    },
  };
}
