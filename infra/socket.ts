import { functions } from "./manifest.ts";
import { tags } from "./stage.ts";

const { requestsPerSecond, burst } = functions.socket.trigger;

/** Connections of agents. Who connects is told by their token, in the function behind it. */
export const socket = new sst.aws.ApiGatewayWebSocket("Socket", {
  accessLog: { retention: "1 week" },
  transform: {
    api(args) {
      args.routeSelectionExpression = "$request.body.op";
      args.tags = tags;
    },
    stage(args) {
      args.defaultRouteSettings = { throttlingRateLimit: requestsPerSecond, throttlingBurstLimit: burst };
      args.tags = tags;
    },
  },
});

/** Keeps a connection from being closed for silence. The gateway answers it by itself, with nothing, and no function is called. */
const ping = new aws.apigatewayv2.Integration("SocketPing", {
  apiId: socket.nodes.api.id,
  integrationType: "MOCK",
  requestTemplates: { $default: '{"statusCode":200}' },
  templateSelectionExpression: "\\$default",
});
new aws.apigatewayv2.Route("SocketPingRoute", {
  apiId: socket.nodes.api.id,
  routeKey: "ping",
  target: $interpolate`integrations/${ping.id}`,
});
