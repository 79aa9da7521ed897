import type { Message, Queue } from "@waggle/core";

/** A stop waits for a poll that is out: long enough to cost few requests, short enough to wait for. */
const waitSeconds = 1;
const failureCapMs = 5_000;

/**
 * Gives a queue's messages to a handler, as an SQS event source mapping does: what is not failed is acked, what is failed comes
 * again after its visibility time, a throw fails the batch.
 * @returns stops it, after the running batches
 */
export function poll(
  queue: Queue,
  { batch, concurrency }: { readonly batch: number; readonly concurrency: number },
  handler: (messages: readonly Message[]) => Promise<{ readonly failed: readonly string[] }>,
): () => Promise<void> {
  let stopped = false;
  async function lane(): Promise<void> {
    for (let failures = 0; !stopped; ) {
      try {
        const messages = await queue.receive({ max: Math.min(10, batch), waitSeconds });
        failures = 0;
        if (messages.length === 0) continue;
        if (stopped) {
          await queue.retry(
            messages.map((each) => each.receipt),
            0,
          );
          return;
        }
        const failed = await handler(messages).then(
          (answer) => new Set(answer.failed),
          () => undefined,
        );
        if (failed === undefined) continue;
        await queue.ack(messages.filter((each) => !failed.has(each.id)).map((each) => each.receipt));
      } catch {
        await new Promise((resolve) => setTimeout(resolve, Math.min(failureCapMs, 50 * 2 ** failures++)));
      }
    }
  }
  const lanes = Promise.all(Array.from({ length: concurrency }, lane));
  return async () => {
    stopped = true;
    await lanes;
  };
}
