import type * as AgentRow from "../agent/row.ts";
import { createMemory } from "../memory.ts";
import { pages } from "../page.ts";
import type { Item, Ports } from "../port/index.ts";
import { agentKey, agentPartition, agentShards } from "../rows.ts";
import { createDirectory, type Directory } from "./directory.ts";

/*
 * The directory of a shared store: what was read of the agents, and how old it may be. Others change them meanwhile.
 */

const caches = createMemory<Directory>();

/** As it was read last, if it was: nothing is read now. */
export function cacheOf(ports: Ports, tenant: string): Directory {
  const tenants = caches.of(ports);
  let directory = tenants.get(tenant);
  if (!directory) {
    directory = createDirectory(() => false, true);
    tenants.set(tenant, directory);
  }
  return directory;
}

export const cachedTenants = (ports: Ports): Iterable<string> => caches.of(ports).keys();
export const forgetCaches = (ports: Ports): void => caches.forget(ports);

/**
 * How old the directory of a shared store may be: reading a large fleet costs more, so it is read less often. It proposes and does
 * not decide, and those that come are read apart.
 */
const maxAgeMs = (members: number): number => Math.min(300_000, Math.max(10_000, members * 100));

/** @param ageMs the agents may have been read so long ago */
export async function openCache(ports: Ports, tenant: string, ageMs?: number): Promise<Directory> {
  const directory = cacheOf(ports, tenant);
  if (ports.clock.now() - directory.readAt < (ageMs ?? maxAgeMs(directory.members.size))) return directory;
  return readOnce(directory, () => readAgain(ports, tenant, directory));
}

/** As `openFor`. */
export async function lookAt(
  ports: Ports,
  tenant: string,
  agentId: string,
  enough?: (row: AgentRow.Row) => boolean,
): Promise<Directory> {
  const directory = cacheOf(ports, tenant);
  const known = directory.members.get(agentId);
  if (!known || !enough?.(known.row)) learnRow(directory, agentId, await ports.store.get(agentKey(tenant, agentId)));
  return directory;
}

/** The agent is as this row says, or gone. */
export function learnRow(directory: Directory, agentId: string, item: Item | undefined): void {
  const row = item as AgentRow.Row | undefined;
  if (row && row.state !== "stopped") directory.set(row);
  else directory.remove(agentId);
}

/** Agents of each shard that a sample has: the newest, as among the oldest most have gone. */
const sampledPerShard = 64;

/** The directory of a shared store with a part of a large fleet: for who waits while it is read, and needs only somebody. */
export async function openSample(ports: Ports, tenant: string): Promise<Directory> {
  const directory = cacheOf(ports, tenant);
  const readAt = Math.max(directory.readAt, directory.sampledAt);
  if (ports.clock.now() - readAt < maxAgeMs(directory.members.size)) return directory;
  return readOnce(directory, () => readSample(ports, tenant, directory));
}

async function readOnce(directory: Directory, read: () => Promise<void>): Promise<Directory> {
  directory.reading ??= read().finally(() => {
    directory.reading = undefined;
  });
  await directory.reading;
  return directory;
}

async function readSample(ports: Ports, tenant: string, directory: Directory): Promise<void> {
  const at = ports.clock.now();
  const samples = await Promise.all(
    Array.from({ length: agentShards }, (_, shard) =>
      ports.store.query({ pk: agentPartition(tenant, shard), reverse: true, limit: sampledPerShard }),
    ),
  );
  for (const { items } of samples) for (const item of items) learnRow(directory, item.sk, item);
  directory.sampledAt = at;
  if (samples.every(({ last }) => last === undefined)) directory.readAt = at;
}

async function readAgain(ports: Ports, tenant: string, directory: Directory): Promise<void> {
  const at = ports.clock.now();
  const gone = new Set(directory.members.keys());
  await Promise.all(
    Array.from({ length: agentShards }, (_, shard) =>
      readAgents(ports, tenant, shard, (row) => {
        directory.set(row);
        gone.delete(row.id);
      }),
    ),
  );
  for (const id of gone) directory.remove(id);
  directory.readAt = at;
}

export async function readAgents(
  ports: Ports,
  tenant: string,
  shard: number,
  each: (row: AgentRow.Row) => void,
): Promise<void> {
  for await (const rows of pages(ports.store, agentPartition(tenant, shard), 1000)) {
    for (const row of rows as readonly AgentRow.Row[]) if (row.state !== "stopped") each(row);
  }
}
