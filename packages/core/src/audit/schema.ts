import * as z from "zod";
import { defineError } from "../error.ts";

export const unsupported = defineError("audit.unsupported", {
  status: 501,
  title: "This server cannot read all its rows",
  retry: "never",
});

/** Every kind of finding: what is wrong, and what puts it right. */
export const kinds = {
  "task.stuck": "waggle cancel it, then waggle retry it: it is dispatched anew",
  "task.unparked": "waggle cancel it, then waggle retry it: it is parked anew",
  "task.holder": "waggle cancel it, then waggle retry it",
  "task.dependency": "waggle cancel it, then waggle retry it: it no longer waits for what has ended",
  "task.deadline": "waggle cancel it, then waggle retry it",
  "task.payload": "restore the blob from a backup, or waggle cancel the task",
  "task.lost": "restore the data folder from a backup",
  "agent.slots":
    "start the agent again under its name once it holds nothing; the reconciler of AWS does it within a minute",
  "agent.deadline": "start the agent again: registering under its name writes it anew",
  "agent.name": "start the agent again, or waggle delete agent",
  "agent.token": "start the agent again: registering under its name gives it a new token",
  "agent.marks": "nothing to do: the reconciler takes it away within a minute",
  "name.dangling": "register an agent under another name; export and import into an empty folder frees this one",
  "key.bearer": "waggle revoke key, then waggle create key",
  "bearer.dangling": "export, and import into an empty folder: who bears it is nobody any more",
  "timer.missing":
    "waggle cancel or waggle delete agent, whichever it is; else it ends when something else happens to it",
  "timer.unswept": "waggle cancel the tasks it names, or wait for something else to happen to them",
  "lane.dangling": "nothing to do: it is dropped when an agent comes to it",
  "lane.unregistered": "submit a task of the same needs: it registers the lane",
  "limit.running": "export, and import into an empty folder: the count begins anew",
  "limit.waiting": "export, and import into an empty folder: the count begins anew",
  "limit.dangling": "nothing to do: it is dropped when the limit has room again",
  "sticky.dangling": "nothing to do: the next task of the key takes another agent",
  "dependant.dangling": "export, and import into an empty folder: it is not taken along",
  "dependant.unflagged": "waggle cancel the dependant, then waggle retry it",
  "idempotency.expired": "nothing to do: a new call under the key takes its place",
  "list.missing": "export, and import into an empty folder: lists are made anew",
  "list.dangling": "export, and import into an empty folder: lists are made anew",
  "count.wrong": "export, and import into an empty folder: counters are made anew",
  "event.gap": "restore the data folder from a backup, or export and import into an empty folder: the log begins anew",
  "event.order": "export, and import into an empty folder: the log begins anew",
  "event.status": "export, and import into an empty folder: the log begins anew",
  "event.unlisted": "export, and import into an empty folder: the log begins anew",
  "queue.dead": "look in the server's log for why it failed; what it was for is told by the other findings",
  "row.misplaced": "restore the data folder from a backup",
  "row.unknown": "install the version that wrote it",
} as const satisfies Readonly<Record<string, string>>;
export type Code = keyof typeof kinds;
const codes = Object.keys(kinds) as [Code, ...Code[]];

export const Finding = z.object({
  code: z.enum(codes),
  /** Partition and sort key of the row. */
  row: z.string(),
  /** The task, agent or key it is about. */
  subject: z.string(),
  problem: z.string(),
  repair: z.string(),
});
export type Finding = z.output<typeof Finding>;

export const Report = z.object({
  /** Whose rows were read. */
  tenants: z.array(z.string()),
  /** Rows read, by kind. */
  rows: z.record(z.string(), z.number()),
  /** At most 1,000; `found` says how many there are. */
  findings: z.array(Finding),
  found: z.number(),
  /** What looked wrong and changed while it was looked at: nothing can be said of it while others write. */
  unsettled: z.number(),
  /** Whether the rows of every partition were read; false where the engine names none, and those were read that others lead to. */
  complete: z.boolean(),
});
export type Report = z.output<typeof Report>;
