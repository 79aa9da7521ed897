import { canonical, digestOf, isLarge, type JsonText } from "../json.ts";
import { laneOf } from "../match/requirement.ts";
import { keptUntil } from "../retention/retention.ts";
import { payloadKey, taskKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { released } from "../task/change.ts";
import { store } from "../task/create.ts";
import { limits } from "../task/defaults.ts";
import { advance, askedFields, deadlineOf, held, type Row, terminal, whole } from "../task/row.ts";
import { readBlob, readTask } from "../task/stored.ts";
import { differs, piecesMissing } from "./error.ts";
import { toPayload } from "./payload.ts";
import { pieceKey, sha256 } from "./pieces.ts";
import { picked, type Result, refused, taken, there } from "./result.ts";
import { type PayloadField, payloadFields, type TaskRecord, taskFields } from "./schema.ts";

export async function takeTask(scope: Scope, record: TaskRecord, known: Row | undefined): Promise<Result> {
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
    : await store(scope, [row], { ahead: true, named: true });
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
): Promise<Row> {
  const now = scope.ports.clock.now();
  const row = {
    ...picked(record, taskFields),
    ...payloads,
    ...taskKey(scope.tenant, record.id),
    tenant: scope.tenant,
    rev: 1,
    lane: laneOf(record as Parameters<typeof laneOf>[0]),
  } as unknown as { -readonly [K in keyof Row]: Row[K] };
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

async function compareTasks(scope: Scope, record: TaskRecord, now: Row): Promise<Result> {
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

async function sameInput(scope: Scope, record: TaskRecord, now: Row): Promise<boolean> {
  const input = now.inputBlob === undefined ? now.input : await readBlob(scope, now.inputBlob);
  return record.pieces?.input === undefined
    ? record.input === input
    : input !== undefined && record.pieces.input.sha256 === sha256(input);
}

/** The task was once as the record says it is: here it is still so, or has gone on from there. */
function passedHere(record: TaskRecord, now: Row): boolean {
  const [at, status, attempt] = record.history.at(-1) as TaskRecord["history"][number];
  const { history } = whole(now);
  if (history.some((entry) => entry[0] === at && entry[1] === status && entry[2] === attempt)) return true;
  // Only the newest entries are kept: it may have been among those that were dropped.
  const oldest = history[0];
  return history.length >= limits.history && oldest !== undefined && oldest[0] > at;
}
