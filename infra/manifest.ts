/*
 * What a deployment consists of, as data: one entry makes a queue, a function, a schedule or an alarm, with its permissions.
 * The other files of this folder turn entries into components, and know no names.
 */

type ReadAction = "GetItem" | "BatchGetItem" | "Query";
type WriteAction = "PutItem" | "UpdateItem" | "DeleteItem" | "BatchWriteItem";

export interface RowGroup {
  /** Patterns of partition keys: see `packages/core/src/rows.ts`. */
  readonly keys: readonly string[];
  /** What reading means for these rows, and what writing. */
  readonly read: readonly ReadAction[];
  readonly write: readonly WriteAction[];
}

/** Every kind of row, and all that is ever done to it. `test/infra/access.test.ts` shows that it is done, and nothing else. */
export const rows = {
  tasks: {
    keys: ["*#T#*"],
    read: ["GetItem", "BatchGetItem", "Query"],
    write: ["PutItem", "UpdateItem"],
  },
  agents: {
    keys: ["*#A#*", "*#N#*", "*#O"],
    read: ["GetItem", "BatchGetItem", "Query"],
    write: ["PutItem", "UpdateItem", "DeleteItem"],
  },
  waiting: {
    keys: ["*#L#*", "*#LANES", "*#LV", "*#VT"],
    read: ["GetItem", "BatchGetItem", "Query"],
    write: ["PutItem", "UpdateItem", "DeleteItem"],
  },
  limits: {
    keys: ["*#G#*", "*#GATES", "*#W#*"],
    read: ["GetItem", "BatchGetItem", "Query"],
    write: ["PutItem", "UpdateItem", "DeleteItem"],
  },
  shares: { keys: ["*#F#*", "*#S#*"], read: ["GetItem", "Query"], write: ["PutItem", "UpdateItem"] },
  dependants: { keys: ["*#D#*"], read: ["BatchGetItem", "Query"], write: ["BatchWriteItem"] },
  idempotency: { keys: ["*#I#*"], read: ["GetItem"], write: ["PutItem", "UpdateItem", "DeleteItem"] },
  lists: { keys: ["*#X#*"], read: ["GetItem", "BatchGetItem", "Query"], write: ["BatchWriteItem"] },
  events: {
    keys: ["*#E#*", "*#EH", "*#V#*"],
    read: ["GetItem", "Query"],
    write: ["PutItem", "UpdateItem", "BatchWriteItem"],
  },
  counters: { keys: ["*#C"], read: ["GetItem", "Query"], write: ["UpdateItem"] },
  projections: { keys: ["*#P"], read: ["GetItem", "Query"], write: ["PutItem"] },
  timers: { keys: ["TIMER", "TIMER#*"], read: ["GetItem", "Query"], write: ["PutItem", "BatchWriteItem"] },
  /** Whose a connection is. */
  connections: { keys: ["C#*"], read: ["GetItem"], write: ["PutItem", "DeleteItem"] },
  /** The tenants there are; how far the reconcilers of each came. */
  tenants: { keys: ["TENANTS"], read: ["Query"], write: ["PutItem"] },
  repairs: { keys: ["*#R"], read: ["GetItem"], write: ["PutItem"] },
  /** Which events go to the bus. */
  subscriptions: { keys: ["*#B"], read: ["GetItem"], write: ["PutItem"] },
  /** Retention, quotas, and what was submitted of them. */
  policies: { keys: ["*#Q"], read: ["GetItem"], write: ["PutItem", "UpdateItem"] },
  /** What the keys of a tenant are, without their secrets. */
  keys: { keys: ["*#K"], read: ["GetItem", "Query"], write: ["PutItem", "DeleteItem"] },
  /** Who bears a key or token, by its hash. */
  bearers: { keys: ["K#*"], read: ["GetItem", "BatchGetItem"], write: ["PutItem", "DeleteItem"] },
  /** Nothing lies there: whether it is read tells whether the table answers. */
  health: { keys: ["HEALTH"], read: ["GetItem"], write: [] },
} as const satisfies Readonly<Record<string, RowGroup>>;
export type Rows = keyof typeof rows;

/** Rows that giving a task to an agent, or ending one, reads and writes. */
const matching = ["tasks", "agents", "waiting", "limits", "shares"] as const;
/**
 * That, for who does nothing else. How long a task that ends is kept, the tenant's policy says. A connection found gone is forgotten; whoever
 * ends the last task of an agent that is to go voids its token.
 */
const matches = {
  read: [...matching, "connections", "policies"],
  write: matching,
  remove: ["bearers", "connections"],
} as const;

