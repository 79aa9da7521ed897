import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { configFromEnv, createAws, fromSqs, fromStream, toSqsResponse } from "./index.ts";

const env = {
  AWS_REGION: "eu-central-1",
  WAGGLE_TABLE: "t",
  WAGGLE_BUS: "b",
  WAGGLE_BUCKET: "k",
  ...Object.fromEntries(
    ["DISPATCH", "TIMERS", "DELIVER", "INTAKE"].flatMap((name) => [
      [`WAGGLE_QUEUE_${name}`, `https://sqs/${name}`],
      [`WAGGLE_DLQ_${name}`, `https://sqs/${name}-dead`],
    ]),
  ),
};

describe("configuration", () => {
  test("is read from the environment", () => {
    expect(configFromEnv({ ...env, WAGGLE_SOCKET_ENDPOINT: "https://s", AWS_ENDPOINT_URL: "http://e" })).toMatchObject({
      region: "eu-central-1",
      table: "t",
      queues: { deliver: "https://sqs/DELIVER" },
      deadLetters: { intake: "https://sqs/INTAKE-dead" },
      socketEndpoint: "https://s",
      endpoint: "http://e",
    });
  });

  test("names everything that is missing at once", () => {
    const { WAGGLE_TABLE: _, WAGGLE_DLQ_TIMERS: __, ...rest } = env as Record<string, string>;
    expect(() => configFromEnv(rest)).toThrow("the environment lacks WAGGLE_TABLE, WAGGLE_DLQ_TIMERS");
  });
});

describe("Lambda's events", () => {
  test("messages say how often they came; failed ones are named in the answer", () => {
    const record = { messageId: "m", receiptHandle: "r", attributes: { ApproximateReceiveCount: "3" } };
    expect(
      fromSqs([
        { ...record, body: '{"a":[1]}' },
        { ...record, body: "no json" },
      ]),
    ).toEqual([
      { id: "m", body: { a: [1] }, receives: 3, receipt: "r" },
      { id: "m", body: "no json", receives: 3, receipt: "r" },
    ]);
    expect(toSqsResponse({ failed: ["m"] })).toEqual({ batchItemFailures: [{ itemIdentifier: "m" }] });
  });

  test("changes have both images and a position that sorts, and hide what the engine keeps", () => {
    const Keys = { pk: { S: "t" }, sk: { S: "a" } };
    const image = (n: string) => ({ ...Keys, kind: { S: "task" }, n: { N: n }, "~": { S: "abcdef" } });
    const changes = fromStream([
      { dynamodb: { Keys, SequenceNumber: "99", NewImage: image("1") } },
      { dynamodb: { Keys, SequenceNumber: "100", OldImage: image("1"), NewImage: image("2") } },
      { dynamodb: { Keys, SequenceNumber: "101", OldImage: image("2") } },
    ]);
    const row = (n: number) => ({ pk: "t", sk: "a", kind: "task", n });
    expect(changes.map(({ key, old, new: next }) => [key, old, next])).toEqual([
      [{ pk: "t", sk: "a" }, undefined, row(1)],
      [{ pk: "t", sk: "a" }, row(1), row(2)],
      [{ pk: "t", sk: "a" }, row(2), undefined],
    ]);
    const positions = changes.map((change) => change.position);
    expect(positions.toSorted()).toEqual(positions);
  });
});

