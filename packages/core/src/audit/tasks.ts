import * as Gate from "../match/gate.ts";
import { capabilitiesOf } from "../match/requirement.ts";
import { getAll } from "../page.ts";
import type { Item, RowKey } from "../port/index.ts";
import { grown, isDead } from "../projection.ts";
import { isRetired } from "../retention/retention.ts";
import {
  agentKey,
  dependantPartition,
  gateKey,
  gatePartition,
  type IndexField,
  indexKey,
  lanePartition,
  stickyKey,
  taskEventPartition,
  taskKey,
  taskPartition,
  taskShards,
} from "../rows.ts";
import { deadlineOf, held, type Row, terminal } from "../task/row.ts";
import { timerFault } from "./owed.ts";
import { at, type Books, count, hash, keyText, type Pass, pagesOf, readEach, report } from "./pass.ts";

/** The lists a task belongs in, as `project` keeps them. */
function listsOf(row: Row, shared: boolean): [IndexField, string][] {
  const lists: [IndexField, string][] = [
    ["status", row.status],
    ["type", row.type],
    ...(row.tags ?? []).map((tag): [IndexField, string] => ["tag", tag]),
  ];
  if (row.parentId !== undefined) lists.push(["parent", row.parentId]);
  if (row.agentId !== undefined) lists.push(["agent", row.agentId]);
  if (row.agentId !== undefined && held.has(row.status) && !shared) lists.push(["held", row.agentId]);
  if (isDead(row)) lists.push(["dead", ""]);
  return lists;
}

/** Whether a task is in a list, by what its own row says. */
export const belongs = (row: Row, field: string, value: string, shared: boolean): boolean =>
  listsOf(row, shared).some(([own, is]) => own === field && is === value);

/** Another row that a task's row speaks of, and what is wrong when it is not there. */
interface Related {
  readonly key: RowKey;
  judge(other: Item | undefined): void;
}

/** Reads all tasks: each by itself, with the rows it speaks of, and for the sums that others keep of them. */
export async function readTasks(pass: Pass, books: Books): Promise<void> {
  await readEach(pass, Array(taskShards).keys(), async (shard) => {
    const pk = taskPartition(books.tenant, shard);
    for await (const page of pagesOf(pass, pk)) {
      const related: Related[] = [];
      for (const item of page) {
        const row = item as Row;
        const place = taskKey(books.tenant, row.sk);
        if (row.id !== row.sk || place.pk !== pk || row.tenant !== books.tenant) {
          report(pass, "row.misplaced", row, row.sk, `is task ${row.id} of ${row.tenant}, and lies elsewhere`);
          continue;
        }
        addUp(books, row, pass.ports.shared);
        judgeAlone(pass, books, row);
        related.push(...relatedOf(pass, books, row));
        await judgePayloads(pass, row);
      }
      const found = await getAll(
        pass.ports.store,
        related.map(({ key }) => key),
      );
      for (const [i, { judge }] of related.entries()) judge(found[i]);
    }
  });
  for (const [id, told] of books.told) {
    const ended = told.status !== "created" && terminal.has(told.status);
    if (told.there || (ended && isRetired(books.policy, told.at, pass.now))) continue;
    const problem = `the log tells of it (${told.status}), and there is no such task`;
    report(pass, "task.lost", taskKey(books.tenant, id), id, problem, told);
  }
}

function addUp(books: Books, row: Row, shared = false): void {
  const name = `${row.id} ${row.fence} ${row.rev}`;
  books.mark = (books.mark + hash(name)) >>> 0;
  count(books.counts, `tasks.${row.status}`);
  count(books.counts, "bytes", grown(undefined, row));
  if (row.status === "queued")
    for (const capability of capabilitiesOf(row.requires)) count(books.counts, `depth.${capability}`);
  if (shared && held.has(row.status)) count(books.counts, "slots.used", row.slots);
  if (held.has(row.status) && row.agentId !== undefined) {
    const agent = at(books.held, row.agentId, () => ({ slots: 0, tasks: [] }));
    agent.slots += row.slots;
    agent.tasks.push(name);
  }
  const limit = (key: string) => at(books.limits, key, () => ({ running: [], waiting: [] }));
  if (held.has(row.status) && Gate.gated(row)) for (const key of Gate.keysOf(row)) limit(key).running.push(name);
  if (row.gate !== undefined) limit(row.gate).waiting.push(name);
  for (const [field, value] of listsOf(row, false)) books.leads.add(indexKey(books.tenant, field, value, row.id).pk);
  books.leads.add(lanePartition(books.tenant, row.lane));
  books.leads.add(taskEventPartition(books.tenant, row.id));
  books.leads.add(dependantPartition(books.tenant, row.id));
  for (const on of row.dependsOn ?? []) books.leads.add(dependantPartition(books.tenant, on));
  for (const key of Gate.gated(row) ? Gate.keysOf(row) : []) {
    books.leads.add(gateKey(books.tenant, key).pk);
    books.leads.add(gatePartition(books.tenant, key));
  }
  if (row.stickyKey !== undefined) books.leads.add(stickyKey(books.tenant, row.stickyKey).pk);
}