export interface QueueEntry {
  /** How long a message is hidden from others: at least six times its function's timeout, as Lambda asks for. */
  readonly visibilitySeconds: number;
  /** Received this often without success, a message goes to the dead letters. */
  readonly maxReceives: number;
  /** Keeps messages this long; its dead letters stay 14 days. */
  readonly retentionDays: number;
  /** Rules of EventBridge may have it as their target, and its dead letters as theirs. */
  readonly ofRules?: true;
}

export const queues = {
  dispatch: { visibilitySeconds: 180, maxReceives: 8, retentionDays: 4 },
  timers: { visibilitySeconds: 180, maxReceives: 8, retentionDays: 4 },
  deliver: { visibilitySeconds: 720, maxReceives: 8, retentionDays: 4 },
  intake: { visibilitySeconds: 180, maxReceives: 8, retentionDays: 4, ofRules: true },
} as const satisfies Readonly<Record<string, QueueEntry>>;
export type QueueName = keyof typeof queues;

/** Queues for what failed elsewhere than on its way through one of the queues above. Nobody consumes them: an alarm tells. */
export const failures = {
  /** Where in the table's stream records lie that could not be worked on. */
  stream: { retentionDays: 14 },
  /** Calls by a schedule that did not succeed. */
  schedule: { retentionDays: 14 },
} as const;
export type FailureName = keyof typeof failures;

export const table = {
  hashKey: "pk",
  rangeKey: "sk",
  /** Epoch seconds. */
  ttl: "ttl",
  recoveryDays: 35,
} as const;

/** What one function may do; nothing else. */
export interface Access {
  readonly read?: readonly Rows[];
  /** Nothing is read of what is named here alone. */
  readonly write?: readonly Rows[];
  /** Deletes such rows, by their keys, and makes none. */
  readonly remove?: readonly Rows[];
  /** Writes such rows many at once. DynamoDB's right to that is one to delete them, too, so that few have it of rows that are not derived from others. */
  readonly batch?: readonly Rows[];
  readonly blobs?: readonly ("read" | "write" | "remove")[];
  readonly send?: readonly QueueName[];
  /** Counts the messages of a queue and of its dead letters. */
  readonly depth?: readonly QueueName[];
  readonly publish?: true;
  /** Sends to, looks at and closes connections of the WebSocket API. */
  readonly push?: true;
  /** Calls agents' functions and sends to agents' queues: those of this account whose tag `waggle:agent` is the stage. */
  readonly call?: true;
}

export type Trigger =
  /** Reached by anybody: the function tells who calls by the key they send. */
  | { readonly type: "url" }
  | { readonly type: "socket"; readonly requestsPerSecond: number; readonly burst: number }
  | {
      readonly type: "queue";
      readonly queue: QueueName;
      readonly batch: number;
      readonly windowSeconds?: number;
      /** At most as many at once, below `reserved`: a message that is received only to be refused counts as a failure. */
      readonly concurrency: number;
    }
  | {
      readonly type: "stream";
      /** Kinds of rows whose changes are worth a call: `outboxKinds` of the core. */
      readonly kinds: readonly string[];
      readonly batch: number;
      readonly retries: number;
      readonly maxAgeSeconds: number;
      readonly failure: FailureName;
    }
  | {
      readonly type: "schedule";
      readonly every: `rate(${string})` | `cron(${string})`;
      readonly retries: number;
      readonly failure: FailureName;
    };

export interface FunctionEntry {
  /** What it does, as AWS lists it. */
  readonly what: string;
  readonly trigger: Trigger;
  readonly memoryMiB: number;
  readonly timeoutSeconds: number;
  /** Kept for this function alone, and its limit, in production. Left out where the account's quota does not allow it: see functions.ts. */
  readonly reserved: number;
  readonly may: Access;
  /** Addresses and secrets it is told beside the names of table, queues, bus and bucket. */
  readonly knows: readonly Knowledge[];
}
/** `adminKey`: the hash of the first admin's key. `secretKey`: what webhook secrets are encrypted with. */
export type Knowledge = "adminKey" | "secretKey" | "publicUrl" | "socketUrl" | "socketEndpoint";

