import type { Row as AgentRow } from "../agent/row.ts";
import { requestErrors } from "../error.ts";
import { serveGate } from "../match/dispatch.ts";
import type { Row as GateRow } from "../match/gate.ts";
import type { Item, RowKey } from "../port/index.ts";
import { tryParse } from "../problem.ts";
import { agentKey, bearerKey, gateKey, gateListKey, keyListPartition, taskKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { bearerRow } from "../secret.ts";
import type { Row as TaskRow } from "../task/row.ts";
import { differs, newerFormat } from "./error.ts";
import { takeAgent } from "./import-agent.ts";
import { takeTask } from "./import-task.ts";
import { pieceKey } from "./pieces.ts";
import type { Import } from "./request.ts";
import { type Result, refused, taken, there } from "./result.ts";
import { type BlobRecord, type KeyRecord, type LimitRecord, Record, version } from "./schema.ts";

/** Records taken at one time where each costs a way to the store; else in their order, which is the order tasks are served in. */
const atOnce = 16;

/**
 * Puts records where nothing is yet, and answers for each, in their order. What is there already stays as it is: the same
 * records again change nothing. Tasks an agent held are given back; those that wait, for an agent or a time or for
 * others, go on waiting here.
 * @throws `transfer.newer_format`, `request.invalid`: then nothing was taken
 */
export async function take(scope: Scope, input: Import): Promise<Result[]> {
  if (input.version > version)
    throw newerFormat(
      `the records are of format version ${input.version}, and this server reads up to ${version}: upgrade it first`,
    );
  const records = input.records.map((given, i) => {
    const parsed = tryParse(Record, given);
    if (!parsed.problem) return parsed.data;
    const { problem } = parsed;
    const errors = (problem.extra.errors ?? []).map(({ path, message }) => ({
      path: `records.${i}${path && `.${path}`}`,
      message,
    }));
    throw requestErrors.invalid(`records.${i}: ${problem.message}`, { errors });
  });
  const known = await existing(scope, records);
  const results: Result[] = [];
  for (let from = 0; from < records.length; ) {
    let to = from + 1;
    while (to < records.length && to - from < width(scope) && records[to]?.kind === records[from]?.kind) to++;
    results.push(...(await Promise.all(records.slice(from, to).map((record) => takeOne(scope, record, known)))));
    from = to;
  }
  return results;
}

const width = (scope: Scope): number => (scope.ports.shared ? atOnce : 1);

/** The tasks and agents that are there, by one read. */
async function existing(scope: Scope, records: readonly Record[]): Promise<ReadonlyMap<string, Item>> {
  const keys = new Map<string, RowKey>();
  for (const record of records) {
    if (record.kind === "agent") keys.set(record.id, agentKey(scope.tenant, record.id));
    else if (record.kind === "task" || record.kind === "blob") keys.set(record.id, taskKey(scope.tenant, record.id));
  }
  if (keys.size === 0) return new Map();
  const found = await scope.ports.store.batchGet([...keys.values()]);
  return new Map([...keys.keys()].flatMap((id, i) => (found[i] ? [[id, found[i]] as const] : [])));
}

async function takeOne(scope: Scope, record: Record, known: ReadonlyMap<string, Item>): Promise<Result> {
  switch (record.kind) {
    case "limit":
      return takeLimit(scope, record);
    case "agent":
      return takeAgent(scope, record, known.get(record.id) as AgentRow | undefined);
    case "key":
      return takeKey(scope, record);
    case "blob":
      return takePiece(scope, record, known.has(record.id));
    case "task":
      return takeTask(scope, record, known.get(record.id) as TaskRow | undefined);
  }
}

async function takeLimit(scope: Scope, record: LimitRecord): Promise<Result> {
  const { key, concurrency, rate } = record;
  const row = gateKey(scope.tenant, key);
  const result = await scope.ports.store.transact([
    {
      update: row,
      kind: "gate",
      set: { key, ...(concurrency !== undefined && { concurrency }), ...(rate !== undefined && { rate }) },
      // A rate begins with a whole burst: what was used up of one that tasks asked for says nothing of it.
      ...(rate !== undefined && { remove: ["tat"] }),
      // Tasks may have used the key before anybody set it.
      if: { missing: ["concurrency", "rate"] },
    },
    { put: { ...gateListKey(scope.tenant, key), kind: "limit" } },
  ]);
  if (result.ok) {
    await serveGate(scope, key);
    return taken;
  }
  const now = (await scope.ports.store.get(row)) as GateRow | undefined;
  const same =
    now?.concurrency === concurrency && now?.rate?.limit === rate?.limit && now?.rate?.perSeconds === rate?.perSeconds;
  if (same) return there;
  return refused(
    differs(`limit ${key} is set to something else here and stays so; \`waggle limit set\` changes it`, {
      data: { key, here: { concurrency: now?.concurrency, rate: now?.rate } },
    }),
  );
}

async function takeKey(scope: Scope, record: KeyRecord): Promise<Result> {
  const { store } = scope.ports;
  const at = { pk: keyListPartition(scope.tenant), sk: record.id };
  const result = await store.transact([
    { put: { ...record, ...at, tenant: scope.tenant } as Item, if: { exists: false } },
    { put: bearerRow(record.hash, scope.tenant, record), if: { exists: false } },
  ]);
  if (result.ok) return taken;
  const now = await store.get(at);
  if (now && now.hash === record.hash && now.role === record.role) return there;
  if ((await store.get(bearerKey(record.hash)))?.kind === "revoked")
    return refused(
      differs(`key ${record.id} was revoked here and stays void; make a new key for whoever still uses it`),
    );
  return refused(
    now
      ? differs(`key ${record.id} is another one here and stays so; make a new key for whoever used the other`)
      : differs(`what key ${record.id} stands for is in use here for something else; make a new key instead`),
  );
}

async function takePiece(scope: Scope, record: BlobRecord, known: boolean): Promise<Result> {
  // Its task has it already.
  if (known) return there;
  const { id, field, sha256: whole, index, text } = record;
  await scope.ports.blobs.put(pieceKey(scope.tenant, id, field, whole, index), new TextEncoder().encode(text));
  return taken;
}
