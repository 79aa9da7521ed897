import { policyOf } from "../policy.ts";
import type { Ports } from "../port/index.ts";
import { tenantKey, timerCursorKey } from "../rows.ts";
import { readAgents } from "./agents.ts";
import { readCommon, readPartition, readRest } from "./derived.ts";
import { readEvents } from "./events.ts";
import { kinds } from "./kinds.ts";
import { readDeadLetters, readOwed, readTimerRows } from "./owed.ts";
import { type Books, type Found, type Pass, pagesOf, readEach, turn } from "./pass.ts";
import type { Finding, Report } from "./schema.ts";
import { readTasks } from "./tasks.ts";

export interface Options {
  /** Whose rows are read; all of them, and those of nobody, unless it is given. */
  readonly tenant?: string;
  /**
   * Called where something looks wrong and others may have written meanwhile: resolves when all is to be read again. What is
   * wrong in both readings, by rows that did not change between, is wrong.
   */
  readonly pause?: () => Promise<unknown>;
  /** Given up after so long, the second reading included. */
  readonly budgetMs?: number;
}

const mostFindings = 1000;

/**
 * Reads the whole store and compares every row with those it has to agree with. Changes nothing.
 *
 * Cost: each row once, the lists of each task by key, about 300 bytes of memory a task. Once more where something looks wrong.
 * @throws `audit.too_large`
 */
export async function run(ports: Ports, options: Options = {}): Promise<Report> {
  const until = ports.clock.now() + (options.budgetMs ?? Number.POSITIVE_INFINITY);
  const first = await readOnce(ports, options.tenant, until);
  let found = [...first.pass.found.values()];
  let unsettled = 0;
  if (found.length > 0 && options.pause) {
    await options.pause();
    const { pass } = await readOnce(ports, options.tenant, until);
    const stands = ([name, { witness }]: [string, Found]) => pass.found.get(name)?.witness === witness;
    found = [...first.pass.found].filter(stands).map(([, each]) => each);
    unsettled = first.pass.found.size - found.length;
  }
  return {
    tenants: first.tenants,
    rows: first.pass.rows,
    findings: found.slice(0, mostFindings).map(toFinding),
    found: found.length,
    unsettled,
    complete: ports.inspect !== undefined,
  };
}

const toFinding = ({ code, row, subject, problem }: Found): Finding => ({
  code,
  row: `${row.pk} ${row.sk}`,
  subject,
  problem,
  repair: kinds[code],
});

async function readOnce(
  ports: Ports,
  only: string | undefined,
  until: number,
): Promise<{ pass: Pass; tenants: string[] }> {
  await ports.store.projected();
  const pass: Pass = { ports, now: ports.clock.now(), until, found: new Map(), rows: {}, ...readOwed(ports.inspect) };
  if (!ports.inspect) return readLed(pass, only === undefined ? await tenantsOf(pass) : [only]);
  const named = await tenantsOf(pass);
  const partitions = new Map<string, string[]>(named.map((tenant) => [tenant, []]));
  const common: string[] = [];
  let looked = 0;
  for (const pk of ports.inspect.partitions()) {
    if (++looked % 500 === 0) await turn();
    const tenant = pk.slice(0, Math.max(0, pk.indexOf("#")));
    if (!/^[a-z0-9]/.test(tenant)) common.push(pk);
    else if (!partitions.get(tenant)?.push(pk)) partitions.set(tenant, [pk]);
  }
  const tenants = only === undefined ? [...partitions.keys()].sort() : [only];
  const swept = (await ports.store.get(timerCursorKey))?.minute as number | undefined;
  // Timers first: tasks and agents are compared with them.
  for (const pk of common) if (pk.startsWith("TIMER#")) await readTimerRows(pass, pk, swept);
  if (only === undefined) {
    await readDeadLetters(pass);
    for (const pk of common) if (!pk.startsWith("TIMER#")) await readCommon(pass, pk);
  }
  for (const tenant of tenants) await readTenant(pass, tenant, partitions.get(tenant) ?? []);
  return { pass, tenants };
}

/** What the rows of these tenants lead to; timers, dead letters and bearers of nobody's are known to the engine alone. */
async function readLed(pass: Pass, tenants: string[]): Promise<{ pass: Pass; tenants: string[] }> {
  for (const tenant of tenants) await readTenant(pass, tenant, undefined);
  return { pass, tenants };
}

async function tenantsOf(pass: Pass): Promise<string[]> {
  const tenants: string[] = [];
  for await (const page of pagesOf(pass, tenantKey("").pk)) tenants.push(...page.map(({ sk }) => sk));
  return tenants;
}

/** @param named its partitions; those its rows lead to unless they are given */
async function readTenant(pass: Pass, tenant: string, named: readonly string[] | undefined): Promise<void> {
  const books: Books = {
    tenant,
    policy: await policyOf(pass.ports, tenant),
    begins: 1,
    told: new Map(),
    held: new Map(),
    limits: new Map(),
    counts: new Map(),
    mark: 0,
    leads: new Set(["LANES", "GATES", "C", "K"].map((letters) => `${tenant}#${letters}`)),
  };
  await readEvents(pass, books);
  await readTasks(pass, books);
  await readAgents(pass, books);
  await readEach(pass, named ?? books.leads, (pk) => readPartition(pass, books, pk));
  readRest(pass, books);
}
