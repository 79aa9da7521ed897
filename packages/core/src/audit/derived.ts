import type { Row as AgentRow } from "../agent/row.ts";
import { mayLack } from "../counters.ts";
import type { Row as Gate } from "../match/gate.ts";
import { getAll } from "../page.ts";
import type { Item, RowKey } from "../port/index.ts";
import { agentKey, bearerKey, laneKey, taskKey } from "../rows.ts";
import { type Row, terminal } from "../task/row.ts";
import { type Books, keyText, type Pass, pagesOf, report } from "./pass.ts";
import { belongs } from "./tasks.ts";

/** A key whose day is over is of no use; this long after, it should have been taken away. */
const idempotencyGraceMs = 48 * 3600 * 1000;

/** Reads a partition that holds neither tasks, agents nor events. @param tail what its key says after the tenant and its letters */
type Reader = (pass: Pass, books: Books, pk: string, tail: string) => Promise<void>;

/** For each page, a row that each of its rows speaks of. */
async function withOther(
  pass: Pass,
  pk: string,
  otherOf: (row: Item) => RowKey,
  judge: (row: Item, other: Item | undefined) => void,
): Promise<void> {
  for await (const page of pagesOf(pass, pk)) {
    const others = await getAll(pass.ports.store, page.map(otherOf));
    for (const [i, row] of page.entries()) judge(row, others[i]);
  }
}

const each =
  (judge: (pass: Pass, books: Books, row: Item, tail: string) => void): Reader =>
  async (pass, books, pk, tail) => {
    for await (const page of pagesOf(pass, pk)) for (const row of page) judge(pass, books, row, tail);
  };
const known = each(() => {});

const readName: Reader = (pass, books, pk, name) =>
  withOther(
    pass,
    pk,
    (row) => agentKey(books.tenant, String(row.agentId)),
    (row, agent) => {
      if (!agent || agent.name !== name || agent.state === "stopped")
        report(
          pass,
          "name.dangling",
          row,
          name,
          `is held for ${row.agentId}, which is ${agent ? `${agent.name}, ${agent.state}` : "no agent"}`,
        );
    },
  );

const readList: Reader = (pass, books, pk, tail) => {
  const [field, , ...rest] = tail.split("#") as [string, string];
  const value = rest.join("#");
  return withOther(
    pass,
    pk,
    ({ sk }) => taskKey(books.tenant, sk),
    (row, task) => {
      if (!task || !belongs(task as Row, field, value, pass.ports.shared))
        report(
          pass,
          "list.dangling",
          row,
          row.sk,
          `is listed by ${field} ${value}, and is ${task ? "not that" : "no task"}`,
          [row, task],
        );
      if (field === "type") note(books, row.sk, row.events);
    },
  );
};

/** Notes of the rows of the log that speak of a task are counted; so were the rows. */
function note(books: Books, taskId: string, rows: unknown): void {
  const told = books.told.get(taskId);
  if (told && Array.isArray(rows)) told.notes += rows.length;
}

const readNotes = each((_pass, books, row, taskId) => note(books, taskId, row.rows));

const readLane: Reader = async (pass, books, pk, lane) => {
  let any = false;
  await withOther(
    pass,
    pk,
    (row) => taskKey(books.tenant, String(row.taskId)),
    (row, other) => {
      any = true;
      const task = other as Row | undefined;
      if (task?.parked !== row.sk || task.gate !== undefined || task.lane !== lane || task.status !== "queued")
        report(
          pass,
          "lane.dangling",
          row,
          String(row.taskId),
          `waits in a lane, and is ${task ? `${task.status} and not waiting there` : "no task"}`,
          [row, other],
        );
    },
  );
  const registry = laneKey(books.tenant, lane);
  if (any && !(await pass.ports.store.get(registry)))
    report(pass, "lane.unregistered", registry, lane, "is not registered, and tasks wait in it");
};

const readWaiting: Reader = (pass, books, pk, key) =>
  withOther(
    pass,
    pk,
    (row) => taskKey(books.tenant, String(row.taskId)),
    (row, other) => {
      const task = other as Row | undefined;
      if (task?.parked !== row.sk || task.gate !== key || task.status !== "queued")
        report(
          pass,
          "limit.dangling",
          row,
          String(row.taskId),
          `waits for the limit ${key}, and is ${task ? `${task.status} and not waiting for it` : "no task"}`,
          [row, other],
        );
    },
  );

const readLimit = each((pass, { limits }, item, key) => {
  const row = item as Gate;
  const { running, waiting } = limits.get(key) ?? { running: [], waiting: [] };
  if ((row.running ?? 0) !== running.length)
    report(pass, "limit.running", row, key, `counts ${row.running ?? 0} running; ${running.length} are`, [
      row,
      running,
    ]);
  if ((row.waiting ?? 0) !== waiting.length)
    report(pass, "limit.waiting", row, key, `counts ${row.waiting ?? 0} waiting; ${waiting.length} are`, [
      row,
      waiting,
    ]);
  limits.delete(key);
});

const readSticky: Reader = (pass, books, pk, key) =>
  withOther(
    pass,
    pk,
    (row) => agentKey(books.tenant, String(row.agentId)),
    (row, agent) => {
      if (!agent) report(pass, "sticky.dangling", row, key, `is served by ${row.agentId}, which is no agent`);
    },
  );

