import {
  type Change,
  type Derived,
  type Item,
  isError,
  itemBytes,
  type RowKey,
  type Store,
  storeErrors,
  storeLimits,
  type Write,
} from "@waggle/core";
import { fromStream, type StreamRecord } from "./stream.ts";

export type GroupOf = (change: Change) => string;
export type Derive = (changes: readonly Change[]) => Promise<Derived>;

/** Leaves room for the guard's two rows among a transaction's hundred, and in its 4 MB. */
const onceLimit = 90;
const onceBytes = storeLimits.transactBytes / 2;
const tries = 12;
/** Longer than a stream keeps what it could give again. */
const rememberedMs = 48 * 3600_000;
const positionDigits = 40;
/** Applied batches that begin before a change's position and may hold it: as many as shards were read at once, many times over. */
const lookBack = 300;

/**
 * Applies a projection to changes that may come again, each group's `once` writes exactly once.
 *
 * A row of the group, `{group}#P / name`, guards them. It holds a revision, on the condition of which `once` is written, and
 * the highest position applied of each partition the changes came from: what lies above is new. What does not may be
 * known already, or come late from another shard, when DynamoDB has spread one partition over two. So each transaction
 * also leaves a row, `{group}#P / name/{first position}`, with the positions of its changes, and is looked for there.
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
    const suspect = changes.filter((change) => change.position <= padded(positions[source(change)]));
    const known = suspect.length === 0 ? undefined : await applied(store, key, suspect);
    const fresh = known === undefined ? changes : changes.filter((change) => !known.has(markOf(change)));
    if (fresh.length === 0) return;
    const { once, again } = await derive(fresh);
    // Nothing is noted of what nothing comes of, however often and in whatever batches it comes.
    if (once.length + again.length === 0 && (await idle(derive, fresh))) return;
    const bytes = once.reduce((sum, write) => sum + ("put" in write ? itemBytes(write.put) : 0), 0);
    const halves = async () => {
      const middle = fresh.length >> 1;
      await applyGroup(store, name, group, derive, fresh.slice(0, middle));
      await applyGroup(store, name, group, derive, fresh.slice(middle));
    };
    if (once.length > onceLimit || bytes > onceBytes) {
      if (fresh.length > 1) return await halves();
      throw storeErrors.transactionTooLarge(`one change makes ${once.length} writes of ${bytes} bytes`);
    }
    if (again.length > 0) await store.batchWrite(again);
    const highest: Record<string, string> = { ...positions };
    for (const change of fresh) {
      const from = source(change);
      if (change.position > padded(highest[from])) highest[from] = change.position.replace(/^0+/, "");
    }
    const rev = (guard?.rev ?? 0) as number;
    const noted: Write[] = [
      {
        put: { ...key, kind: "projection", rev: rev + 1, positions: highest },
        if: guard === undefined ? { exists: false } : { equals: { rev } },
      },
      { put: appliedRow(key, fresh) },
    ];
    try {
      if ((await store.transact([...noted, ...once])).ok) return;
    } catch (error) {
      // An update that counts by hundreds of names is too long a text for DynamoDB.
      if (isError(error, storeErrors.itemTooLarge) && fresh.length > 1) return await halves();
      throw error;
    }
    // Another shard's batch of the same group was quicker: what is derived may depend on what it wrote.
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 20 * 2 ** Math.min(tried, 5)));
  }
  throw storeErrors.unavailable(`the projection ${name} of ${group} is being written by too many`, {
    retryAfterSeconds: 1,
  });
}

/** Whether nothing comes of any of these by itself. What comes to nothing together may be a sum of changes that come again apart. */
async function idle(derive: Derive, changes: readonly Change[]): Promise<boolean> {
  for (const change of changes) {
    const { once, again } = await derive([change]);
    if (once.length + again.length > 0) return false;
  }
  return true;
}

/** One change, also where two shards should give the same number. */
const markOf = ({ position, key: { pk, sk } }: Change): string => {
  let hash = 0;
  for (const text of [pk, sk]) for (let i = 0; i < text.length; i++) hash = (hash * 31 + text.charCodeAt(i)) | 0;
  return `${BigInt(position || 0).toString(36)}.${(hash >>> 0).toString(36)}`;
};

/** The row that tells of a transaction's changes; positions are near one another, so that their ends suffice. */
function appliedRow({ pk, sk }: RowKey, changes: readonly Change[]): Item {
  const ordered = changes.map((change) => change.position).sort();
  const first = ordered[0] as string;
  const from = BigInt(first || 0);
  const marks = changes.map((change) => {
    const [, hash = ""] = markOf(change).split(".");
    return `${(BigInt(change.position || 0) - from).toString(36)}.${hash}`;
  });
  return {
    pk,
    sk: `${sk}/${first}`,
    kind: "projected",
    changes: marks.join(" "),
    expiresAt: Date.now() + rememberedMs,
  };
}

/** Which of these were applied. */
async function applied(store: Store, { pk, sk }: RowKey, suspects: readonly Change[]): Promise<ReadonlySet<string>> {
  const wanted = new Set(suspects.map(markOf));
  const found = new Set<string>();
  const to = `${sk}/${suspects
    .map((change) => change.position)
    .sort()
    .at(-1)}`;
  let after: string | undefined;
  for (let seen = 0; seen < lookBack && found.size < wanted.size; ) {
    const page = await store.query({
      pk,
      from: `${sk}/`,
      to,
      reverse: true,
      limit: 50,
      ...(after !== undefined && { after }),
    });
    for (const row of page.items) {
      const from = BigInt(row.sk.slice(sk.length + 1) || 0);
      for (const mark of (row.changes as string).split(" ")) {
        const [offset = "", hash = ""] = mark.split(".");
        const whole = `${(from + fromBase36(offset)).toString(36)}.${hash}`;
        if (wanted.has(whole)) found.add(whole);
      }
    }
    seen += page.items.length;
    after = page.last;
    if (after === undefined) break;
  }
  return found;
}

const fromBase36 = (text: string): bigint =>
  [...text].reduce((sum, digit) => sum * 36n + BigInt(Number.parseInt(digit, 36)), 0n);

const padded = (position: string | undefined): string => (position ?? "").padStart(positionDigits, "0");

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
