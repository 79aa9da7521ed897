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
  const end = engine.changes.consume("cost", outboxKinds, async (changes) => void seen.push(...changes));
  return {
    ports: engine.ports,
    meter: () => engine.meter(),
    async changes() {
      for (let calm = 0, before = -1; calm < 10; calm = seen.length === before ? calm + 1 : 0, before = seen.length) {
        await engine.ports.store.settled();
        await new Promise((resolve) => setImmediate(resolve));
      }
      const taken = seen;
      seen = [];
      // Numbers as long as those of a stream on AWS: they are stored with what was applied.
      return taken.map((change) => ({ ...change, position: String(10n ** 21n + BigInt(change.position) * 1000n) }));
    },
    async close() {
      await end();
      await engine.close();
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}

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
        position: String(10n ** 21n + BigInt(++position) * 1000n),
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