/** Whoever waits for a task that goes on is told when it ends; once it has ended, and that was told, nobody reads this row. */
const readDependants: Reader = async (pass, books, pk, id) => {
  const key = taskKey(books.tenant, id);
  const task = (await pass.ports.store.get(key)) as Row | undefined;
  const over = task === undefined || terminal.has(task.status);
  if (!over || pass.unhandled.has(keyText(key))) return known(pass, books, pk, id);
  for await (const page of pagesOf(pass, pk))
    for (const row of page)
      report(
        pass,
        "dependant.dangling",
        row,
        row.sk,
        `is to be told of ${id}, which ${task ? `has ${task.status}` : "is no task"}`,
        [row, task],
      );
};

const readIdempotency = each((pass, _books, row, key) => {
  const { expiresAt } = row;
  if (typeof expiresAt !== "number" || expiresAt + idempotencyGraceMs < pass.now)
    report(pass, "idempotency.expired", row, key, `was to be forgotten at ${expiresAt}`);
});

/** Counters that are sums of rows. What has ended is told by the log alone, as far as that goes back. */
const isSum = (name: string, begins: number): boolean =>
  /^((tasks|depth|agents|slots)\.|bytes$)/.test(name) || (begins === 1 && name.startsWith("ended."));

const readCounters = each((pass, { tenant, counts, mark, begins }, row) => {
  for (const name of new Set([...Object.keys(row), ...counts.keys()])) {
    if (!isSum(name, begins) || mayLack(row, name)) continue;
    const says = (row[name] as number | undefined) ?? 0;
    const is = counts.get(name) ?? 0;
    if (says !== is) report(pass, "count.wrong", row, tenant, `counts ${says} ${name}; there are ${is}`, [row, mark]);
  }
});

const readKeys: Reader = (pass, _books, pk) =>
  withOther(
    pass,
    pk,
    (row) => bearerKey(String(row.hash)),
    (row, bearer) => {
      if (bearer?.id !== row.sk) report(pass, "key.bearer", row, row.sk, "is listed, and nobody bears it");
    },
  );

/** By the letters after the tenant. `T`, `A`, `E` and `EH` are read before. */
const readers: Readonly<Record<string, Reader>> = {
  N: readName,
  X: readList,
  V: readNotes,
  L: readLane,
  LANES: known,
  LV: known,
  VT: known,
  O: known,
  G: readLimit,
  GATES: known,
  W: readWaiting,
  F: known,
  S: readSticky,
  D: readDependants,
  I: readIdempotency,
  C: readCounters,
  K: readKeys,
  P: known,
  Q: known,
  B: known,
  R: known,
};
const readBefore = new Set(["T", "A", "E", "EH"]);

/** Reads a partition of a tenant, unless it was read with the tasks, agents and events. */
export async function readPartition(pass: Pass, books: Books, pk: string): Promise<void> {
  const [, letters = "", ...rest] = pk.split("#");
  if (readBefore.has(letters)) return;
  const reader =
    readers[letters] ?? each((pass, _books, row) => report(pass, "row.unknown", row, pk, "is of no known kind"));
  await reader(pass, books, pk, rest.join("#"));
}

/** What no row was found for, after all were read. */
export function readRest(pass: Pass, books: Books): void {
  for (const [key, { running, waiting }] of books.limits)
    if (running.length + waiting.length > 0)
      report(
        pass,
        "limit.running",
        { pk: `${books.tenant}#G#${key}`, sk: "limit" },
        key,
        `is not there; ${running.length} run under it, ${waiting.length} wait`,
        [running, waiting],
      );
  for (const [id, { rows, notes, there }] of books.told) {
    // A projection that was tried twice may have noted a row twice.
    if (there && books.begins === 1 && notes < rows)
      report(
        pass,
        "event.unlisted",
        taskKey(books.tenant, id),
        id,
        `${rows} rows of the log tell of it, and ${notes} are noted`,
      );
  }
}

/** Reads a partition of no tenant, but for timers: bearers of keys, connections. */
export async function readCommon(pass: Pass, pk: string): Promise<void> {
  if (pk.startsWith("K#")) return readBearer(pass, pk);
  for await (const page of pagesOf(pass, pk))
    for (const row of page)
      if (!/^(TENANTS|TIMER|C#|STREAM#|HEALTH)/.test(pk)) report(pass, "row.unknown", row, pk, "is of no known kind");
}

async function readBearer(pass: Pass, pk: string): Promise<void> {
  for await (const page of pagesOf(pass, pk)) {
    for (const row of page) {
      if (row.kind !== "bearer") continue;
      const tenant = String(row.tenant);
      const id = String(row.id);
      const bears = await pass.ports.store.get(
        row.role === "agent" ? agentKey(tenant, id) : { pk: `${tenant}#K`, sk: id },
      );
      const hash = row.role === "agent" ? (bears as AgentRow | undefined)?.tokenHash : bears?.hash;
      if (bearerKey(String(hash)).pk !== pk || bears?.state === "stopped")
        report(
          pass,
          "bearer.dangling",
          row,
          id,
          `is borne for ${id} of ${tenant}, which ${bears ? "has another" : "is not there"}`,
        );
    }
  }
}
