import { scalingHandler } from "@waggle/edge";
import { type Context, invocation, kept, say } from "./support/lambda.ts";

const scaling = kept((ports) => scalingHandler(ports, (load) => say("INFO", "scaling", load)));

export const handler = (_: unknown, context: Context) => invocation("scaling", context, (ports) => scaling(ports)());
