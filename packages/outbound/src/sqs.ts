import { SendMessageCommand, SQSClient } from "@aws-sdk/client-sqs";

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
      await client.send(new SendMessageCommand({ QueueUrl: queueUrl, MessageBody: sendable(body) }), { abortSignal });
    },
  };
}
