import type { RowKey } from "./port/index.ts";

/**
 * Where every row lives. The tenant is the first part of each key; parts people choose come last, so that no
 * name can reach into another's partition. Partitions many tasks share are sharded by the last character of the id.
 */
const shardOf = (id: string, shards: number): number => (id.charCodeAt(id.length - 1) * 7) % shards;

export const taskShards = 16;
export const agentShards = 8;
export const indexShards = 8;

export const taskPartition = (tenant: string, shard: number) => `${tenant}#T#${shard}`;
export const taskKey = (tenant: string, id: string): RowKey => ({
  pk: taskPartition(tenant, shardOf(id, taskShards)),
  sk: id,
});

/**
 * Where a large payload of a task is kept as a blob. Named by the task's time, too: an id that its caller chose may come again after its
 * task was deleted, and what that one left be cleared up when the new payload is there already.
 */
export const payloadKey = (
  tenant: string,
  { id, createdAt }: { id: string; createdAt: number },
  name: string,
): string => `${tenant}/${id}/${createdAt.toString(36)}-${name}`;

export const agentPartition = (tenant: string, shard: number) => `${tenant}#A#${shard}`;
export const agentKey = (tenant: string, id: string): RowKey => ({
  pk: agentPartition(tenant, shardOf(id, agentShards)),
  sk: id,
});
/** Holds a name for one agent. */
export const agentNameKey = (tenant: string, name: string): RowKey => ({ pk: `${tenant}#N#${name}`, sk: "name" });

/** Lists of task ids by one field, kept by the outbox. */
export type IndexField = "status" | "type" | "tag" | "agent" | "held" | "parent" | "dead";
const sharded: ReadonlySet<IndexField> = new Set<IndexField>(["status", "type", "tag", "dead"]);
export const indexPartitions = (tenant: string, field: IndexField, value: string): string[] =>
  Array.from({ length: sharded.has(field) ? indexShards : 1 }, (_, shard) => `${tenant}#X#${field}#${shard}#${value}`);
export const indexKey = (tenant: string, field: IndexField, value: string, id: string): RowKey => ({
  pk: `${tenant}#X#${field}#${sharded.has(field) ? shardOf(id, indexShards) : 0}#${value}`,
  sk: id,
});

/** Waiting tasks of one requirement signature, in the order they are taken. */
export const lanePartition = (tenant: string, lane: string) => `${tenant}#L#${lane}`;
export const laneKey = (tenant: string, lane: string): RowKey => ({ pk: `${tenant}#LANES`, sk: lane });
/** On a shared store: rises when a lane is registered, so that others know when to read the lanes again. */
export const lanesVersionKey = (tenant: string): RowKey => ({ pk: `${tenant}#LV`, sk: "version" });
/** On a shared store: agents whose offer changed lately, by time, for whoever read the agents before. */
export const offerPartition = (tenant: string) => `${tenant}#O`;
/** On a shared store: about the highest pass taken. */
export const virtualTimeKey = (tenant: string): RowKey => ({ pk: `${tenant}#VT`, sk: "pass" });
/** Limit of a key, and the tasks that wait for it, in the order they are taken. */
export const gateKey = (tenant: string, key: string): RowKey => ({ pk: `${tenant}#G#${key}`, sk: "limit" });
export const gateListKey = (tenant: string, key: string): RowKey => ({ pk: `${tenant}#GATES`, sk: key });
export const gatePartition = (tenant: string, key: string) => `${tenant}#W#${key}`;
/** The last pass given to a fair key. */
export const fairKey = (tenant: string, key: string): RowKey => ({ pk: `${tenant}#F#${key}`, sk: "pass" });
export const stickyKey = (tenant: string, key: string): RowKey => ({ pk: `${tenant}#S#${key}`, sk: "agent" });

/** Tasks that wait for this one to end. */
export const dependantPartition = (tenant: string, id: string) => `${tenant}#D#${id}`;
export const idempotencyKey = (tenant: string, hash: string): RowKey => ({ pk: `${tenant}#I#${hash}`, sk: "key" });

/** The event log: rows of consecutive events, found by the sequence number of their first. */
export const eventRowsPerPartition = 1_000_000;
export const eventPartition = (tenant: string, sequence: number) =>
  `${tenant}#E#${Math.floor(sequence / eventRowsPerPartition)}`;
export const sequenceKey = (sequence: number) => String(sequence).padStart(15, "0");
export const eventHeadKey = (tenant: string): RowKey => ({ pk: `${tenant}#EH`, sk: "head" });
/** Which event rows speak of a task. */
export const taskEventPartition = (tenant: string, id: string) => `${tenant}#V#${id}`;

export const counterKey = (tenant: string): RowKey => ({ pk: `${tenant}#C`, sk: "counts" });

/** Keys and agent tokens, found by the hash of the bearer text, which is all that is stored of it. */
export const bearerKey = (hash: string): RowKey => ({ pk: `K#${hash}`, sk: "key" });
/** Says that the key of this hash was taken over from the deployment, for good. */
export const adoptedKey = (hash: string): RowKey => ({ pk: `K#${hash}`, sk: "adopted" });
export const keyListPartition = (tenant: string) => `${tenant}#K`;

/** The tenants there are, for what runs each minute. */
export const tenantKey = (tenant: string): RowKey => ({ pk: "TENANTS", sk: tenant });
/** How far the reconcilers of a tenant came. */
export const reconcileKey = (tenant: string): RowKey => ({ pk: `${tenant}#R`, sk: "cursor" });
/** Whose a connection is, found by the id the gateway gave it. */
export const connectionKey = (id: string): RowKey => ({ pk: `C#${id}`, sk: "connection" });
/** Types of events that somebody subscribes to on the bus. */
export const subscriptionKey = (tenant: string): RowKey => ({ pk: `${tenant}#B`, sk: "types" });

/** What is settled for the whole tenant: retention, quotas. */
export const policyKey = (tenant: string): RowKey => ({ pk: `${tenant}#Q`, sk: "policy" });

/** On a shared store: tasks submitted in the present window of the tenant's quota. */
export const rateKey = (tenant: string): RowKey => ({ pk: `${tenant}#Q`, sk: "submits" });

/** Deadlines more than a queue's delay away, by minute. */
export const timerPartition = (minute: number, shard: number) => `TIMER#${minute}#${shard}`;
export const timerShards = 4;
export const timerKey = (minute: number, id: string): RowKey => ({
  pk: timerPartition(minute, shardOf(id, timerShards)),
  sk: id,
});
export const timerCursorKey: RowKey = { pk: "TIMER", sk: "cursor" };
