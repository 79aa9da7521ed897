import { deadlineOf, heldMark, heldMarks, type Row } from "../agent/row.ts";
import { getAll } from "../page.ts";
import type { Item } from "../port/index.ts";
import { agentKey, agentNameKey, agentPartition, agentShards, bearerKey, indexKey } from "../rows.ts";
import { timerFault } from "./owed.ts";
import { type Books, count, hash, type Pass, pagesOf, readEach, report } from "./pass.ts";

/** Reads all agents: the slots each counts are those of the tasks it holds, its name and its token are its own. */
export async function readAgents(pass: Pass, books: Books): Promise<void> {
  const { tenant } = books;
  await readEach(pass, Array(agentShards).keys(), async (shard) => {
    const pk = agentPartition(tenant, shard);
    for await (const page of pagesOf(pass, pk)) {
      const rows: Row[] = [];
      for (const item of page) {
        const row = item as Row;
        if (row.id === row.sk && agentKey(tenant, row.id).pk === pk) rows.push(row);
        else report(pass, "row.misplaced", row, row.sk, `is agent ${row.id}, and lies elsewhere`);
      }
      const names = await getAll(
        pass.ports.store,
        rows.map(({ name }) => agentNameKey(tenant, name)),
      );
      const bearers = await getAll(
        pass.ports.store,
        rows.map(({ tokenHash }) => bearerKey(tokenHash)),
      );
      for (const [i, row] of rows.entries()) {
        addUp(books, row, pass.ports.shared);
        judge(pass, books, row, names[i], bearers[i]);
      }
    }
  });
}

function addUp(books: Books, row: Row, shared = false): void {
  books.mark = (books.mark + hash(`${row.id} ${row.rev}`)) >>> 0;
  count(books.counts, `agents.${row.state}`);
  if (shared && row.state !== "stopped") count(books.counts, "slots.all", row.maxConcurrency);
  books.leads.add(agentNameKey(books.tenant, row.name).pk);
  books.leads.add(indexKey(books.tenant, "agent", row.id, row.id).pk);
  books.leads.add(indexKey(books.tenant, "held", row.id, row.id).pk);
}

function judge(pass: Pass, books: Books, row: Row, name: Item | undefined, bearer: Item | undefined): void {
  const { id, used } = row;
  const holds = books.held.get(id) ?? { slots: 0, tasks: [] };
  if (used !== holds.slots)
    report(pass, "agent.slots", row, id, `counts ${used} slots in use; its tasks hold ${holds.slots}`, [
      row,
      holds.tasks,
    ]);
  if (row.deadlineAt !== deadlineOf(row))
    report(
      pass,
      "agent.deadline",
      row,
      id,
      `is due at ${row.deadlineAt}; what it says of itself gives ${deadlineOf(row)}`,
    );
  // Where signs of life are seen by other processes, a lease ends a third later than it says.
  else timerFault(pass, "agent", row, pass.ports.shared ? (row.leaseSeconds * 1000) / 3 : 0);
  if (pass.ports.shared) {
    const fences = new Map(holds.tasks.map((text) => text.split(" ").slice(0, 2) as [string, string]));
    for (const taskId of heldMarks(row))
      if (fences.get(taskId) !== String(row[heldMark(taskId)]))
        report(pass, "agent.marks", row, id, `is marked as holding ${taskId}, and does not`, [row, holds.tasks]);
  }
  if (row.state === "stopped") return;
  if (name?.agentId !== id)
    report(
      pass,
      "agent.name",
      row,
      id,
      `has the name ${row.name}, which is ${name ? `${name.agentId}'s` : "nobody's"}`,
    );
  if (bearer?.id !== id) report(pass, "agent.token", row, id, "has a token that nobody bears");
}
