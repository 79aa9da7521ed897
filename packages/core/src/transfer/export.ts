import type { z } from "zod/mini";
import type { Row as AgentRow } from "../agent/row.ts";
import type { JsonText } from "../json.ts";
import type { Row as GateRow } from "../match/gate.ts";
import { badCursor, decodeCursor, encodeCursor, getAll } from "../page.ts";
import type { Item } from "../port/index.ts";
import {
  agentPartition,
  agentShards,
  gateKey,
  gateListKey,
  keyListPartition,
  taskPartition,
  taskShards,
} from "../rows.ts";
import type { Scope } from "../scope.ts";
import { type Row as TaskRow, whole } from "../task/row.ts";
import { readBlob } from "../task/stored.ts";
import { cut } from "./pieces.ts";
import type { ExportQuery } from "./request.ts";
import {
  agentFields,
  type ExportPage,
  format,
  payloadFields,
  type Record,
  taskFields,
  transferLimits,
  version,
} from "./schema.ts";

/** In this order, so that limits hold and agents are known before the tasks that need them. */
const sections = ["limit", "agent", "key", "task"] as const;
type Section = (typeof sections)[number];

interface Place {
  readonly section: Section;
  /** The last sort key that was given. */
  readonly after: string | undefined;
  /** About how many rows fit into a page, as the last one showed. */
  readonly fit: number;
}

/** A page ends when it has this many characters. A task with two payloads of 1 MiB is one page, of at most 5 MiB. */
const pageCharacters = 1024 * 1024;

/**
 * One page of all a tenant consists of: limits, agents, keys and tasks, the tasks with their payloads, in the order they were
 * made. Each row is as it stood when it was read; what is written meanwhile may be in the pages that follow, or not.
 * @throws `request.invalid` for a cursor that no page gave
 */
export async function page(scope: Scope, query: z.output<typeof ExportQuery>): Promise<Omit<ExportPage, "server">> {
  let place: Place | undefined = query.cursor === undefined ? first(query.limit) : decode(query.cursor);
  const items: Record[] = [];
  let characters = 0;
  let rows = 0;
  while (place !== undefined) {
    const { section, after, fit }: Place = place;
    const read: Read = await readers[section](scope, after, Math.min(query.limit - rows, fit));
    let last: string | undefined = after;
    let full = false;
    for (const item of read.items) {
      const records = await toRecords(scope, section, item);
      const more = records.reduce((sum, record) => sum + JSON.stringify(record).length, 0);
      full = rows > 0 && characters + more > pageCharacters;
      if (full) break;
      items.push(...records);
      characters += more;
      rows++;
      last = item.sk;
    }
    const ended: boolean = read.ended && !full;
    const next: Section | undefined = ended ? sections[sections.indexOf(section) + 1] : section;
    place = next && {
      section: next,
      after: ended ? undefined : last,
      fit: ended ? query.limit : full ? Math.max(1, rows) : Math.min(query.limit, fit * 2),
    };
    if (full || rows >= query.limit) break;
  }
  return { format, version, tenant: scope.tenant, items, ...(place && { nextCursor: encode(place) }) };
}

const first = (limit: number): Place => ({ section: "limit", after: undefined, fit: limit });

const encode = ({ section, after, fit }: Place): string => encodeCursor("export", `${section}/${fit}/${after ?? ""}`);

function decode(cursor: string): Place {
  const [, section, fit, after] =
    /^(limit|agent|key|task)\/([1-9]\d{0,2})\/(.*)$/s.exec(decodeCursor("export", cursor)) ?? [];
  if (section === undefined) throw badCursor();
  return { section: section as Section, after: after || undefined, fit: Number(fit) };
}

interface Read {
  readonly items: readonly Item[];
  /** Nothing comes after them. */
  readonly ended: boolean;
}

