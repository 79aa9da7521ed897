import type { Row as AgentRow } from "../agent/row.ts";
import { deadlineOf as agentDeadlineOf } from "../agent/row.ts";
import { isCalled } from "../delivery/schema.ts";
import type { WaggleError } from "../error.ts";
import { requestErrors } from "../error.ts";
import { canonical, digestOf, isLarge, type JsonText } from "../json.ts";
import { serveAgent, serveGate } from "../match/dispatch.ts";
import type { Row as GateRow } from "../match/gate.ts";
import { openKnown } from "../match/open.ts";
import { laneOf } from "../match/requirement.ts";
import { offerWrite } from "../match/shared.ts";
import type { Item, RowKey, Write } from "../port/index.ts";
import { tryParse } from "../problem.ts";
import { keptUntil } from "../retention/retention.ts";
import {
  agentKey,
  agentNameKey,
  bearerKey,
  gateKey,
  gateListKey,
  keyListPartition,
  payloadKey,
  taskKey,
} from "../rows.ts";
import type { Scope } from "../scope.ts";
import { bearerRow } from "../secret.ts";
import { released } from "../task/change.ts";
import { store as storeTasks } from "../task/create.ts";
import { limits } from "../task/defaults.ts";
import { advance, askedFields, deadlineOf, held, type Row as TaskRow, terminal, whole } from "../task/row.ts";
import { readBlob, readTask } from "../task/stored.ts";
import { differs, newerFormat, piecesMissing } from "./error.ts";
import { toPayload } from "./payload.ts";
import { pieceKey, sha256 } from "./pieces.ts";
import type { Import, Outcome } from "./request.ts";
import {
  type AgentRecord,
  agentFields,
  type BlobRecord,
  type KeyRecord,
  type LimitRecord,
  type PayloadField,
  payloadFields,
  Record,
  type TaskRecord,
  taskFields,
  version,
} from "./schema.ts";

/** `problem` tells what differs, and what to do about it. */
export interface Result {
  readonly outcome: Outcome;
  readonly problem?: WaggleError;
}
const taken: Result = { outcome: "taken" };
const there: Result = { outcome: "there" };
const refused = (problem: WaggleError): Result => ({ outcome: "differs", problem });

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

async function takeAgent(scope: Scope, record: AgentRecord, known: AgentRow | undefined): Promise<Result> {
  if (known) return compareAgents(record, known);
  const { store, clock, outbound, shared } = scope.ports;
  const unable = isCalled(record) && record.state !== "stopped" ? await outbound.check(record.delivery) : undefined;
  if (unable !== undefined)
    return refused(
      differs(`agent ${record.name} cannot be called from here: ${unable}; register it here with another delivery`),
    );
  const row = agentRow(scope, record, clock.now());
  const writes: Write[] = [{ put: row, if: { exists: false } }];
  if (row.state !== "stopped") {
    writes.push(
      { put: { ...agentNameKey(scope.tenant, row.name), kind: "name", agentId: row.id }, if: { exists: false } },
      { put: bearerRow(row.tokenHash, scope.tenant, { role: "agent", id: row.id }), if: { exists: false } },
      ...(shared ? [offerWrite(scope, row.id)] : []),
    );
  }
  const result = await store.transact(writes);
  if (result.ok) {
    const directory = await openKnown(scope.ports, scope.tenant);
    if (row.state !== "stopped") directory.set(row);
    await serveAgent(scope, row.id);
    return taken;
  }
  const now = (await store.get(agentKey(scope.tenant, row.id))) as AgentRow | undefined;
  if (now) return compareAgents(record, now);
  const holder = await store.get(agentNameKey(scope.tenant, row.name));
  return refused(
    holder
      ? differs(
          `the name ${row.name} belongs to agent ${holder.agentId} here; remove that one (\`waggle delete agent ${row.name} --force\`) and import again`,
        )
      : differs(
          `the token of agent ${row.name} is in use here for something else; register the agent anew under its name`,
        ),
  );
}

