import { functions } from "./manifest.ts";
import { tags } from "./stage.ts";

const { requestsPerSecond, burst } = functions.socket.trigger;

/** Connections of agents. Who connects is told by their token, in the function behind it. */
export const socket = new sst.aws.ApiGatewayWebSocket("Socket", {
  accessLog: { retention: "1 week" },
  transform: {
    api(args) {
      args.tags = tags;
    },
    stage(args) {
      args.defaultRouteSettings = { throttlingRateLimit: requestsPerSecond, throttlingBurstLimit: burst };
      args.tags = tags;
    },
  },
});
