import { socketHandler } from "@waggle/edge";
import { type Context, invocation } from "./support/lambda.ts";

type SocketEvent = Parameters<ReturnType<typeof socketHandler>>[0];

export const handler = (event: SocketEvent, context: Context) =>
  invocation("socket", context, (ports) => socketHandler(ports)(event));
