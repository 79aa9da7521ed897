import { minuteHandler } from "@waggle/edge";
import { type Context, invocation, kept, report } from "./support/lambda.ts";

const minute = kept((ports) => minuteHandler(ports, report));

export const handler = (_: unknown, context: Context) => invocation("minute", context, (ports) => minute(ports)());