/** It holds nothing here, and gets a whole lease to be heard of; a called one that was lost is tried anew with its next task. */
function agentRow(scope: Scope, record: AgentRecord, now: number): AgentRow {
  const row = {
    ...picked(record, agentFields),
    ...agentKey(scope.tenant, record.id),
    tenant: scope.tenant,
    rev: 1,
    used: 0,
  } as unknown as { -readonly [K in keyof AgentRow]: AgentRow[K] };
  if (row.state === "active" || row.state === "paused" || row.state === "draining") {
    if (row.expiresAt !== undefined) row.expiresAt = Math.max(row.expiresAt, now + row.leaseSeconds * 1000);
  }
  if (row.state === "draining") {
    if (row.stopAt !== undefined) row.stopAt = Math.min(row.stopAt, now);
    else row.drainedAt ??= now;
  }
  if (isCalled(row) && row.state === "lost") Object.assign(row, { state: "active", probing: true });
  // The secret that signs stays behind: nothing is sent unsigned until there is a new one.
  if (row.delivery.type === "webhook" && row.state === "active") row.state = "paused";
  const deadlineAt = agentDeadlineOf(row);
  if (deadlineAt !== undefined) row.deadlineAt = deadlineAt;
  return row;
}

function compareAgents(record: AgentRecord, now: AgentRow): Result {
  if (record.name !== now.name)
    return refused(differs(`agent ${record.id} is named ${now.name} here, not ${record.name}; it stays as it is`));
  // Registered anew here, it has gone on.
  if (now.registeredAt > record.registeredAt || now.tokenHash === record.tokenHash) return there;
  return refused(
    differs(
      `agent ${record.name} was registered anew where it comes from, after it was first imported; its new token is void here: register it here with onConflict "replace"`,
    ),
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

async function takeTask(scope: Scope, record: TaskRecord, known: TaskRow | undefined): Promise<Result> {
  if (known) return compareTasks(scope, record, known);
  const payloads: { [F in PayloadField]?: JsonText } = {};
  const generation = scope.ports.store.generation();
  for (const field of payloadFields) {
    const pieces = record.pieces?.[field];
    const text = pieces ? await joined(scope, record.id, field, pieces) : record[field];
    if (text !== undefined) payloads[field] = text;
    else if (pieces)
      return refused(
        piecesMissing(
          `the ${field} of task ${record.id} comes in ${pieces.of} pieces, and they are not all here as they were written; send them again, then the task`,
        ),
      );
  }
  const row = await taskRow(scope, record, payloads);
  const stored = terminal.has(row.status)
    ? (await scope.ports.store.write({ put: row, if: { exists: false } })).ok
    : await storeTasks(scope, [row], { ahead: true });
  if (!stored) {
    const now = await readTask(scope, row.id);
    return now
      ? compareTasks(scope, record, now)
      : refused(differs(`task ${row.id} could not be stored; import again`));
  }
  // Were the task taken back with a failed write, its pieces would be needed again, and whoever sent them takes them for received.
  if (record.pieces) await scope.ports.store.settled(generation);
  for (const field of payloadFields) {
    const pieces = record.pieces?.[field];
    for (let index = 0; index < (pieces?.of ?? 0); index++)
      await scope.ports.blobs.delete(pieceKey(scope.tenant, row.id, field, pieces?.sha256 as string, index));
  }
  return taken;
}

/** @returns undefined unless all pieces are there and make up what was cut */
async function joined(
  scope: Scope,
  id: string,
  field: PayloadField,
  { sha256: whole, of }: { readonly sha256: string; readonly of: number },
): Promise<JsonText | undefined> {
  let text = "";
  for (let index = 0; index < of; index++)
    text += (await readBlob(scope, pieceKey(scope.tenant, id, field, whole, index))) ?? "";
  if (sha256(text) !== whole) return undefined;
  return toPayload(text);
}

/** The task as it goes on here: what an agent held is given back, its attempt not counted and its fence out of date. */
async function taskRow(
  scope: Scope,
  record: TaskRecord,
  payloads: { readonly [F in PayloadField]?: JsonText },
): Promise<TaskRow> {
  const now = scope.ports.clock.now();
  const row = {
    ...picked(record, taskFields),
    ...payloads,
    ...taskKey(scope.tenant, record.id),
    tenant: scope.tenant,
    rev: 1,
    lane: laneOf(record as Parameters<typeof laneOf>[0]),
  } as unknown as { -readonly [K in keyof TaskRow]: TaskRow[K] };
  for (const field of ["input", "result"] as const) {
    const text = payloads[field];
    if (text === undefined || !isLarge(text)) continue;
    const key = payloadKey(scope.tenant, record, `${field}-${digestOf(text)}`);
    const bytes = new TextEncoder().encode(text);
    await scope.ports.blobs.put(key, bytes);
    delete row[field];
    if (field === "input") Object.assign(row, { inputBlob: key, inputBytes: bytes.length });
    else Object.assign(row, { resultBlob: key, resultBytes: bytes.length });
  }
  if (terminal.has(row.status)) {
    const expiresAt = await keptUntil(scope, row.finishedAt ?? now);
    if (expiresAt !== undefined) row.expiresAt = expiresAt;
  }
  if (!held.has(row.status)) {
    const deadlineAt = deadlineOf(row);
    if (deadlineAt !== undefined) row.deadlineAt = deadlineAt;
    return row;
  }
  const { changes, note } = released(row, "moved from another server", now);
  const ended = terminal.has(changes.status ?? row.status);
  return advance(
    row,
    {
      ...changes,
      fence: row.fence + 1,
      ...(ended && {
        finishedAt: now,
        cancelAt: undefined,
        scheduledAt: undefined,
        expiresAt: await keptUntil(scope, now),
      }),
    },
    { at: now, reason: note as string },
  ).next;
}

async function compareTasks(scope: Scope, record: TaskRecord, now: TaskRow): Promise<Result> {
  const other = askedFields.find((name) => canonical(record[name]) !== canonical(now[name]));
  const field = other ?? ((await sameInput(scope, record, now)) ? undefined : "input");
  if (field !== undefined)
    return refused(
      differs(
        `task ${record.id} is another one here, with a different ${field}; it stays as it is, and the one of the file is not taken`,
        {
          data: { field },
        },
      ),
    );
  if (passedHere(record, now)) return there;
  const [, last] = record.history.at(-1) as TaskRecord["history"][number];
  return refused(
    differs(
      `task ${record.id} went on where it comes from (to ${last}) after it was first imported, and is ${now.status} here; cancel it here if it is done there`,
      { data: { status: now.status } },
    ),
  );
}

async function sameInput(scope: Scope, record: TaskRecord, now: TaskRow): Promise<boolean> {
  const input = now.inputBlob === undefined ? now.input : await readBlob(scope, now.inputBlob);
  return record.pieces?.input === undefined
    ? record.input === input
    : input !== undefined && record.pieces.input.sha256 === sha256(input);
}

/** The task was once as the record says it is: here it is still so, or has gone on from there. */
function passedHere(record: TaskRecord, now: TaskRow): boolean {
  const [at, status, attempt] = record.history.at(-1) as TaskRecord["history"][number];
  const { history } = whole(now);
  if (history.some((entry) => entry[0] === at && entry[1] === status && entry[2] === attempt)) return true;
  // Only the newest entries are kept: it may have been among those that were dropped.
  const oldest = history[0];
  return history.length >= limits.history && oldest !== undefined && oldest[0] > at;
}

function picked<R extends object>(record: R, names: readonly (keyof R)[]): Partial<R> {
  const fields: Partial<R> = {};
  for (const name of names) if (record[name] !== undefined) fields[name] = record[name];
  return fields;
}
