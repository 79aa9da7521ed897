import { DescribeTableCommand } from "@aws-sdk/client-dynamodb";
import type { _Record, Shard } from "@aws-sdk/client-dynamodb-streams";
import type { Change, ChangeFeed, Store } from "@waggle/core";
import type { Parts } from "./aws.ts";
import { applyProjection } from "./project.ts";
import { fromStream, isOf } from "./stream.ts";

export interface FeedParts extends Parts {
  readonly table: string;
  readonly store: Store;
  /** Pause after a read that found nothing. DynamoDB allows five reads a second of a shard. */
  readonly idleMs: number;
}

type Handler = (changes: readonly Change[]) => Promise<void>;

/** How often new shards are looked for: one that splits is read on within this time. */
const discoverMs = 1_000;
const failureCapMs = 10_000;

const positionsOf = (consumer: string) => `STREAM#${consumer}`;

/**
 * Reads the table's stream as Lambda would: each shard from its beginning or from where the consumer left off, a shard's
 * children after it, so that the changes of one row stay in order. How far a consumer came is a row of its own,
 * written after the handler; a crash between the two gives a batch again.
 */
export function createFeed({ table, clients, caller, store, idleMs }: FeedParts) {
  const running = new Set<() => Promise<void>>();
  let streamArn: Promise<string> | undefined;

  async function findStream(): Promise<string> {
    const { Table } = await caller.call("store", ({ signal }) =>
      clients.dynamo().send(new DescribeTableCommand({ TableName: table }), { abortSignal: signal }),
    );
    if (Table?.LatestStreamArn === undefined) throw new Error(`the table ${table} has no stream`);
    return Table.LatestStreamArn;
  }

  async function listShards(arn: string): Promise<Shard[]> {
    const { DescribeStreamCommand } = await import("@waggle/engine-aws/sdk/streams");
    const client = await clients.streams();
    const shards: Shard[] = [];
    for (let after: string | undefined; ; ) {
      const command = new DescribeStreamCommand({
        StreamArn: arn,
        ...(after !== undefined && { ExclusiveStartShardId: after }),
      });
      const { StreamDescription } = await caller.call("store", ({ signal }) =>
        client.send(command, { abortSignal: signal }),
      );
      shards.push(...(StreamDescription?.Shards ?? []));
      after = StreamDescription?.LastEvaluatedShardId;
      if (after === undefined) return shards;
    }
  }

  function consume(consumer: string, kinds: readonly string[], handler: Handler): () => Promise<void> {
    let stopped = false;
    let wake = () => {};
    const stopping = new Promise<void>((resolve) => (wake = resolve));
    const pause = (ms: number) =>
      new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, ms);
        void stopping.then(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    const pk = positionsOf(consumer);
    /** Positions of shards; `done` when a shard that is closed was read to its end. */
    const positions = new Map<string, { position?: string; done?: boolean }>();
    const readers = new Map<string, Promise<void>>();

    const note = async (shard: string, mark: { position?: string; done?: boolean }) => {
      positions.set(shard, mark);
      await store.write({ put: { pk, sk: shard, kind: "stream-position", ...mark } });
    };

    /** Runs until it works, or the feed is stopped. @returns whether it worked */
    async function insist(run: () => Promise<void>): Promise<boolean> {
      for (let failures = 0; !stopped; failures++) {
        try {
          await run();
          return true;
        } catch {
          await pause(Math.min(failureCapMs, 50 * 2 ** failures));
        }
      }
      return false;
    }

    /** Whatever goes wrong beside what is tried again in its place: the shard is read on from where it was left. */
    async function read(arn: string, shard: string): Promise<void> {
      const place = { at: positions.get(shard)?.position };
      await insist(() => readFrom(arn, shard, place));
    }

    /** @param place read up to `at`, though not noted where nothing of interest was in it */
    async function readFrom(arn: string, shard: string, place: { at: string | undefined }): Promise<void> {
      const { GetRecordsCommand, GetShardIteratorCommand } = await import("@waggle/engine-aws/sdk/streams");
      const client = await clients.streams();
      async function iterator(): Promise<string | undefined> {
        const command = new GetShardIteratorCommand({
          StreamArn: arn,
          ShardId: shard,
          ...(place.at === undefined
            ? { ShardIteratorType: "TRIM_HORIZON" }
            : { ShardIteratorType: "AFTER_SEQUENCE_NUMBER", SequenceNumber: place.at }),
        });
        try {
          const found = await caller.call("store", ({ signal }) => client.send(command, { abortSignal: signal }));
          return found.ShardIterator;
        } catch (error) {
          // Away for more than the 24 hours a stream is kept: what is left is given.
          if ((error as Error).name !== "TrimmedDataAccessException" || place.at === undefined) throw error;
          place.at = undefined;
          return await iterator();
        }
      }
      let next: string | undefined;
      const begun = await insist(async () => {
        next = await iterator();
      });
      if (!begun) return;
      while (!stopped && next !== undefined) {
        let records: readonly _Record[] = [];
        let following: string | undefined;
        const gotten = await insist(async () => {
          const command = new GetRecordsCommand({ ShardIterator: next });
          try {
            const answer = await caller.call("store", ({ signal }) => client.send(command, { abortSignal: signal }));
            records = answer.Records ?? [];
            following = answer.NextShardIterator;
          } catch (error) {
            next = await iterator();
            throw error;
          }
        });
        if (!gotten) return;
        const changes = fromStream(records as never).filter((change) => isOf(kinds, change));
        const last = records.at(-1)?.dynamodb?.SequenceNumber;
        if (changes.length > 0) {
          if (!(await insist(() => handler(changes)))) return;
          if (last !== undefined) await insist(() => note(shard, { position: last }));
        }
        place.at = last ?? place.at;
        next = following;
        if (records.length === 0 && next !== undefined) await pause(idleMs);
      }
      const { at } = place;
      if (!stopped) await insist(() => note(shard, { ...(at !== undefined && { position: at }), done: true }));
    }

    async function run(): Promise<void> {
      let arn = "";
      const known = await insist(async () => {
        streamArn ??= findStream();
        try {
          arn = await streamArn;
        } catch (error) {
          streamArn = undefined;
          throw error;
        }
        for (let after: string | undefined; ; ) {
          const page = await store.query({ pk, limit: 1000, ...(after !== undefined && { after }) });
          for (const { sk, position, done } of page.items) {
            positions.set(sk, {
              ...(position !== undefined && { position: position as string }),
              ...(done === true && { done }),
            });
          }
          after = page.last;
          if (after === undefined) break;
        }
      });
      while (known && !stopped) {
        await insist(async () => {
          const shards = await listShards(arn);
          const listed = new Set(shards.map((each) => each.ShardId as string));
          for (const { ShardId = "", ParentShardId } of shards) {
            if (readers.has(ShardId) || positions.get(ShardId)?.done) continue;
            const parentDone =
              ParentShardId === undefined || !listed.has(ParentShardId) || positions.get(ParentShardId)?.done;
            if (parentDone) readers.set(ShardId, read(arn, ShardId));
          }
          for (const [shard, { done }] of positions) {
            if (!done || listed.has(shard)) continue;
            positions.delete(shard);
            await store.write({ delete: { pk, sk: shard } });
          }
        });
        await pause(discoverMs);
      }
      await Promise.all(readers.values());
    }

    const ended = run();
    const stop = async () => {
      stopped = true;
      wake();
      await ended;
      running.delete(stop);
    };
    running.add(stop);
    return stop;
  }

  const changes: ChangeFeed = {
    consume,
    project: (name, kinds, groupOf, derive) =>
      consume(name, kinds, (batch) => applyProjection(store, name, groupOf, derive, batch)),
  };
  return {
    changes,
    async stop() {
      await Promise.all([...running].map((each) => each()));
    },
  };
}
