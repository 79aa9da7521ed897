import type { Policy } from "../policy.ts";
import type { Item, Ports, RowKey, Value } from "../port/index.ts";
import type { Status } from "../task/schema.ts";
import type { Code } from "./kinds.ts";
import { tooLarge } from "./schema.ts";

/** A finding, and all that it was judged by: what was seen twice alike, with a pause between, is so. */
export interface Found {
  readonly code: Code;
  readonly row: RowKey;
  readonly subject: string;
  readonly problem: string;
  readonly witness: string;
}

/** What the event log tells of a task, as far as it was read. */
export interface Told {
  status: Status | "created";
  /** How it came to be, or a step of it, was told: what follows can be judged. */
  known: boolean;
  fence: number;
  /** Rows of the log that speak of it, and notes of such rows. */
  rows: number;
  notes: number;
  /** Its task was read. */
  there: boolean;
  /** Of its last event. */
  at: number;
}

/** What is known of one tenant after its tasks, agents and events were read. */
export interface Books {
  readonly tenant: string;
  readonly policy: Policy;
  /** The first event after which all are there: what came before it may be gone. */
  begins: number;
  readonly told: Map<string, Told>;
  /** By agent: the tasks it holds, as `id fence rev`, and their slots. */
  readonly held: Map<string, { slots: number; tasks: string[] }>;
  /** By limit key: the tasks that run under it, and those that wait for it. */
  readonly limits: Map<string, { running: string[]; waiting: string[] }>;
  /** What the counters should say. */
  readonly counts: Map<string, number>;
  /** Changes with every task and agent row read: the counters were compared with these rows and no others. */
  mark: number;
  /** Partitions that rows of this tenant lead to: where the engine names none itself. */
  readonly leads: Set<string>;
}

export interface Pass {
  readonly ports: Ports;
  readonly now: number;
  /** By the clock of the ports, when it is given up. */
  readonly until: number;
  readonly found: Map<string, Found>;
  readonly rows: Record<string, number>;
  /** `kind/id` of each task and agent with a timer, and when the first is due. Undefined: the engine cannot tell. */
  readonly timers: Map<string, number> | undefined;
  /** Tasks that a message of the dispatch queue is under way for. Undefined: the engine cannot tell. */
  readonly dispatched: ReadonlySet<string> | undefined;
  /** Keys of rows with a change that the outbox has yet to act on. */
  readonly unhandled: ReadonlySet<string>;
}

/** Lets others go on: a store that answers from memory would keep them waiting. */
export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export const keyText = ({ pk, sk }: RowKey): string => `${pk} ${sk}`;

export function report(
  pass: Pass,
  code: Code,
  row: RowKey,
  subject: string,
  problem: string,
  seen: unknown = row,
): void {
  const { pk, sk } = row;
  pass.found.set(`${code} ${pk} ${sk} ${problem}`, {
    code,
    row: { pk, sk },
    subject,
    problem,
    witness: JSON.stringify(seen),
  });
}

/** Every row of a partition, a page at a time; others get their turn between two pages. @throws `audit.too_large` */
export async function* pagesOf(pass: Pass, pk: string): AsyncGenerator<readonly Item[]> {
  const { store, clock } = pass.ports;
  for (let after: string | undefined; ; ) {
    if (clock.now() > pass.until) {
      const rows = Object.values(pass.rows).reduce((sum, each) => sum + each, 0);
      throw tooLarge(`after ${rows} rows the time of the call was over, and there were more`);
    }
    const page = await store.query({ pk, limit: 200, ...(after !== undefined && { after }) });
    for (const { kind } of page.items) pass.rows[kind] = (pass.rows[kind] ?? 0) + 1;
    if (page.items.length > 0) yield page.items;
    await turn();
    if (page.last === undefined) return;
    after = page.last;
  }
}

/** Read at once where each read goes to another machine. In one process others would wait for all of them. */
const lanes = 16;

/** Reads each of these, on a shared store some at a time. What fails ends all of it. */
export async function readEach<Of>(pass: Pass, all: Iterable<Of>, read: (each: Of) => Promise<void>): Promise<void> {
  const left = all[Symbol.iterator]();
  let failed = false;
  const lane = async () => {
    for (let next = left.next(); !next.done && !failed; next = left.next())
      await read(next.value).catch((error) => {
        failed = true;
        throw error;
      });
  };
  await Promise.all(Array.from({ length: pass.ports.shared ? lanes : 1 }, lane));
}

export const count = (counts: Map<string, number>, name: string, by = 1): void => {
  counts.set(name, (counts.get(name) ?? 0) + by);
};

export const at = <Key, Entry>(map: Map<Key, Entry>, key: Key, make: () => Entry): Entry => {
  let entry = map.get(key);
  if (entry === undefined) {
    entry = make();
    map.set(key, entry);
  }
  return entry;
};

/** FNV-1a: tells whether a row was another one, no more. */
export function hash(text: string): number {
  let sum = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) sum = Math.imul(sum ^ text.charCodeAt(i), 0x01000193);
  return sum >>> 0;
}

export const isObject = (value: Value | undefined): value is { readonly [name: string]: Value } =>
  typeof value === "object" && value !== null && !Array.isArray(value);
