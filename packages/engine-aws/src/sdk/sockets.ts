// Bundled whole by itself: what few calls need is loaded with the first of them, and weighs on no start.
export {
  ApiGatewayManagementApiClient,
  DeleteConnectionCommand,
  PostToConnectionCommand,
} from "@aws-sdk/client-apigatewaymanagementapi";
