import { type Change, type Derived, type Store, storeErrors, type Write } from "@waggle/core";
import { fromStream, type StreamRecord } from "./stream.ts";

export type GroupOf = (change: Change) => string;
export type Derive = (changes: readonly Change[]) => Promise<Derived>;

/** Leaves room for the guard among a transaction's hundred. */
const onceLimit = 90;
const tries = 12;

/**
 * Applies a projection to changes that may come again, each group's `once` writes exactly once.
 *
 * A row of the group, `{group}#P / name`, guards them: it holds a revision and, for each partition the changes came from, the
 * position of the last one applied; `once` and the guard go in one transaction on the condition that the revision is
 * still the one read. DynamoDB gives a partition's changes in order (a partition key lies in one stream shard, and
 * through every split in that shard's children, with rising sequence numbers), so that a change at or before the noted
 * position was applied. This holds while DynamoDB keeps a partition key in one place, which it does below 10 GB or while
 * its sort keys only rise.
 */
export async function applyProjection(
  store: Store,
  name: string,
  groupOf: GroupOf,
  derive: Derive,
  changes: readonly Change[],
): Promise<void> {
  const groups = new Map<string, Change[]>();
  for (const change of changes) {
    const group = groupOf(change);
    const list = groups.get(group);
    if (list === undefined) groups.set(group, [change]);
    else list.push(change);
  }
  for (const [group, own] of groups) await applyGroup(store, name, group, derive, own);
}

async function applyGroup(
  store: Store,
  name: string,
  group: string,
  derive: Derive,
  changes: readonly Change[],
): Promise<void> {
  const key = { pk: `${group}#P`, sk: name };
  /** Partitions of a group begin alike: what they have in common is not stored. */
  const source = ({ key: { pk } }: Change) => (pk.startsWith(`${group}#`) ? pk.slice(group.length + 1) : pk);
  for (let tried = 0; tried < tries; tried++) {
    const guard = await store.get(key);
    const positions = (guard?.positions ?? {}) as Readonly<Record<string, string>>;
    const fresh = changes.filter((change) => change.position > padded(positions[source(change)]));
    if (fresh.length === 0) return;
    const { once, again } = await derive(fresh);
    if (once.length > onceLimit) {
      if (fresh.length === 1) {
        throw storeErrors.transactionTooLarge(`one change makes ${once.length} writes; at most ${onceLimit}`);
      }
      const middle = fresh.length >> 1;
      await applyGroup(store, name, group, derive, fresh.slice(0, middle));
      return await applyGroup(store, name, group, derive, fresh.slice(middle));
    }
    if (again.length > 0) await store.batchWrite(again);
    const next: Record<string, string> = { ...positions };
    for (const change of fresh) next[source(change)] = change.position.replace(/^0+/, "");
    const rev = (guard?.rev ?? 0) as number;
    const noted: Write = {
      put: { ...key, kind: "projection", rev: rev + 1, positions: next },
      if: guard === undefined ? { exists: false } : { equals: { rev } },
    };
    if (once.length === 0 ? (await store.write(noted)).ok : (await store.transact([noted, ...once])).ok) return;
    // Another shard's batch of the same group was quicker: what is derived may depend on what it wrote.
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 20 * 2 ** Math.min(tried, 5)));
  }
  throw storeErrors.unavailable(`the projection ${name} of ${group} is being written by too many`, {
    retryAfterSeconds: 1,
  });
}

const padded = (position: string | undefined): string => (position ?? "").padStart(40, "0");

/**
 * A projection as the handler of a DynamoDB stream.
 * @param derive as in `ChangeFeed.project`; gets the changes of one group
 * @returns throws to get the records again, which is harmless
 * @example const apply = projectRecords(aws, "views", tenantOf, projection(aws.ports)); await apply(event.Records)
 */
export function projectRecords(
  aws: { readonly ports: { readonly store: Store } },
  name: string,
  groupOf: GroupOf,
  derive: Derive,
): (records: readonly StreamRecord[]) => Promise<void> {
  return (records) => applyProjection(aws.ports.store, name, groupOf, derive, fromStream(records));
}
