import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { afterEach, describe, expect, test } from "vitest";
import { createChecker, createOutbound, type OutboundOptions, outboundFromEnv } from "./index.ts";

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close().closeAllConnections();
});
async function receiver(listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, "127.0.0.1");
  servers.push(server);
  await once(server, "listening");
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`;
}
const laptop = (options: OutboundOptions = {}) => createOutbound({ allowLoopbackTargets: true, ...options });
const post = (url: string, options?: OutboundOptions, more = {}) =>
  laptop(options).http({ url, headers: { "webhook-id": "msg_1" }, body: '{"text":"żółć"}', ...more });

test("what is sent arrives as it is, and the answer comes back", async () => {
  let seen: unknown;
  const url = await receiver(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const { method, headers, url } = request;
    seen = {
      method,
      url,
      id: headers["webhook-id"],
      type: headers["content-type"],
      text: Buffer.concat(chunks).toString(),
    };
    response.writeHead(503, { "retry-after": "7" }).end('{"later":true}');
  });
  expect(await post(url)).toEqual({ status: 503, body: '{"later":true}', retryAfterSeconds: 7 });
  expect(seen).toEqual({
    method: "POST",
    url: "/hook",
    id: "msg_1",
    type: "application/json",
    text: '{"text":"żółć"}',
  });
});

test("a redirect is not followed", async () => {
  let called = 0;
  const target = await receiver((_, response) => {
    called++;
    response.end();
  });
  const url = await receiver((_, response) => response.writeHead(307, { location: target }).end());
  expect((await post(url)).status).toBe(307);
  expect(called).toBe(0);
});

test("a name is looked up once: what it stands for afterwards has no part in it", async () => {
  let called = 0;
  const url = new URL(
    await receiver((_, response) => {
      called++;
      response.end();
    }),
  );
  url.hostname = "rebinding.example";
  let asked = 0;
  const resolve = async () => [{ address: asked++ === 0 ? "127.0.0.1" : "169.254.169.254" }];
  expect((await post(url.href, { resolve, allowPrivateTargets: true })).status).toBe(200);
  expect([asked, called]).toEqual([1, 1]);
});

test("a server that may not call this machine does not, by address or by name", async () => {
  let called = 0;
  const url = new URL(
    await receiver((_, response) => {
      called++;
      response.end();
    }),
  );
  await expect(post(url.href, { allowLoopbackTargets: false })).rejects.toMatchObject({ code: "delivery.failed" });
  url.hostname = "public.example";
  url.protocol = "https:";
  const resolve = async () => [{ address: "127.0.0.1" }];
  await expect(post(url.href, { allowLoopbackTargets: false, resolve })).rejects.toThrow(/this machine/);
  expect(called).toBe(0);
});

test("an answer of 64 KB is taken, a larger one is not, whatever length it claims", async () => {
  const url = await receiver((request, response) => {
    request.resume();
    response.end("x".repeat(64 * 1024 + (request.headers["webhook-id"] === "msg_1" ? 1 : 0)));
  });
  await expect(post(url)).rejects.toMatchObject({ code: "delivery.answer_too_large" });
  const endless = await receiver((_, response) => {
    const more = () => void (response.destroyed || response.write("x".repeat(16_384), more));
    more();
  });
  await expect(post(endless)).rejects.toMatchObject({ code: "delivery.answer_too_large" });
  expect((await post(url, {}, { headers: {} })).body.length).toBe(64 * 1024);
});

test.each([
  ["no headers come", { headersSeconds: 0.05 }, {}, /no answer began within 0.05 s/],
  ["the whole takes too long", { webhookSeconds: 0.05 }, {}, /within 0.05 s/],
  ["the task has less time than that", {}, { timeoutSeconds: 0.05 }, /within 0.05 s/],
  [
    "its name is not found in time",
    { headersSeconds: 0.05, resolve: () => new Promise<never>(() => {}) },
    {},
    /0.05 s/,
  ],
])("a call ends when %s", async (_, options, more, message) => {
  const silent = new URL(await receiver(() => {}));
  if ("resolve" in options) silent.hostname = "slow.localhost";
  await expect(post(silent.href, options, more)).rejects.toThrow(message);
});

test("an answer that begins in time and does not end is given up", async () => {
  const url = await receiver((_, response) => void response.write("{"));
  await expect(post(url, { webhookSeconds: 0.2 })).rejects.toThrow(/not whole within 0.2 s/);
});

test("a receiver that is not there, or hangs up, is said in words", async () => {
  const url = await receiver((request) => void request.socket.destroy());
  await expect(post(url)).rejects.toThrow(/closed before an answer/);
  servers.splice(0).forEach((server) => void server.close());
  await expect(post(url)).rejects.toThrow(/refused/);
});

test("a server that stops ends its calls, and holds none of that against the receiver", async () => {
  const outbound = laptop();
  const url = await receiver(() => outbound.close());
  await expect(outbound.http({ url, headers: {}, body: "{}" })).rejects.toMatchObject({ code: "server.not_ready" });
});

const noAws = {
  AWS_EC2_METADATA_DISABLED: "true",
  AWS_SHARED_CREDENTIALS_FILE: "/dev/null",
  AWS_CONFIG_FILE: "/dev/null",
};
test("a function or queue is refused in words where there are no credentials or no region", async () => {
  const before = { ...process.env };
  for (const name of Object.keys(process.env)) if (name.startsWith("AWS_")) delete process.env[name];
  Object.assign(process.env, noAws);
  try {
    const outbound = createOutbound();
    const functionArn = "arn:aws:lambda:eu-west-1:123456789012:function:worker";
    expect(await outbound.check({ type: "lambda", functionArn })).toMatch(/no AWS credentials.*AWS_PROFILE/);
    const queueUrl = "https://sqs.eu-west-1.amazonaws.com/123456789012/work";
    expect(await outbound.check({ type: "queue", queueUrl })).toMatch(/no AWS credentials/);
    expect(await outbound.check({ type: "queue", queueUrl: `${queueUrl}.fifo` })).toMatch(/FIFO/);
    expect(await outbound.check({ type: "queue", queueUrl: "https://evil.example/1/q" })).toMatch(
      /URL of an SQS queue/,
    );
    const emulated = createOutbound({ env: { AWS_ENDPOINT_URL: "http://localhost:4566" } });
    const local = { type: "queue", queueUrl: "http://localhost:4566/000000000000/q" } as const;
    expect(await emulated.check(local)).toMatch(/AWS_REGION/);
    Object.assign(process.env, { AWS_ACCESS_KEY_ID: "x", AWS_SECRET_ACCESS_KEY: "x" });
    expect(await createOutbound().check({ type: "lambda", functionArn })).toBeUndefined();
  } finally {
    for (const name of Object.keys(process.env)) if (!(name in before)) delete process.env[name];
    Object.assign(process.env, before);
  }
});

describe("a queue", () => {
  const queueUrl = "https://sqs.eu-west-1.amazonaws.com/123456789012/work";
  const before = { ...process.env };
  afterEach(() => {
    for (const name of Object.keys(process.env)) if (!(name in before)) delete process.env[name];
    Object.assign(process.env, before);
  });
  /** A server in SQS's place. @returns bodies of messages sent to it */
  async function sqs(refusal?: string): Promise<readonly string[]> {
    const sent: string[] = [];
    const endpoint = await receiver(async (request, response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      const { MessageBody } = JSON.parse(Buffer.concat(chunks).toString());
      sent.push(MessageBody);
      if (refusal !== undefined) response.statusCode = 400;
      const MD5OfMessageBody = createHash("md5").update(MessageBody).digest("hex");
      response.end(JSON.stringify(refusal === undefined ? { MD5OfMessageBody } : { message: refusal }));
    });
    Object.assign(process.env, { AWS_ACCESS_KEY_ID: "x", AWS_SECRET_ACCESS_KEY: "x", AWS_ENDPOINT_URL_SQS: endpoint });
    return sent;
  }

  test("is sent whatever JSON can say, as SQS takes it", async () => {
    const said = { text: "a\ufffe\uffff\ufffdżółć😀" };
    const bodies = await sqs();
    await createOutbound().send(queueUrl, JSON.stringify(said));
    const [sent = ""] = bodies;
    expect(JSON.parse(sent)).toEqual(said);
    // Source: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
    expect(sent).toMatch(/^[\t\n\r\x20-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]*$/u);
  });

  test.each([
    [
      "of a limit of its own tells so",
      "Reason: Message must be shorter than 262144 bytes.",
      "delivery.answer_too_large",
    ],
    ["that refuses for another reason was not reached", "The queue is not there.", "delivery.failed"],
  ])("%s", async (_, refusal, code) => {
    await sqs(`One or more parameters are invalid. ${refusal}`);
    await expect(createOutbound().send(queueUrl, "{}")).rejects.toMatchObject({ code });
  });
});

test("settings come from the environment, and a wrong one is named", () => {
  const { publicUrl, secretKey, ...rest } = outboundFromEnv({
    WAGGLE_PUBLIC_URL: "https://waggle.example.com/",
    WAGGLE_SECRET_KEY: "k",
    WAGGLE_ALLOW_PRIVATE_TARGETS: "1",
    WAGGLE_WEBHOOK_SECONDS: "60",
  });
  expect([publicUrl?.(), secretKey?.()]).toEqual(["https://waggle.example.com", "k"]);
  expect(rest).toMatchObject({ allowPrivateTargets: true, webhookSeconds: 60 });
  expect(() => outboundFromEnv({ WAGGLE_WEBHOOK_SECONDS: "1h" })).toThrow(/WAGGLE_WEBHOOK_SECONDS/);
  expect(() => outboundFromEnv({ WAGGLE_PUBLIC_URL: "waggle" })).toThrow(/WAGGLE_PUBLIC_URL/);
});

test("what only registers agents checks targets as what calls them does, and carries nothing of AWS", async () => {
  const checker = createChecker({ env: {} });
  const url = "https://example.com/hook";
  expect(await checker.check({ type: "webhook", url })).toBeUndefined();
  expect(await checker.check({ type: "webhook", url: "https://10.0.0.1/" })).toMatch(/private network/);
  expect(await checker.check({ type: "queue", queueUrl: url })).toMatch(/URL of an SQS queue/);
  const functionArn = "arn:aws:lambda:eu-west-1:123456789012:function:worker";
  expect(await checker.check({ type: "lambda", functionArn })).toBeUndefined();
  const { metafile } = await build({
    stdin: {
      contents: 'export { createChecker } from "./index.ts";',
      resolveDir: fileURLToPath(new URL(".", import.meta.url)),
    },
    bundle: true,
    write: false,
    metafile: true,
    platform: "node",
    format: "esm",
    conditions: ["source"],
  });
  const [output] = Object.values(metafile.outputs);
  const carried = Object.entries(output?.inputs ?? {}).filter(([, { bytesInOutput }]) => bytesInOutput > 0);
  expect(carried.map(([path]) => path).filter((path) => /aws|smithy/.test(path))).toEqual([]);
});
