import { type SocketEvent, socketHandler } from "@waggle/edge";
import { type Context, invocation, kept, report } from "./support/lambda.ts";

const socket = kept((ports) => socketHandler(ports, report));

export const handler = (event: SocketEvent, context: Context) =>
  invocation("socket", context, (ports) => socket(ports)(event));
