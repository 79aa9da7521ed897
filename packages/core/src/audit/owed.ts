import { consumers } from "../consumers.ts";
import { readDispatch } from "../outbox.ts";
import type { Inspect, RowKey } from "../port/index.ts";
import { type TimerEntry, timerGrainMs } from "../timer.ts";
import { isObject, keyText, type Pass, pagesOf, report } from "./pass.ts";

/** What is under way, and makes good what its rows alone would not explain. */
export type Owed = Pick<Pass, "timers" | "dispatched" | "unhandled">;

export function readOwed(inspect: Inspect | undefined): Owed {
  if (!inspect) return { timers: undefined, dispatched: undefined, unhandled: new Set() };
  const timers = new Map<string, number>();
  for (const body of inspect.messages("timers"))
    if (isObject(body) && Array.isArray(body.timers)) noteTimers(timers, body.timers as unknown as TimerEntry[]);
  const dispatched = new Set<string>();
  for (const body of inspect.messages("dispatch")) {
    const order = readDispatch(body);
    if ("id" in order) dispatched.add(`${order.tenant}/${order.id}`);
  }
  return { timers, dispatched, unhandled: new Set([...inspect.unhandled(consumers.outbox)].map(keyText)) };
}

function noteTimers(timers: Map<string, number>, entries: readonly TimerEntry[]): void {
  for (const [tenant, kind, id, at] of entries) {
    const name = `${tenant}/${kind}/${id}`;
    timers.set(name, Math.min(at, timers.get(name) ?? Number.POSITIVE_INFINITY));
  }
}

/** Timers of minutes far ahead, which are rows. A minute that the sweep has passed is looked at by nobody. */
export async function readTimerRows(pass: Pass, pk: string, swept: number | undefined): Promise<void> {
  const minute = Number(pk.split("#")[1]);
  for await (const page of pagesOf(pass, pk)) {
    for (const row of page) {
      if (swept !== undefined && minute <= swept)
        report(
          pass,
          "timer.unswept",
          row,
          pk,
          `lies in minute ${minute}, and ${swept} was the last that was looked at`,
        );
      else if (pass.timers) noteTimers(pass.timers, row.timers as unknown as TimerEntry[]);
    }
  }
}

/** A deadline that passed while nobody could act on it is looked at again within this time. */
const sparedMs = 2000;

/**
 * What has a deadline is looked at by then: by a message, or by a row of its minute.
 * @param graceMs how much later its kind may be looked at
 */
export function timerFault(
  pass: Pass,
  kind: "task" | "agent",
  row: RowKey & { readonly id: string; readonly tenant: string; readonly deadlineAt?: number },
  graceMs = 0,
): void {
  const { deadlineAt } = row;
  if (deadlineAt === undefined || !pass.timers || pass.unhandled.has(keyText(row))) return;
  const due = pass.timers.get(`${row.tenant}/${kind}/${row.id}`);
  if (due !== undefined && due <= Math.max(deadlineAt + graceMs, pass.now + sparedMs) + timerGrainMs) return;
  const when = due === undefined ? "never" : `only at ${due}`;
  report(pass, "timer.missing", row, row.id, `is due at ${deadlineAt}, and is looked at ${when}`, [row, due]);
}

/** Messages that failed for good: what they were for was not done. */
export async function readDeadLetters(pass: Pass): Promise<void> {
  for (const [name, queue] of Object.entries(pass.ports.queues)) {
    for (const { id, body, receives } of await queue.deadLetters.list({ limit: 100 })) {
      const row = { pk: `queue ${name}`, sk: id };
      report(pass, "queue.dead", row, id, `failed ${receives} times: ${JSON.stringify(body).slice(0, 200)}`);
    }
  }
}
