import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import type { AwsConfig } from "@waggle/engine-aws";
import { createResources, deleteResources, openAws } from "@waggle/engine-aws";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { emulators, emulatorsLack } from "../support/emulator.ts";

interface Shard {
  readonly id: string;
  readonly parent?: string;
  readonly records: object[];
  open: boolean;
}

/** No emulator splits a shard: this serves a stream of our making, and leaves the table to the emulator. */
async function serveStream(
  shards: Shard[],
  table: string,
): Promise<{ server: Server; endpoint: string; reads: string[] }> {
  const reads: string[] = [];
  const find = (id: string) => shards.find((each) => each.id === id) as Shard;
  const answers: Record<string, (input: Record<string, string>) => object> = {
    DescribeStream: () => ({
      StreamDescription: {
        Shards: shards.map(({ id, parent }) => ({ ShardId: id, ...(parent && { ParentShardId: parent }) })),
      },
    }),
    GetShardIterator: ({ ShardId = "", ShardIteratorType, SequenceNumber }) => {
      const { records } = find(ShardId);
      const at = records.findIndex((each) => numberOf(each) === SequenceNumber) + 1;
      return { ShardIterator: `${ShardId}:${ShardIteratorType === "TRIM_HORIZON" ? 0 : at}` };
    },
    GetRecords: ({ ShardIterator = "" }) => {
      const [id = "", at = ""] = ShardIterator.split(":");
      const { records, open } = find(id);
      reads.push(id);
      const next = Math.min(records.length, Number(at) + 2);
      const Records = records.slice(Number(at), next);
      return { Records, ...((open || next < records.length) && { NextShardIterator: `${id}:${next}` }) };
    },
  };
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", async () => {
      const body = Buffer.concat(chunks);
      const target = String(request.headers["x-amz-target"]);
      response.setHeader("content-type", "application/x-amz-json-1.0");
      if (target.startsWith("DynamoDBStreams")) {
        const answer = answers[target.split(".")[1] as string]?.(JSON.parse(body.toString()));
        return response.end(JSON.stringify(answer));
      }
      const { host, "content-length": _, ...headers } = request.headers;
      const passed = await fetch(table, { method: "POST", body, headers: headers as Record<string, string> });
      response.statusCode = passed.status;
      response.end(Buffer.from(await passed.arrayBuffer()));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { server, endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, reads };
}

const numberOf = (record: object) => (record as { dynamodb: { SequenceNumber: string } }).dynamodb.SequenceNumber;
const record = (sk: string, n: number, sequence: number) => {
  const Keys = { pk: { S: "t#T#1" }, sk: { S: sk } };
  const image = (value: number) => ({ ...Keys, kind: { S: "row" }, n: { N: String(value) }, "~": { S: "mark" } });
  return {
    eventName: n === 1 ? "INSERT" : "MODIFY",
    dynamodb: {
      Keys,
      SequenceNumber: String(sequence),
      NewImage: image(n),
      ...(n > 1 && { OldImage: image(n - 1) }),
    },
  };
};

const lack = emulatorsLack.ministack();

describe.skipIf(lack !== undefined)("a stream whose shards split", () => {
  let config: AwsConfig;
  let stream: Awaited<ReturnType<typeof serveStream>>;
  let shards: Shard[];
  beforeEach(async () => {
    process.env.AWS_ACCESS_KEY_ID ??= "test";
    process.env.AWS_SECRET_ACCESS_KEY ??= "test";
    const { endpoint } = await emulators.ministack();
    const made = await createResources({ prefix: `shards-${process.pid}-${Date.now()}`, endpoint });
    // Sequence numbers change their length: as texts 99 comes after 100.
    shards = [{ id: "s1", records: [record("a", 1, 97), record("b", 1, 98), record("a", 2, 99)], open: true }];
    stream = await serveStream(shards, endpoint);
    config = { ...made, storeEndpoint: stream.endpoint };
  });
  afterEach(async () => {
    await deleteResources(config);
    stream.server.close();
    stream.server.closeAllConnections();
  });

  /** s1 ends; its rows go on in two, and one of those splits again. */
  function split(): void {
    (shards[0] as Shard).open = false;
    shards.push(
      { id: "s3", parent: "s2", records: [record("a", 4, 120), record("a", 5, 121)], open: true },
      { id: "s2", parent: "s1", records: [record("a", 3, 110)], open: false },
      { id: "s4", parent: "s1", records: [record("b", 2, 105), record("b", 3, 106)], open: true },
    );
  }
  const patience = { timeout: 15_000, interval: 20 };

  test("gives a row's changes in order, parents before children, also from where it left off", async () => {
    const given: [string, unknown, unknown][] = [];
    let calls = 0;
    const open = async () => {
      const engine = await openAws(config, { streamIdleMs: 10 });
      engine.changes.consume("c", ["row"], async (changes) => {
        if (++calls % 3 === 2) throw new Error("not now");
        for (const { key, old, new: next } of changes) given.push([key.sk, old?.n, next?.n]);
      });
      return engine;
    };
    let engine = await open();
    await expect.poll(() => given.length, patience).toBe(3);
    await engine.close();
    split();
    engine = await open();
    await expect.poll(() => given.length, patience).toBe(8);
    const of = (row: string) => given.filter(([sk]) => sk === row).map(([, , n]) => n);
    expect([of("a"), of("b")]).toEqual([
      [1, 2, 3, 4, 5],
      [1, 2, 3],
    ]);
    await engine.close();
    // What was read to its end is not read again.
    stream.reads.length = 0;
    engine = await open();
    await expect.poll(() => new Set(stream.reads).size, patience).toBe(2);
    expect(new Set(stream.reads)).toEqual(new Set(["s3", "s4"]));
    expect(given.length).toBe(8);
    await engine.close();
  });

  test("counts a change once, whichever shards bring it how often", async () => {
    const project = (name: string) =>
      engine.changes.project(
        "sum",
        ["row"],
        () => "t",
        async (changes) => ({
          once: [{ update: { pk: "t#C", sk: name }, kind: "sum", add: { n: changes.length } }],
          again: [],
        }),
      );
    let engine = await openAws(config, { streamIdleMs: 10 });
    const count = async () => (await engine.ports.store.get({ pk: "t#C", sk: "sum" }))?.n;
    project("sum");
    split();
    await expect.poll(count, patience).toBe(8);
    await engine.close();
    // It lost its place, and gets all of it again.
    engine = await openAws(config, { streamIdleMs: 10 });
    const { store } = engine.ports;
    const places = await store.query({ pk: "STREAM#sum", limit: 100 });
    await store.batchWrite(places.items.map(({ pk, sk }) => ({ delete: { pk, sk } })));
    stream.reads.length = 0;
    project("sum");
    await expect.poll(() => new Set(stream.reads).size, patience).toBe(4);
    (shards[2] as Shard).open = false;
    (shards[1] as Shard).records.push(record("a", 6, 122));
    await expect.poll(count, patience).toBe(9);
    await engine.close();
  });
});
