/** A JSON-shaped attribute value. Both engines store exactly this. */
export type Value = string | number | boolean | null | readonly Value[] | { readonly [name: string]: Value };
export type Scalar = string | number | boolean | null;

export interface RowKey {
  /** Partition key. Its first part is the tenant. 1–2048 bytes. */
  readonly pk: string;
  /** Sort key, compared byte by byte as UTF-8. 1–1024 bytes. */
  readonly sk: string;
}

/** One row. At most 400 KB, counted as DynamoDB counts it: names and values in UTF-8. */
export interface Item extends RowKey {
  /** What the row is (`task`, `agent`, …); the change stream is filtered by it. */
  readonly kind: string;
  readonly [attribute: string]: Value | undefined;
}

/**
 * Rows of these kinds that have `expiresAt`, in milliseconds since 1970, are deleted some time after it by the engine
 * itself, at no cost, and the change stream tells of it. Until then readers find them and judge by the time.
 */
const expiring: ReadonlySet<string> = new Set(["idempotency", "projected", "task", "events", "task-events"]);
/** When the engine may delete the row; undefined: never. */
export const expiryOf = ({ kind, expiresAt }: Item): number | undefined =>
  typeof expiresAt === "number" && expiring.has(kind) ? expiresAt : undefined;

/** All given parts must hold. They read only the row they guard. */
export interface Condition {
  /** true: the row is there; false: it is not. */
  readonly exists?: boolean;
  /** Each attribute equals the value. */
  readonly equals?: Readonly<Record<string, Scalar>>;
  /** Each attribute equals one of the values (1–100). */
  readonly oneOf?: Readonly<Record<string, readonly Scalar[]>>;
  /** None of these attributes is set. */
  readonly missing?: readonly string[];
  /** Each attribute is a number below the bound; an attribute that is not set fails. */
  readonly lessThan?: Readonly<Record<string, number>>;
  /** Each attribute is a list, map or string with fewer elements than this; not set counts as 0. */
  readonly sizeBelow?: Readonly<Record<string, number>>;
}

export interface Changes {
  readonly set?: Readonly<Record<string, Value>>;
  /** Adds to a number; not set counts as 0. DynamoDB adds in decimals: a sum of fractions need not be equal to what is read of it. */
  readonly add?: Readonly<Record<string, number>>;
  readonly remove?: readonly string[];
}

export interface Put {
  readonly put: Item;
  readonly if?: Condition;
}
export interface Update extends Changes {
  readonly update: RowKey;
  /** The kind a row gets when the update makes it. */
  readonly kind: string;
  readonly if?: Condition;
}
export interface Delete {
  readonly delete: RowKey;
  readonly if?: Condition;
}
export interface Check {
  readonly check: RowKey;
  readonly if: Condition;
}
export type Write = Put | Update | Delete | Check;

/** Why one write of a call was refused: its condition failed, or another transaction held the row. */
export interface Refusal {
  readonly code: "condition" | "conflict";
  /** The row as it stands, when a condition failed and there is one. */
  readonly winner?: Item;
}
export type WriteResult = { readonly ok: true; readonly item?: Item } | ({ readonly ok: false } & Refusal);
export type TransactResult =
  | { readonly ok: true }
  /** One entry a write, in order; undefined where that write was not the reason. */
  | { readonly ok: false; readonly reasons: readonly (Refusal | undefined)[] };

export interface Query {
  readonly pk: string;
  /** Sort keys from this one on, inclusive. */
  readonly from?: string;
  /** Sort keys up to this one, inclusive. */
  readonly to?: string;
  /** Sort keys that begin so; not together with from or to. */
  readonly prefix?: string;
  readonly reverse?: boolean;
  /** 1 to `storeLimits.queryItems`. */
  readonly limit: number;
  /** The last sort key already seen, exclusive, in the direction of reading. */
  readonly after?: string;
}
export interface Page {
  readonly items: readonly Item[];
  /** Pass as `after` to go on; absent at the end. */
  readonly last?: string;
}

