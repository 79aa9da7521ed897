// Lambda's Node runtime, as far as our functions use it: node runtime.mjs <descriptor of requests> <descriptor of answers>
import { createReadStream, existsSync, writeSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Writable } from "node:stream";
import { pathToFileURL } from "node:url";

const [requests, answers] = process.argv.slice(2).map(Number);
const { LAMBDA_TASK_ROOT: folder, _HANDLER: handlerName = "", AWS_LAMBDA_FUNCTION_NAME: functionName } = process.env;
const streamed = Symbol("streamed");

// A stream of the answer: https://docs.aws.amazon.com/lambda/latest/dg/configuration-response-streaming.html
globalThis.awslambda = {
  streamifyResponse: (handler) => Object.assign(handler, { [streamed]: true }),
  HttpResponseStream: {
    from(out, head) {
      out.head = head;
      return out;
    },
  },
};

function answer(failed, body) {
  const bytes = Buffer.from(`${JSON.stringify({ failed, body })}\n`);
  for (let at = 0; at < bytes.length; ) at += writeSync(answers, bytes, at);
}

function fail(error) {
  const { name = "Error", message = String(error), stack = "" } = error ?? {};
  answer(true, JSON.stringify({ errorType: name, errorMessage: message, trace: stack.split("\n") }));
}

async function load() {
  const dot = handlerName.lastIndexOf(".");
  const file = [".mjs", ".js", ".cjs"].map((end) => join(folder, handlerName.slice(0, dot) + end)).find(existsSync);
  if (file === undefined) throw new Error(`there is no file of the handler ${handlerName}`);
  const module = await import(pathToFileURL(file).href);
  const name = handlerName.slice(dot + 1);
  const handler = module[name] ?? module.default?.[name];
  if (typeof handler !== "function") throw new Error(`${handlerName} is no function`);
  return handler;
}

/** Gathers what is streamed: LocalStack answers at once, in the shape of an answer that was not streamed. */
async function gather(handler, event, context) {
  const chunks = [];
  const out = new Writable({
    write(chunk, _encoding, done) {
      chunks.push(Buffer.from(chunk));
      done();
    },
  });
  await handler(event, out, context);
  if (!out.writableEnded) out.end();
  const body = Buffer.concat(chunks);
  return out.head === undefined
    ? body.toString()
    : { ...out.head, body: body.toString("base64"), isBase64Encoded: true };
}

const handler = await load().catch((error) => {
  fail(error);
  process.exit(1);
});
answer(false, "");

for await (const line of createInterface({ input: createReadStream("", { fd: requests }) })) {
  const { id, arn, event, milliseconds } = JSON.parse(line);
  const until = Date.now() + milliseconds;
  const context = {
    awsRequestId: id,
    invokedFunctionArn: arn,
    functionName,
    functionVersion: process.env.AWS_LAMBDA_FUNCTION_VERSION,
    memoryLimitInMB: process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    callbackWaitsForEmptyEventLoop: true,
    getRemainingTimeInMillis: () => Math.max(0, until - Date.now()),
  };
  try {
    const run = handler[streamed] ? gather : (each, ...args) => each(...args);
    const value = await run(handler, JSON.parse(event), context);
    answer(false, JSON.stringify(value ?? null));
  } catch (error) {
    fail(error);
  }
}
