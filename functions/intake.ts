import { intakeHandler } from "@waggle/edge";
import { onQueue } from "./support/lambda.ts";

export const handler = onQueue("intake", intakeHandler);
