import { PassThrough } from "node:stream";
import { text } from "node:stream/consumers";
import { pathToFileURL } from "node:url";
import { root } from "../support/root.ts";

// Calls the bundled API once, as Lambda's runtime does for a call of its URL, and prints the answer: path, method (GET). Nothing of AWS is there.
const queues = ["DISPATCH", "TIMERS", "DELIVER", "INTAKE"].flatMap((name) => [`QUEUE_${name}`, `DLQ_${name}`]);
const names = ["TABLE", "BUS", "BUCKET", ...queues].map((name) => [`WAGGLE_${name}`, "http://127.0.0.1:1/nothing"]);
Object.assign(process.env, Object.fromEntries(names), { AWS_REGION: "us-east-1" });
let head: object = {};
Object.assign(globalThis, {
  awslambda: {
    streamifyResponse: (handler: unknown) => handler,
    HttpResponseStream: {
      from(out: PassThrough, given: object) {
        head = given;
        return out;
      },
    },
  },
});
const file = pathToFileURL(`${root}/dist/functions/api/bundle.mjs`).href;
const { handler } = (await import(file)) as {
  handler(event: object, out: PassThrough, context: object): Promise<void>;
};
const out = new PassThrough();
const body = text(out);
const event = {
  rawPath: process.argv[2],
  rawQueryString: "",
  headers: {},
  isBase64Encoded: false,
  requestContext: { domainName: "api.example", http: { method: process.argv[3] ?? "GET", sourceIp: "192.0.2.1" } },
};
await handler(event, out, { awsRequestId: "test", getRemainingTimeInMillis: () => 20_000 });
// A pipe takes a long text in parts.
process.stdout.write(JSON.stringify({ ...head, text: await body }), () => process.exit());
