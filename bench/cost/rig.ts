import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Change, type Clock, type Meter, outboxKinds, type Ports } from "@waggle/core";
import { createAws, createResources, deleteResources, openAws } from "@waggle/engine-aws";
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
  const [rest, store] = await Promise.all([emulators.ministack(), emulators.dynamo()]);
  const config = await createResources({
    prefix: `cost-${process.pid}-${++opened}`,
    endpoint: rest.endpoint,
    storeEndpoint: store.endpoint,
  });
  const aws = createAws(config, { clock });
  // Reads the stream with clients, and a meter, of its own.
  const reader = await openAws(config, { streamIdleMs: 20 });
  let seen: Change[] = [];
  const end = reader.changes.consume("cost", outboxKinds, async (changes) => void seen.push(...changes));
  return {
    ports: aws.ports,
    meter: aws.meter,
    async changes() {
      for (let calm = 0, before = -1; calm < 10; calm = seen.length === before ? calm + 1 : 0, before = seen.length)
        await new Promise((resolve) => setTimeout(resolve, 40));
      const taken = seen;
      seen = [];
      return taken;
    },
    async close() {
      await end();
      await reader.close();
      await aws.close();
      await deleteResources(config);
    },
  };
}
