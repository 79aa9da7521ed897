import { afterAll, beforeAll, expect, test } from "vitest";
import { type Api, openServer, type TestAgent, type TestServer, unique } from "../support/api.ts";

/*
 * Every call for everyone. What is expected is in access.golden.md: read each change of it as you would read code.
 * `npx vitest run test/access -u` writes it anew.
 */

/** What a call is about, made for it. */
interface Subject {
  readonly id: string;
  readonly fence: number;
  /** The agent it is, or that holds it. */
  readonly agent: TestAgent | undefined;
}
interface Plan {
  /** What its path names. */
  readonly about?: "agent" | "task" | "ended task" | "key" | "limit" | "set limit" | "tenant";
  readonly body?: (subject: Subject) => unknown;
}

/** Which no agent takes. */
const made = { type: "made", requires: [{ capability: "nobody" }] };
const fenced = ({ fence }: Subject) => ({ fence });
/** A fit call of each operation. One that the document has and this table has not fails the test. */
const plans: Readonly<Record<string, Plan>> = {
  registerAgent: { body: () => ({ name: unique("made"), capabilities: [] }) },
  listAgents: {},
  getAgent: { about: "agent" },
  updateAgent: { about: "agent", body: () => ({ description: "changed" }) },
  leaseTasks: { about: "agent", body: () => ({}) },
  heartbeatAgent: { about: "agent", body: () => ({}) },
  drainAgent: { about: "agent" },
  pauseAgent: { about: "agent" },
  resumeAgent: { about: "agent" },
  removeAgent: { about: "agent" },
  connectAgent: { about: "agent" },
  createTask: { body: ({ id }) => ({ ...made, ...(id && { parentId: id }) }) },
  createTasks: { body: () => ({ tasks: [made] }) },
  listTasks: {},
  getTask: { about: "task" },
  cancelTask: { about: "task" },
  startTask: { about: "task", body: fenced },
  heartbeatTask: { about: "task", body: fenced },
  completeTask: { about: "task", body: fenced },
  failTask: { about: "task", body: (subject) => ({ ...fenced(subject), error: { code: "no", message: "no" } }) },
  releaseTask: { about: "task", body: fenced },
  retryTask: { about: "ended task" },
  listTaskEvents: { about: "task" },
  explainTask: { about: "task" },
  listDeadLetters: {},
  redriveDeadLetters: { body: () => ({ all: true }) },
  getHealth: {},
  getStatus: {},
  auditStore: {},
  listEvents: {},
  getMetrics: {},
  createKey: { body: () => ({ role: "reader" }) },
  listKeys: {},
  revokeKey: { about: "key" },
  putSubscriptions: { body: () => ({ types: [] }) },
  getSubscriptions: {},
  putLimit: { about: "limit", body: () => ({ concurrency: 1 }) },
  getLimit: { about: "limit" },
  removeLimit: { about: "set limit" },
  putRetention: { body: () => ({ taskSeconds: 86_400 }) },
  getRetention: {},
  putQuotas: { about: "tenant", body: () => ({ agents: 100 }) },
  getQuotas: { about: "tenant" },
  listLimits: {},
  getOpenApi: {},
  getDocs: {},
  exportRecords: {},
  importRecords: { body: () => ({ version: 1, records: [{ kind: "limit", key: "moved", concurrency: 1 }] }) },
};

const roles = ["admin", "operator", "client", "reader"] as const;
type Role = (typeof roles)[number];

/** One tenant with everyone in it. */
interface Tenant {
  readonly name: string;
  readonly admin: Api;
  readonly keys: Readonly<Record<Role, Api>>;
}

let server: TestServer;
let home: Tenant;
let abroad: Tenant;
beforeAll(async () => {
  server = await openServer();
  home = await makeTenant();
  abroad = await makeTenant();
});
afterAll(() => server?.stop());

async function makeKey(admin: Api, role: string): Promise<Api & { keyId: string }> {
  const { status, body, text } = await admin.post<{ id: string; key: string }>("/v1/keys", { role });
  expect(status, text).toBe(201);
  return { ...admin.as(body.key), keyId: body.id };
}

async function makeTenant(): Promise<Tenant> {
  const name = unique("tenant");
  const { body } = await server.admin.post<{ key: string }>("/v1/keys", { role: "admin", tenant: name });
  const admin = server.admin.as(body.key);
  const keys = await Promise.all(roles.map(async (role) => [role, await makeKey(admin, role)] as const));
  return { name, admin, keys: Object.fromEntries(keys) as unknown as Record<Role, Api> };
}

async function makeSubject({ name, admin }: Tenant, about: Plan["about"]): Promise<Subject> {
  if (about === "key") return { id: (await makeKey(admin, "reader")).keyId, fence: 0, agent: undefined };
  if (about === "tenant") return { id: name, fence: 0, agent: undefined };
  if (about === "limit") return { id: "shared", fence: 0, agent: undefined };
  if (about === "set limit") {
    const id = unique("limit");
    await admin.call("PUT", `/v1/limits/${id}`, { concurrency: 1 });
    return { id, fence: 0, agent: undefined };
  }
  const agent = await admin.register();
  if (about === undefined || about === "agent") return { id: agent.id, fence: 0, agent };
  const task = await admin.delegate({ agentId: agent.id, retry: { maxAttempts: 1 } });
  const { fence } = await agent.take();
  if (about === "ended task")
    await agent.api.post(`/v1/tasks/${task.id}/fail`, { fence, error: { code: "no", message: "no" } });
  return { id: task.id, fence, agent };
}

interface Operation {
  readonly id: string;
  readonly method: string;
  readonly path: string;
  readonly roles: readonly string[];
}