describe("messages to connections", () => {
  const got: string[] = [];
  let busy = 0;
  const server = createServer((request, response) => {
    const id = request.url?.split("/").at(-1);
    let body = "";
    request.on("data", (chunk) => (body += chunk));
    request.on("end", () => {
      if (id === "gone") response.statusCode = 410;
      else if (id === "refused") response.statusCode = 403;
      else if (busy-- > 0) response.statusCode = 503;
      else got.push(`${id}:${request.method === "DELETE" ? "ended" : body}`);
      response.end("{}");
    });
  });
  beforeEach(async () => {
    process.env.AWS_ACCESS_KEY_ID ??= "test";
    process.env.AWS_SECRET_ACCESS_KEY ??= "test";
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  });
  afterEach(() => {
    server.closeAllConnections();
    server.close();
  });

  test("leave in order before the invocation ends; one that is gone is told of, and what AWS refuses, and what failed", async () => {
    const socketEndpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}/live`;
    const unsent: unknown[] = [];
    const options = { retry: { baseMs: 1 }, onUnsent: (error: unknown) => void unsent.push(error) };
    const aws = createAws({ ...configFromEnv(env), socketEndpoint }, options);
    const { live } = aws.ports;
    const gone: string[] = [];
    live.onGone(async (id) => void gone.push(id));
    const unseen = new Error("what it had could not be given back");
    live.onGone(() => Promise.reject(unseen));
    busy = 2;
    await aws.invocation(5_000, async () => {
      for (const n of [1, 2, 3]) live.publish("connection/abc", { n });
      live.publish("connection/abc", null);
      live.publish("connection/gone", {});
      live.publish("connection/refused", {});
    });
    expect([got, gone]).toEqual([['abc:{"n":1}', 'abc:{"n":2}', 'abc:{"n":3}', "abc:ended"], ["gone"]]);
    expect(unsent).toHaveLength(2);
    expect(unsent).toContain(unseen);
    expect(unsent).toContainEqual(
      expect.objectContaining({ $metadata: expect.objectContaining({ httpStatusCode: 403 }) }),
    );
    await aws.close();
  });
});

test("an invocation that fails ends with its last call: nothing goes on when its process is thawed for another", async () => {
  let written = 0;
  const server = createServer((request, response) => {
    request.resume().on("end", () => {
      const reads = String(request.headers["x-amz-target"]).endsWith("GetItem");
      if (reads) response.statusCode = 400;
      else written++;
      response.end(reads ? '{"__type":"ValidationException"}' : "{}");
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  process.env.AWS_ACCESS_KEY_ID ??= "test";
  process.env.AWS_SECRET_ACCESS_KEY ??= "test";
  const storeEndpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const aws = createAws({ ...configFromEnv(env), storeEndpoint });
  const { store } = aws.ports;
  const writes = async () => {
    for (let n = 0; n < 20; n++) await store.write({ put: { pk: "a", sk: String(n), kind: "k" } });
  };
  const run = () => Promise.all([store.get({ pk: "a", sk: "b" }), writes()]);
  await expect(aws.invocation(10_000, run)).rejects.toThrow();
  expect(written).toBe(20);
  await aws.close();
  server.closeAllConnections();
  server.close();
});

test("a transaction that DynamoDB takes long over is waited for, and given up only as all calls are", async () => {
  let left = 0;
  const tokens = new Set<string>();
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (chunk) => (body += chunk));
    request.on("end", () => {
      tokens.add(JSON.parse(body).ClientRequestToken);
      if (left-- <= 0) return response.end("{}");
      response.statusCode = 400;
      response.end('{"__type":"TransactionInProgressException"}');
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  process.env.AWS_ACCESS_KEY_ID ??= "test";
  process.env.AWS_SECRET_ACCESS_KEY ??= "test";
  const storeEndpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const aws = createAws({ ...configFromEnv(env), storeEndpoint }, { retry: { baseMs: 1, capMs: 2 } });
  const write = () => aws.ports.store.transact(["a", "b"].map((sk) => ({ put: { pk: "p", sk, kind: "k" } })));
  left = 12;
  expect(await write()).toEqual({ ok: true });
  expect(tokens.size).toBe(1);
  left = Number.POSITIVE_INFINITY;
  await expect(aws.invocation(100, write)).rejects.toMatchObject({ code: "store.unavailable" });
  await aws.close();
  server.closeAllConnections();
  server.close();
});

test("a batch of new rows whose reply is lost leaves alone what others have made of them meanwhile", async () => {
  type Row = Record<string, { readonly S: string }>;
  const rows = new Map<string, Row>();
  const idOf = (row: Row) => row.sk?.S as string;
  const calls: string[] = [];
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (chunk) => (body += chunk));
    request.on("end", () => {
      const call = String(request.headers["x-amz-target"]).split(".").at(-1) as string;
      calls.push(call);
      const { Item, ConditionExpression = "", RequestItems } = JSON.parse(body);
      if (call === "BatchWriteItem") {
        for (const { PutRequest } of RequestItems.t) rows.set(idOf(PutRequest.Item), PutRequest.Item);
        // Somebody was given the first and has done it, and whoever wrote it has not heard that it is there.
        rows.set("a", { ...rows.get("a"), status: { S: "completed" } } as Row);
        rows.delete("c");
        return request.socket.destroy();
      }
      if (ConditionExpression.includes("attribute_not_exists") && rows.has(idOf(Item))) {
        response.statusCode = 400;
        return response.end('{"__type":"ConditionalCheckFailedException"}');
      }
      rows.set(idOf(Item), Item);
      response.end("{}");
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  process.env.AWS_ACCESS_KEY_ID ??= "test";
  process.env.AWS_SECRET_ACCESS_KEY ??= "test";
  const storeEndpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const aws = createAws({ ...configFromEnv(env), storeEndpoint }, { retry: { baseMs: 1 } });
  const puts = ["a", "b", "c"].map((sk) => ({ put: { pk: "p", sk, kind: "task", status: "queued" } }));
  await aws.ports.store.batchWrite(puts.map(({ put }) => ({ put, if: { exists: false } })));
  expect([...rows].map(([sk, { status }]) => [sk, status?.S]).sort()).toEqual([
    ["a", "completed"],
    ["b", "queued"],
    ["c", "queued"],
  ]);
  expect(calls.sort()).toEqual(["BatchWriteItem", "PutItem", "PutItem", "PutItem"]);
  await aws.close();
  server.closeAllConnections();
  server.close();
});
