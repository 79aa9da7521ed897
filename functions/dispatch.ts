import { dispatchHandler } from "@waggle/edge";
import { onQueue } from "./support/lambda.ts";

export const handler = onQueue("dispatch", dispatchHandler);
