import { deliverHandler } from "@waggle/edge";
import { createOutbound } from "@waggle/outbound";
import { callAgentsWith, onQueue } from "./support/lambda.ts";

callAgentsWith(createOutbound);

export const handler = onQueue("deliver", deliverHandler);
