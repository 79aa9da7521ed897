import { minuteHandler } from "@waggle/edge";
import { type Context, invocation, report } from "./support/lambda.ts";

export const handler = (_: unknown, context: Context) =>
  invocation("minute", context, (ports) => minuteHandler(ports, report)());