/** One change of one row, as the change stream carries it. `old` is absent for a new row, `new` for a deleted one. */
export interface Change {
  /** Orders the changes of one row: compare as strings. */
  readonly position: string;
  readonly key: RowKey;
  readonly old?: Item;
  readonly new?: Item;
}

/** Limits both engines keep; the same as DynamoDB's, so that what runs embedded runs on AWS. */
export const storeLimits = {
  itemBytes: 400 * 1024,
  transactItems: 100,
  batchGetKeys: 100,
  queryItems: 1000,
  transactBytes: 4 * 1024 * 1024,
  partitionKeyBytes: 2048,
  sortKeyBytes: 1024,
} as const;

/**
 * Rows with conditional writes, transactions and range queries over one partition.
 *
 * A write resolves once its order is decided and every later read sees it; it is on disk once `settled()` resolves.
 * Edges await `settled()` before anything leaves the process. Reads are always strongly consistent.
 *
 * Throws `store.item_too_large`, `store.transaction_too_large`, `store.key_invalid` (nothing changed) and
 * `store.unavailable` (retry later).
 */
export interface Store {
  get(key: RowKey): Promise<Item | undefined>;
  /** In the order of the keys; at most `storeLimits.batchGetKeys`. */
  batchGet(keys: readonly RowKey[]): Promise<readonly (Item | undefined)[]>;
  query(query: Query): Promise<Page>;
  /** `item` of the result is the row after a put or an update; after an `add`, the row as it stands a moment later. */
  write(write: Write): Promise<WriteResult>;
  /** All or none, 1–100 writes, each to a row of its own. One by itself is a plain write, at half the price. */
  transact(writes: readonly Write[]): Promise<TransactResult>;
  /**
   * Puts and deletes, any number, in no order, not atomic: for rows that are derived from others, without a condition; and for
   * new ones under keys of their own, `if: {exists: false}`. On AWS that is looked at only when a reply was lost and the call comes
   * again: others may have gone on from what the first had written.
   */
  batchWrite(writes: readonly (Put | Delete)[]): Promise<void>;
  /**
   * Resolves when rows made by projections (`ChangeFeed.project`) show every write decided so far. On AWS, where they
   * follow within about a second, it resolves at once.
   */
  projected(): Promise<void>;
  /**
   * Resolves when every write decided so far is durable. Rejects with `store.unavailable` when it cannot be made so.
   * @param since see `generation`
   * @param patient the caller can wait a few milliseconds, so that the writes go to disk with those of somebody else
   */
  settled(since?: number, patient?: boolean): Promise<void>;
  /**
   * Changes when writes that could not be made durable were taken back. Take it before a request begins and give it to
   * `settled`, which rejects when it is no longer the same: what the request wrote may be gone.
   */
  generation(): number;
}

/** What a projection makes of some changes. */
export interface Derived {
  /** Applied exactly once, together with the position of the changes: counts and numbered rows. At most 90 for a group. */
  readonly once: readonly (Put | Update)[];
  /** Harmless to repeat; written before `once`. For each key, the last write wins. */
  readonly again: readonly (Put | Delete)[];
}

/** Gives every change at least once, in order for each key, old and new image, beginning where this consumer left off. */
export interface ChangeFeed {
  /**
   * @param kinds rows of these kinds only
   * @param handler throws to get the batch again; each batch holds at most 1000 changes
   * @returns stops the feed, after the running batch
   */
  consume(
    consumer: string,
    kinds: readonly string[],
    handler: (changes: readonly Change[]) => Promise<void>,
  ): () => Promise<void>;
  /**
   * Keeps rows that are derived from others: `derive` answers what to write for a batch, as a function of the changes
   * and of rows that this projection alone writes. It runs when somebody asks (`Store.projected`) or a moment later.
   * Its writes need no log of their own: after a crash they are derived again.
   *
   * @param groupOf changes of one group are derived by one caller at a time, and `once` holds for the group; a batch
   *   may hold several groups in the embedded engine and holds one on AWS
   */
  project(
    name: string,
    kinds: readonly string[],
    groupOf: (change: Change) => string,
    derive: (changes: readonly Change[]) => Promise<Derived>,
  ): () => Promise<void>;
}
