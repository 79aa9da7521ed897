// One container of a function, as Lambda's Node runtime is for a bundle: node test/aws/container.mjs bundle.mjs
// Events come and answers go by IPC, one invocation at a time.
import { Writable } from "node:stream";
import { pathToFileURL } from "node:url";

const streams = new WeakSet();

/** What Lambda's runtime gives to whoever streams: https://docs.aws.amazon.com/lambda/latest/dg/configuration-response-streaming.html */
globalThis.awslambda = {
  streamifyResponse(handler) {
    streams.add(handler);
    return handler;
  },
  HttpResponseStream: {
    from(out, head) {
      out.head = head;
      return out;
    },
  },
};

const said = (error) =>
  error instanceof Error
    ? { name: error.name, message: error.message, stack: error.stack }
    : { message: String(error) };
const tell = (message, sent) => process.connected && process.send(message, sent);

let current;
/** What the answer is written to. Its head leaves with the first write. */
function outOf(id) {
  let headed = false;
  const out = new Writable({
    highWaterMark: 64 * 1024,
    write(chunk, _, done) {
      if (!headed) {
        headed = true;
        tell({ id, head: out.head ?? { statusCode: 200, headers: { "content-type": "application/octet-stream" } } });
      }
      tell({ id, chunk }, done);
    },
  });
  return out;
}

let handler;
try {
  ({ handler } = await import(pathToFileURL(process.argv[2]).href));
} catch (error) {
  tell({ broken: said(error) });
  throw error;
}

async function invoke({ id, event, deadline }) {
  const context = {
    awsRequestId: id,
    functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
    getRemainingTimeInMillis: () => deadline - Date.now(),
  };
  const streaming = streams.has(handler);
  const out = streaming ? outOf(id) : undefined;
  current = { id, out };
  try {
    const result = await (streaming ? handler(event, out, context) : handler(event, context));
    if (out && !out.writableFinished) await new Promise((resolve) => out.end(resolve));
    // What is no JSON, Lambda leaves out.
    tell({ id, done: true, result: result === undefined ? null : JSON.parse(JSON.stringify(result)) });
  } catch (error) {
    tell({ id, done: true, error: said(error) });
  }
  current = undefined;
}

process.on("message", (message) => {
  // Whoever asked has hung up.
  if (message.gone) {
    if (current?.id === message.gone) current.out?.destroy();
    return;
  }
  void invoke(message);
});
process.on("disconnect", () => process.exit(0));
tell({ ready: true });
