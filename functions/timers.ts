import { timersHandler } from "@waggle/edge";
import { onQueue } from "./support/lambda.ts";

export const handler = onQueue("timers", timersHandler);
