import { scalingHandler } from "@waggle/edge";
import { type Context, invocation } from "./support/lambda.ts";

export const handler = (_: unknown, context: Context) =>
  invocation("scaling", context, (ports) => scalingHandler(ports)());
