import type { Message, Value } from "@waggle/core";

/** A record of the event that Lambda makes of messages: https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html */
export interface SqsRecord {
  readonly messageId: string;
  readonly receiptHandle: string;
  readonly body: string;
  readonly attributes: { readonly ApproximateReceiveCount: string };
}

/**
 * The messages of an SQS event. A body that is no JSON is given as its text, for the handler to refuse.
 * @example const { failed } = await handler(fromSqs(event.Records))
 */
export const fromSqs = (records: readonly SqsRecord[]): Message[] =>
  records.map(({ messageId, receiptHandle, body, attributes }) => ({
    id: messageId,
    body: parsed(body),
    receives: Number(attributes.ApproximateReceiveCount),
    receipt: receiptHandle,
  }));

function parsed(text: string): Value {
  try {
    return JSON.parse(text) as Value;
  } catch {
    return text;
  }
}

/** What a handler answers to Lambda: these come again, the others are done (`ReportBatchItemFailures`). */
export const toSqsResponse = ({
  failed,
}: {
  readonly failed: readonly string[];
}): { batchItemFailures: { itemIdentifier: string }[] } => ({
  batchItemFailures: failed.map((itemIdentifier) => ({ itemIdentifier })),
});
