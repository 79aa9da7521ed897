import type { Row as EventRow } from "../event/log.ts";
import { isForgotten } from "../retention/retention.ts";
import { eventHeadKey, eventPartition, eventRowsPerPartition, sequenceKey } from "../rows.ts";
import { terminal } from "../task/row.ts";
import type { Status } from "../task/schema.ts";
import { at, type Books, count, type Pass, pagesOf, report, type Told } from "./pass.ts";

/** What a task is after an event. Given back or tried again it waits for a time, unless `task.queued` follows. */
const statusAfter: Readonly<Record<string, Status>> = {
  scheduled: "scheduled",
  queued: "queued",
  assigned: "assigned",
  started: "running",
  released: "scheduled",
  retried: "scheduled",
  completed: "completed",
  failed: "failed",
  cancelled: "cancelled",
  expired: "expired",
};

/** What a task may be before an event; where nothing is said, anything but ended. */
const before: Readonly<Record<string, readonly Told["status"][]>> = {
  // Imported, one that waits for its next attempt was queued before.
  scheduled: ["created", "queued"],
  queued: ["created", "scheduled"],
  assigned: ["queued"],
  started: ["assigned"],
  released: ["assigned", "running"],
};

/** Reads the log as one history: numbers without a gap or a repeat, and for each task only steps that may follow one another. */
export async function readEvents(pass: Pass, books: Books): Promise<void> {
  const { tenant } = books;
  const headKey = eventHeadKey(tenant);
  const head = await pass.ports.store.get(headKey);
  const last = (head?.last as number | undefined) ?? 0;
  let expected: number | undefined;
  /** Of the last event that was read. */
  let time = 0;
  // Those after events that are kept longer may be gone before them.
  const mayBeGone = () => isForgotten(books.policy, time, pass.now);
  const beginAgain = (sequence: number) => {
    books.begins = sequence;
    books.told.clear();
  };
  for (let first = 0; first <= last; first += eventRowsPerPartition) {
    for await (const page of pagesOf(pass, eventPartition(tenant, first))) {
      for (const item of page) {
        const row = item as EventRow;
        if (row.sk !== sequenceKey(row.first)) report(pass, "row.misplaced", row, tenant, `begins at ${row.first}`);
        if (expected === undefined) {
          const forgets = row.expiresAt !== undefined || books.policy.forgottenTo > 0;
          books.begins = forgets ? row.first : 1;
          expected = books.begins;
        }
        if (row.first > expected && mayBeGone()) beginAgain(row.first);
        else if (row.first !== expected)
          report(pass, "event.gap", row, tenant, `begins at ${row.first}; the one before it ends at ${expected - 1}`);
        expected = row.first + row.entries.length;
        time = row.entries.at(-1)?.[1] ?? time;
        readRow(pass, books, row);
      }
    }
  }
  // What was written while the log was read is told by nobody else.
  if (expected === undefined) {
    // Of a tenant that was idle for long every event may be gone.
    books.begins = last + 1;
  } else if (expected - 1 < last && mayBeGone()) beginAgain(last + 1);
  else if (expected - 1 < last) {
    const problem = `says that the last event is ${last}; the log ends at ${expected - 1}`;
    report(pass, "event.gap", headKey, tenant, problem, last);
  }
}

function readRow(pass: Pass, books: Books, row: EventRow): void {
  const spoken = new Set<string>();
  for (const [place, [type, time, taskId, , data]] of row.entries.entries()) {
    const [family, step] = type.split(".") as [string, string];
    if (family !== "task" || !taskId) continue;
    // Deleted since, and its id given to another task.
    const anew = step === "created" && hasEnded(books.told.get(taskId));
    if (anew) {
      books.told.delete(taskId);
      spoken.delete(taskId);
    }
    const told = at(books.told, taskId, () => newTold(books));
    told.at = time;
    if (!spoken.has(taskId)) told.rows++;
    spoken.add(taskId);
    const first = anew || (told.rows === 1 && isFirst(row, place, taskId));
    const wrong = told.known ? stepFault(told, step, data, first) : undefined;
    if (wrong) {
      const problem = `event ${row.first + place} says ${type} of ${taskId}, which ${wrong}`;
      report(pass, "event.order", row, taskId, problem, [row.first, place, type]);
    }
    const next = statusAfter[step];
    if (next === undefined) continue;
    told.status = next;
    told.known = true;
    if (step === "assigned") told.fence = data.fence as number;
    if (terminal.has(next)) count(books.counts, `ended.${next}`);
  }
}

/** Where the log has forgotten how it began, the first that is heard of a task may be any step. */
const newTold = ({ begins }: Books): Told => ({
  status: "created",
  known: begins === 1,
  fence: 0,
  rows: 0,
  notes: 0,
  there: false,
  at: 0,
});

const hasEnded = (told: Told | undefined): boolean =>
  told !== undefined && told.status !== "created" && terminal.has(told.status);

const isFirst = (row: EventRow, place: number, taskId: string): boolean =>
  row.entries.findIndex((entry) => entry[2] === taskId) === place;

function stepFault(
  told: Told,
  step: string,
  data: Readonly<Record<string, unknown>>,
  first: boolean,
): string | undefined {
  if (first !== (step === "created")) return first ? "has never been created" : "was created before";
  if (step === "created" || step === "progress" || step === "cancel_requested") return undefined;
  const ended = hasEnded(told);
  if (step === "retried" && data.manual === true) return ended ? undefined : `is ${told.status} and has not ended`;
  const allowed = before[step];
  if (allowed ? !allowed.includes(told.status) : ended) return `was ${told.status}`;
  if (step === "assigned" && !((data.fence as number) > told.fence))
    return `had the fence ${told.fence} before its fence ${data.fence}`;
  return undefined;
}