export const functions = {
  api: {
    what: "HTTP API",
    trigger: { type: "url" },
    memoryMiB: 512,
    timeoutSeconds: 300,
    reserved: 300,
    may: {
      read: [
        ...matches.read,
        "lists",
        // These two for the audit alone.
        "dependants",
        "tenants",
        "idempotency",
        "keys",
        "bearers",
        "events",
        "counters",
        "subscriptions",
        "health",
      ],
      write: [...matching, "dependants", "idempotency", "keys", "bearers", "tenants", "subscriptions", "policies"],
      remove: ["connections"],
      batch: ["tasks"],
      blobs: ["read", "write", "remove"],
      send: ["dispatch", "timers"],
      depth: ["dispatch"],
      push: true,
    },
    knows: ["adminKey", "secretKey", "socketUrl", "socketEndpoint"],
  },
  socket: {
    what: "connections of agents",
    trigger: { type: "socket", requestsPerSecond: 2_000, burst: 1_000 },
    memoryMiB: 512,
    timeoutSeconds: 29,
    reserved: 100,
    may: {
      ...matches,
      read: [...matches.read, "bearers"],
      write: [...matching, "connections"],
      blobs: ["read", "write"],
      send: ["dispatch", "timers"],
      push: true,
    },
    knows: ["socketEndpoint"],
  },
  dispatch: {
    what: "finds an agent for each task",
    trigger: { type: "queue", queue: "dispatch", batch: 10, concurrency: 40 },
    memoryMiB: 512,
    timeoutSeconds: 30,
    reserved: 50,
    may: { ...matches, blobs: ["read"], send: ["dispatch", "timers"], push: true },
    knows: ["socketEndpoint"],
  },
  timers: {
    what: "does what is due",
    trigger: { type: "queue", queue: "timers", batch: 10, concurrency: 16 },
    memoryMiB: 512,
    timeoutSeconds: 30,
    reserved: 20,
    may: {
      ...matches,
      // Tasks that have ended, when their retention was changed.
      read: [...matches.read, "lists"],
      write: [...matching, "timers"],
      blobs: ["read"],
      send: ["dispatch", "timers"],
      push: true,
    },
    knows: ["socketEndpoint"],
  },
  deliver: {
    what: "calls agents: webhooks, functions, queues",
    trigger: { type: "queue", queue: "deliver", batch: 10, concurrency: 80 },
    memoryMiB: 512,
    timeoutSeconds: 120,
    reserved: 100,
    may: { ...matches, blobs: ["read", "write"], send: ["dispatch", "timers", "deliver"], push: true, call: true },
    knows: ["secretKey", "publicUrl", "socketEndpoint"],
  },
  intake: {
    what: "makes tasks of events that rules of EventBridge send",
    trigger: { type: "queue", queue: "intake", batch: 10, concurrency: 8 },
    memoryMiB: 512,
    timeoutSeconds: 30,
    reserved: 10,
    may: {
      read: ["keys", "tasks", "agents", "idempotency", "policies", "counters"],
      write: ["tasks", "dependants", "idempotency", "policies"],
      blobs: ["write"],
      send: ["dispatch"],
    },
    knows: [],
  },
  outbox: {
    what: "follows every change: timers, dependants, events, lists, counters",
    trigger: {
      type: "stream",
      kinds: ["task", "agent"],
      batch: 100,
      retries: 60,
      maxAgeSeconds: 6 * 3600,
      failure: "stream",
    },
    memoryMiB: 512,
    timeoutSeconds: 60,
    reserved: 50,
    may: {
      ...matches,
      read: [...matches.read, "lists", "dependants", "events", "counters", "subscriptions", "projections"],
      write: [...matching, "dependants", "lists", "events", "counters", "projections", "timers"],
      blobs: ["read", "remove"],
      send: ["dispatch", "timers", "deliver"],
      publish: true,
      push: true,
    },
    knows: ["socketEndpoint"],
  },
  minute: {
    what: "turns deadlines that come near into messages, and repairs what was left behind",
    trigger: { type: "schedule", every: "rate(1 minute)", retries: 2, failure: "schedule" },
    memoryMiB: 256,
    timeoutSeconds: 55,
    reserved: 2,
    may: {
      ...matches,
      read: [...matches.read, "lists", "counters", "tenants", "timers", "repairs"],
      write: [...matching, "dependants", "timers", "repairs"],
      blobs: ["read"],
      send: ["dispatch", "timers"],
      push: true,
    },
    knows: ["socketEndpoint"],
  },
  scaling: {
    what: "says what waits and what could serve it",
    trigger: { type: "schedule", every: "rate(1 minute)", retries: 2, failure: "schedule" },
    memoryMiB: 256,
    timeoutSeconds: 30,
    reserved: 2,
    may: { read: ["tasks", "waiting", "counters", "tenants"] },
    knows: [],
  },
} as const satisfies Readonly<Record<string, FunctionEntry>>;
export type FunctionName = keyof typeof functions;

export const runtime = "nodejs24.x";

export const logs = { retention: "1 week", level: "INFO" } as const;

/** Alarms with a threshold; one for each dead letter queue comes with the queue. */
export const alarms = {
  /** Work on changes lags behind: views, timers and dependants are late by as much. */
  streamAgeSeconds: 120,
  /** Calls refused for want of concurrency, in five minutes, in the whole account. */
  throttles: 10,
  /** Calls that ended with an error, in five minutes. */
  errors: 5,
  /** Calls of the API answered by 5xx, in five minutes: those are no errors of its function. */
  apiErrors: 5,
  tableThrottles: 10,
  budgetDollars: { production: 50, other: 10 },
} as const;
