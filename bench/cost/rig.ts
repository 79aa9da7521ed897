import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type Change,
  type Clock,
  type Item,
  type Meter,
  outboxKinds,
  type Ports,
  type RowKey,
  type Write,
} from "@waggle/core";
import { createAws, createResources, deleteResources } from "@waggle/engine-aws";
import { openEmbedded } from "@waggle/engine-embedded";
import { emulators } from "../../test/support/emulator.ts";

/** `embedded`: our own count of AWS units. `dynamodb-local`: what DynamoDB Local reports it consumed; queues on MiniStack. */
export type RigKind = "embedded" | "dynamodb-local";

export interface Rig {
  readonly ports: Ports;
  meter(): Meter;
  /** Changes of tasks and agents since it was asked last, in order for each row. */
  changes(): Promise<readonly Change[]>;
  close(): Promise<void>;
}

export const openRig = (kind: RigKind, clock: Clock): Promise<Rig> =>
  kind === "embedded" ? onEmbedded(clock) : onDynamo(clock);

async function onEmbedded(clock: Clock): Promise<Rig> {
  const dataDir = mkdtempSync(join(tmpdir(), "waggle-cost-"));
  const engine = await openEmbedded({ dataDir, clock });
  let seen: Change[] = [];
  let position = 0;
  // As a projection, since one can be waited for until it has every change. Numbers are its own: the log's have gaps that depend on
  // how long the disk takes, and the gaps are stored with what was applied.
  const end = engine.changes.project(
    "cost",
    outboxKinds,
    () => "all",
    async (changes) => {
      seen.push(...changes.map((change) => ({ ...change, position: positionOf(++position) })));
      return { once: [], again: [] };
    },
  );
  return {
    // On AWS a write that is answered is kept: nobody waits, and nothing here depends on how long a disk takes.
    ports: { ...engine.ports, store: { ...engine.ports.store, settled: () => Promise.resolve() } },
    meter: () => engine.meter(),
    async changes() {
      await engine.ports.store.projected();
      const taken = seen;
      seen = [];
      return taken;
    },
    async close() {
      await end();
      await engine.close();
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}

/** As long as the numbers of a stream on AWS: they are stored with what was applied. */
const positionOf = (number: number): string => String(10n ** 21n + BigInt(number) * 1000n);

let opened = 0;

async function onDynamo(clock: Clock): Promise<Rig> {
  process.env.AWS_ACCESS_KEY_ID ??= "test";
  process.env.AWS_SECRET_ACCESS_KEY ??= "test";
  const [rest, dynamo] = await Promise.all([emulators.ministack(), emulators.dynamo()]);
  const config = await createResources({
    prefix: `cost-${process.pid}-${++opened}`,
    endpoint: rest.endpoint,
    storeEndpoint: dynamo.endpoint,
  });
  const aws = createAws(config, { clock });
  // DynamoDB Local's stream drops empty texts from its images: what changed is read back, by a meter of its own.
  const reader = createAws(config, { clock });
  const { store } = aws.ports;
  const images = new Map<string, Item | undefined>();
  let seen: Change[] = [];
  let position = 0;
  const note = async (keys: readonly RowKey[]) => {
    for (const { pk, sk } of keys) {
      if (!/#[TA]#\d+$/.test(pk)) continue;
      const id = `${pk}\n${sk}`;
      const [old, next] = [images.get(id), await reader.ports.store.get({ pk, sk })];
      if (JSON.stringify(old) === JSON.stringify(next)) continue;
      images.set(id, next);
      seen.push({
        position: positionOf(++position),
        key: { pk, sk },
        ...(old && { old }),
        ...(next && { new: next }),
      });
    }
  };
  const keyOf = (write: Write): RowKey =>
    "put" in write ? write.put : "update" in write ? write.update : "delete" in write ? write.delete : write.check;
  return {
    ports: {
      ...aws.ports,
      store: {
        ...store,
        async write(write) {
          const result = await store.write(write);
          await note([keyOf(write)]);
          return result;
        },
        async transact(writes) {
          const result = await store.transact(writes);
          await note(writes.map(keyOf));
          return result;
        },
        async batchWrite(writes) {
          await store.batchWrite(writes);
          await note(writes.map(keyOf));
        },
      },
    },
    meter: aws.meter,
    async changes() {
      const taken = seen;
      seen = [];
      return taken;
    },
    async close() {
      await reader.close();
      await aws.close();
      await deleteResources(config);
    },
  };
}