async function operations(): Promise<Operation[]> {
  type Found = Record<string, Record<string, { operationId: string; "x-roles": string[] }>>;
  const { body } = await server.admin.get<{ paths: Found }>("/openapi.json");
  return Object.entries(body.paths).flatMap(([path, byMethod]) =>
    Object.entries(byMethod).map(([method, found]) => ({
      id: found.operationId,
      method: method.toUpperCase(),
      path,
      roles: found["x-roles"],
    })),
  );
}

const columns = [
  ...roles,
  "agent, its own",
  "agent, another's",
  ...roles.map((role) => `${role}, another tenant's`),
  "agent, another tenant's",
  "no key",
  "wrong key",
  "revoked key",
  "replaced token",
  "removed agent's token",
] as const;
type Column = (typeof columns)[number];

async function spent(): Promise<Record<"revoked key" | "replaced token" | "removed agent's token", Api>> {
  const key = await makeKey(home.admin, "admin");
  await home.admin.call("DELETE", `/v1/keys/${key.keyId}`);
  const name = unique("replaced");
  const old = await home.admin.register({ name });
  await home.admin.register({ name, onConflict: "replace" });
  const removed = await home.admin.register();
  await home.admin.call("DELETE", `/v1/agents/${removed.id}?mode=force`);
  return { "revoked key": key, "replaced token": old.api, "removed agent's token": removed.api };
}

/** The status each column gets for one operation. */
async function row(operation: Operation, void_: Awaited<ReturnType<typeof spent>>): Promise<Map<Column, number>> {
  const plan = plans[operation.id] as Plan;
  const ask = async (api: Api, subject: Subject): Promise<number> => {
    const path = operation.path.replace(/\{\w+\}/, subject.id);
    const { status } = await api.call(operation.method, path, plan.body?.(subject));
    // A wrong key too many is told so: which of them it is depends on how fast this runs.
    return status === 429 ? 401 : status;
  };
  const named = plan.about !== undefined;
  const nothing: Subject = { id: "", fence: 0, agent: undefined };
  const [ours, own, another, theirs] = await Promise.all([
    named ? makeSubject(home, plan.about) : nothing,
    makeSubject(home, plan.about ?? (operation.id === "createTask" ? "task" : "agent")),
    named ? makeSubject(home, plan.about) : nothing,
    named ? makeSubject(abroad, plan.about) : nothing,
  ]);
  const agent = own.agent ?? (await home.admin.register());
  const found = new Map<Column, number>();
  // Those who may only look come first: whoever changes it leaves it as the next one may find it, but for these.
  const once = plan.about === "ended task" || plan.about === "set limit";
  for (const role of [...roles].reverse())
    found.set(role, await ask(home.keys[role], once ? await makeSubject(home, plan.about) : ours));
  if (named) {
    found.set("agent, another's", await ask(agent.api, another));
    found.set("agent, another tenant's", await ask(agent.api, theirs));
    for (const role of roles) found.set(`${role}, another tenant's`, await ask(home.keys[role], theirs));
  }
  found.set("agent, its own", await ask(agent.api, named || operation.id === "createTask" ? own : nothing));
  found.set("no key", await ask(home.admin.as(undefined), another));
  found.set("wrong key", await ask(home.admin.as(`wgk_${"x".repeat(27)}`), another));
  for (const column of ["revoked key", "replaced token", "removed agent's token"] as const)
    found.set(column, await ask(void_[column], another));
  return found;
}

test("every call, for every role, on its own, another agent's and another tenant's, is as access.golden.md says", {
  timeout: 120_000,
}, async () => {
  const all = await operations();
  expect(
    all.map(({ id }) => id).filter((id) => plans[id] === undefined),
    "new calls: say above how to make one",
  ).toEqual([]);
  expect(Object.keys(plans).filter((id) => !all.some((operation) => operation.id === id))).toEqual([]);
  const void_ = await spent();
  const lines: string[] = [];
  for (const operation of all) {
    const found = await row(operation, void_);
    check(operation, found);
    const cells = columns.map((column) => found.get(column) ?? "");
    lines.push(`| ${operation.method} ${operation.path} | ${cells.join(" | ")} |`);
  }
  await expect(table(lines)).toMatchFileSnapshot("access.golden.md");
});

/** What holds whatever the table says, so that writing it anew cannot hide a hole. */
function check({ id, roles: may }: Operation, found: ReadonlyMap<Column, number>): void {
  const open = may.length === 0;
  for (const [column, status] of found) {
    const where = `${id}, ${column}`;
    const role = column.split(",")[0] as string;
    if (column.endsWith("key") || column.endsWith("token")) {
      if (!open) expect(status, where).toBe(401);
    } else if (!open && !may.includes(role)) expect(status, where).toBe(403);
    else if (id === "putQuotas" || (id === "getQuotas" && column.endsWith("another tenant's")))
      expect(status, where).toBe(403);
    else if (column.endsWith("another tenant's") && id !== "putLimit" && id !== "getLimit")
      expect(status, where).toBe(404);
    else if (column.endsWith("another's")) expect(status, where).toBe(404);
    else expect([401, 403, 404, 500], where).not.toContain(status);
  }
}

function table(lines: readonly string[]): string {
  const head = `| call | ${columns.join(" | ")} |\n|${" --- |".repeat(columns.length + 1)}`;
  const note =
    "The status of every call, by who makes it and on whose it is. Made by `test/access/matrix.test.ts`.\n\n" +
    "403: not for this role. 404: not there for this caller, as if it never was. 401: no key that is good. 426: allowed, by WebSocket.\n" +
    "Empty: the call names nothing that could be another's. A limit's key is a name: each tenant has its own of every name.\n" +
    "Quotas are set, and another tenant's read, with a key of the first tenant, which nobody here has.";
  return `# Who may do what\n\n${note}\n\n${head}\n${lines.join("\n")}\n`;
}