function judgeAlone(pass: Pass, books: Books, row: Row): void {
  const { id, status } = row;
  const told = books.told.get(id);
  if (told) told.there = true;
  if (told === undefined || !told.known) {
    if (books.begins === 1) report(pass, "event.status", row, id, `is ${status}, and the log does not tell of it`);
  } else {
    // There is no event for a task that waits for its caller.
    const says = status === "input_required" ? "running" : status;
    if (told.status !== says) report(pass, "event.status", row, id, `is ${status}, and ${told.status} in the log`);
    if (held.has(status) && told.fence !== row.fence && (told.fence > 0 || books.begins === 1))
      report(pass, "event.status", row, id, `has the fence ${row.fence}, and ${told.fence} in the log`);
  }
  if (row.deadlineAt !== deadlineOf(row))
    report(
      pass,
      "task.deadline",
      row,
      id,
      `is due at ${row.deadlineAt}; what it says of itself gives ${deadlineOf(row)}`,
    );
  else timerFault(pass, "task", row);
  if (row.parked !== undefined && status !== "queued")
    report(pass, "task.unparked", row, id, `is ${status}, and says that it waits at ${row.parked}`);
  if (status === "queued" && row.parked === undefined && pass.dispatched !== undefined) {
    if (!pass.unhandled.has(keyText(row)) && !pass.dispatched.has(`${books.tenant}/${id}`))
      report(pass, "task.stuck", row, id, "is queued, waits nowhere, and nothing is under way to find it an agent");
  }
  if (status === "scheduled" && row.scheduledAt === undefined && !row.unmet?.length)
    report(pass, "task.stuck", row, id, "is scheduled, for no time and after no other task");
  if (held.has(status) && row.agentId === undefined)
    report(pass, "task.holder", row, id, `is ${status}, with no agent`);
}

function relatedOf(pass: Pass, books: Books, row: Row): Related[] {
  const { tenant } = books;
  const { shared } = pass.ports;
  const { id } = row;
  const related: Related[] = listsOf(row, shared).map(([field, value]) => ({
    key: indexKey(tenant, field, value, id),
    judge(entry) {
      if (!entry) report(pass, "list.missing", row, id, `is not in the list of tasks by ${field} ${value}`);
    },
  }));
  if (row.parked !== undefined) {
    const pk = row.gate === undefined ? lanePartition(tenant, row.lane) : gatePartition(tenant, row.gate);
    const where = row.gate === undefined ? "its lane" : `the limit ${row.gate}`;
    related.push({
      key: { pk, sk: row.parked },
      judge(place) {
        if (place?.taskId !== id)
          report(pass, "task.unparked", row, id, `says that it waits for ${where}, and does not`);
      },
    });
  }
  if (held.has(row.status) && row.agentId !== undefined)
    related.push({
      key: agentKey(tenant, row.agentId),
      judge(agent) {
        if (!agent || agent.state === "stopped")
          report(
            pass,
            "task.holder",
            row,
            id,
            `is ${row.status} with ${row.agentId}, which is ${agent ? "stopped" : "no agent"}`,
          );
      },
    });
  if (row.boundAgentId !== undefined && row.parked !== undefined && row.gate === undefined)
    related.push({
      key: agentKey(tenant, row.boundAgentId),
      judge(agent) {
        if (agent?.state !== "stopped" || pass.unhandled.has(keyText(agent)) || pass.unhandled.has(keyText(row)))
          return;
        report(pass, "task.stuck", row, id, `waits for ${row.boundAgentId} alone, which was removed`, [row, agent]);
      },
    });
  for (const on of row.status === "scheduled" ? (row.unmet ?? []) : [])
    related.push(...dependencyOf(pass, books, row, on));
  return related;
}

function dependencyOf(pass: Pass, { tenant }: Books, row: Row, on: string): Related[] {
  const dependency = taskKey(tenant, on);
  return [
    {
      key: dependency,
      judge(other) {
        if (!other) report(pass, "task.dependency", row, row.id, `waits for ${on}, which is not there`);
        else if (terminal.has((other as Row).status) && !pass.unhandled.has(keyText(dependency)))
          report(pass, "task.dependency", row, row.id, `waits for ${on}, which has ${(other as Row).status}`, [
            row,
            other,
          ]);
        else if (!(other as Row).dependants)
          report(pass, "dependant.unflagged", other, on, `does not say that ${row.id} waits for it`, [row, other]);
      },
    },
    {
      key: { pk: dependantPartition(tenant, on), sk: row.id },
      judge(link) {
        if (!link && !pass.unhandled.has(keyText(dependency)))
          report(pass, "task.dependency", row, row.id, `waits for ${on}, and will not be told when that ends`);
      },
    },
  ];
}

async function judgePayloads(pass: Pass, row: Row): Promise<void> {
  for (const name of ["inputBlob", "resultBlob"] as const) {
    const key = row[name];
    if (key !== undefined && (await pass.ports.blobs.get(key)) === undefined)
      report(pass, "task.payload", row, row.id, `its ${name === "inputBlob" ? "input" : "result"} ${key} is not there`);
  }
}
