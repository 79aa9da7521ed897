import { SendMessageCommand, SQSClient } from "@aws-sdk/client-sqs";

/** Queues of one region. One try a call: whoever delivers tries again. */
export function createSqs(region: string) {
  // A queue's URL names a queue, not the host to send our signature to.
  const client = new SQSClient({ region, maxAttempts: 1, useQueueUrlAsEndpoint: false });
  return {
    credentials: () => client.config.credentials(),
    async send(queueUrl: string, body: string, abortSignal: AbortSignal): Promise<void> {
      await client.send(new SendMessageCommand({ QueueUrl: queueUrl, MessageBody: body }), { abortSignal });
    },
  };
}
