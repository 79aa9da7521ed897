// Bundled whole by itself: what few calls need is loaded with the first of them, and weighs on no start.
export { SQSClient } from "@aws-sdk/client-sqs";
export { createQueue } from "../queue.ts";
