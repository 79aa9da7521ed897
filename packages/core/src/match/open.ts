import type * as AgentRow from "../agent/row.ts";
import { createMemory } from "../memory.ts";
import { pages } from "../page.ts";
import { forgetPolicies } from "../policy.ts";
import type { Ports } from "../port/index.ts";
import { agentShards, laneKey, lanePartition } from "../rows.ts";
import { cachedTenants, cacheOf, forgetCaches, lookAt, openCache, readAgents } from "./cache.ts";
import { addConnection, dropConnection, isConnected } from "./connection.ts";
import { createDirectory, type Directory } from "./directory.ts";
import { forgetWakes } from "./gate.ts";
import { passOf } from "./place.ts";
import type { Need } from "./requirement.ts";

/** Of the tenants of this process, where it has the store for itself. */
const directories = createMemory<Promise<Directory>>();

/** @param ageMs on a shared store: the agents may have been read so long ago */
export function open(ports: Ports, tenant: string, ageMs?: number): Promise<Directory> {
  if (ports.shared) return openCache(ports, tenant, ageMs);
  const tenants = directories.of(ports);
  let directory = tenants.get(tenant);
  if (!directory) {
    directory = load(ports, tenant);
    tenants.set(tenant, directory);
    directory.catch(() => tenants.delete(tenant));
  }
  return directory;
}

/**
 * The directory, in which this one agent is as the store has it.
 * @param enough what is remembered of the agent will do if this holds; nothing is read then
 */
export function openFor(
  ports: Ports,
  tenant: string,
  agentId: string,
  enough?: (row: AgentRow.Row) => boolean,
): Promise<Directory> {
  return ports.shared ? lookAt(ports, tenant, agentId, enough) : open(ports, tenant);
}

/** The directory as this process knows it: nothing is read for one of a shared store. */
export const openKnown = async (ports: Ports, tenant: string): Promise<Directory> =>
  ports.shared ? cacheOf(ports, tenant) : open(ports, tenant);

async function load(ports: Ports, tenant: string): Promise<Directory> {
  const directory = createDirectory((id) => isConnected(ports, tenant, id));
  for (let shard = 0; shard < agentShards; shard++)
    await readAgents(ports, tenant, shard, (row) => void directory.set(row));
  const { pk } = laneKey(tenant, "");
  let floor = Number.POSITIVE_INFINITY;
  for await (const lanes of pages(ports.store, pk, 1000)) {
    for (const item of lanes) {
      const page = await ports.store.query({ pk: lanePartition(tenant, item.sk), limit: 1 });
      const head = page.items[0]?.sk;
      if (head === undefined) {
        await ports.store.write({ delete: { pk, sk: item.sk } });
        continue;
      }
      const lane = directory.lane(item.sk, item.need as unknown as Need);
      lane.registered = true;
      floor = Math.min(floor, passOf(head));
    }
  }
  if (floor !== Number.POSITIVE_INFINITY) directory.virtualTime = floor;
  return directory;
}

/** The agent's connection opened. */
export async function setConnection(
  ports: Ports,
  tenant: string,
  agentId: string,
  connectionId: string,
): Promise<void> {
  // On a shared store its row says which connection it has.
  if (ports.shared) return;
  addConnection(ports, tenant, agentId, connectionId);
  await noteConnection(ports, tenant, agentId);
}

/** It closed. One that was replaced closes nothing; no id closes whichever there is. */
export async function endConnection(
  ports: Ports,
  tenant: string,
  agentId: string,
  connectionId?: string,
): Promise<void> {
  if (!ports.shared && dropConnection(ports, tenant, agentId, connectionId))
    await noteConnection(ports, tenant, agentId);
}

async function noteConnection(ports: Ports, tenant: string, agentId: string): Promise<void> {
  const directory = await open(ports, tenant);
  const member = directory.members.get(agentId);
  if (!member) return;
  member.connected = isConnected(ports, tenant, agentId);
  directory.refresh(member);
}

/** The tenants this process works for. */
export const opened = (ports: Ports): string[] => [
  ...(ports.shared ? cachedTenants(ports) : directories.of(ports).keys()),
];

/** Forgets everything: after the store went back to its durable state. */
export function forget(ports: Ports): void {
  directories.forget(ports);
  forgetCaches(ports);
  forgetWakes(ports);
  forgetPolicies(ports);
}