const readers: { readonly [S in Section]: (scope: Scope, after: string | undefined, max: number) => Promise<Read> } = {
  async limit(scope, after, max) {
    const { items, ended } = await inOrder(scope, [gateListKey(scope.tenant, "").pk], after, max);
    const keys = items.map(({ sk }) => gateKey(scope.tenant, sk));
    const found = await getAll(scope.ports.store, keys);
    // Under the sort key of the list, by which the next page goes on.
    return { items: items.map((item, i) => ({ ...item, ...found[i], pk: item.pk, sk: item.sk })), ended };
  },
  agent: (scope, after, max) => inOrder(scope, shards(agentShards, scope, agentPartition), after, max),
  key: (scope, after, max) => inOrder(scope, [keyListPartition(scope.tenant)], after, max),
  task: (scope, after, max) => inOrder(scope, shards(taskShards, scope, taskPartition), after, max),
};

const shards = (count: number, scope: Scope, partition: (tenant: string, shard: number) => string): string[] =>
  Array.from({ length: count }, (_, shard) => partition(scope.tenant, shard));

/**
 * The next rows of several partitions by sort key, at most `max`. Sort keys are spread evenly, so of each partition little
 * more than its share is read; where one had more than that, the page ends there.
 */
async function inOrder(
  scope: Scope,
  partitions: readonly string[],
  after: string | undefined,
  max: number,
): Promise<Read> {
  const [only] = partitions;
  if (only !== undefined && partitions.length === 1) {
    const { items, last } = await scope.ports.store.query({
      pk: only,
      limit: max,
      ...(after !== undefined && { after }),
    });
    return { items, ended: last === undefined };
  }
  const limit = Math.ceil((max / partitions.length) * 1.5) + 1;
  const pages = await Promise.all(
    partitions.map((pk) => scope.ports.store.query({ pk, limit, ...(after !== undefined && { after }) })),
  );
  let bound: string | undefined;
  for (const { last } of pages) if (last !== undefined && (bound === undefined || last < bound)) bound = last;
  const all = pages.flatMap(({ items }) => items).sort((a, b) => (a.sk < b.sk ? -1 : 1));
  const known = bound === undefined ? all : all.filter(({ sk }) => sk <= (bound as string));
  return { items: known.slice(0, max), ended: bound === undefined && known.length <= max };
}

async function toRecords(scope: Scope, section: Section, item: Item): Promise<Record[]> {
  switch (section) {
    case "limit": {
      const { sk, concurrency, rate } = item as GateRow;
      if (concurrency === undefined && rate === undefined) return [];
      return [
        {
          kind: "limit",
          key: sk,
          ...(concurrency !== undefined && { concurrency }),
          ...(rate !== undefined && { rate: { limit: rate.limit, perSeconds: rate.perSeconds } }),
        },
      ];
    }
    case "agent":
      return [picked(item as AgentRow, agentFields) as Record];
    case "key":
      return [picked(item, ["kind", "id", "role", "hash", "hint", "createdAt", "name"]) as Record];
    case "task":
      return taskRecords(scope, whole(item as TaskRow));
  }
}

async function taskRecords(scope: Scope, row: TaskRow): Promise<Record[]> {
  const record = picked(row, taskFields) as { [name: string]: unknown };
  const before: Record[] = [];
  const pieces: { [field: string]: { sha256: string; of: number } } = {};
  for (const field of payloadFields) {
    const blob = field === "input" ? row.inputBlob : field === "result" ? row.resultBlob : undefined;
    const text: JsonText | undefined = blob === undefined ? row[field] : await readBlob(scope, blob);
    if (text === undefined) continue;
    if (text.length <= transferLimits.inlineCharacters) {
      record[field] = text;
      continue;
    }
    const cuts = cut(row.id, field, text);
    before.push(...cuts);
    pieces[field] = { sha256: cuts[0]?.sha256 as string, of: cuts.length };
    delete record[field];
  }
  if (Object.keys(pieces).length > 0) record.pieces = pieces;
  return [...before, record as unknown as Record];
}

function picked(row: Item, names: readonly string[]): { [name: string]: unknown } {
  const record: { [name: string]: unknown } = {};
  for (const name of names) if (row[name] !== undefined) record[name] = row[name];
  return record;
}
