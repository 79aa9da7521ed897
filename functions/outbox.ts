import { consumers, outboxKinds, tenantOf } from "@waggle/core";
import { outboxHandler, projection } from "@waggle/edge";
import { fromStream, projectRecords, type StreamRecord } from "@waggle/engine-aws";
import { aws, type Context, invocation, kept } from "./support/lambda.ts";

const kinds: readonly string[] = outboxKinds;
const isOurs = ({ dynamodb: { NewImage, OldImage } = {} }: StreamRecord) =>
  kinds.includes((NewImage ?? OldImage)?.kind?.S ?? "");
const relay = kept(outboxHandler);
const views = kept((ports) => projectRecords(aws(), consumers.views, tenantOf, projection(ports)));

/** A batch that fails is halved and given again, down to the one change that cannot be worked on. */
export const handler = (event: { Records: StreamRecord[] }, context: Context) =>
  invocation("outbox", context, async (ports) => {
    const records = event.Records.filter(isOurs);
    await Promise.all([relay(ports)(fromStream(records)), views(ports)(records)]);
    return { batchItemFailures: [] };
  });
