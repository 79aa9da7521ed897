import { deliverHandler } from "@waggle/edge";
import { createOutbound } from "@waggle/outbound";
import { callAgentsWith, onQueue } from "./support/lambda.ts";

callAgentsWith(createOutbound);

/** An agent whose call died with its process is called again within this. */
const hiddenSeconds = 45;

export const handler = onQueue("deliver", deliverHandler, hiddenSeconds);
