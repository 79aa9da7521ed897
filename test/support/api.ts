import { setTimeout as sleep } from "node:timers/promises";
import type {
  Agent,
  Assignment,
  AuditReport,
  CreateTask,
  RegisterAgent,
  Task,
  TaskProblem,
  WaggleEvent,
} from "@waggle/sdk";
import { expect } from "vitest";
import { eventually } from "./eventually.ts";
import { type Server, startServer } from "./server.ts";

/*
 * The HTTP surface as a stranger sees it: raw requests, and the few calls every test makes.
 * `WAGGLE_URL` and `WAGGLE_API_KEY` (an admin of the first tenant) run the tests against a server that is there already.
 */

export interface Answer<Body> {
  readonly status: number;
  readonly headers: Headers;
  /** Exactly what came. */
  readonly text: string;
  readonly body: Body;
}
export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly code: string;
  readonly detail: string;
  readonly requestId: string;
  readonly errors?: readonly { readonly path: string; readonly message: string }[];
  readonly task?: Task;
}
type Headers_ = Readonly<Record<string, string>>;

export interface Api {
  readonly url: string;
  readonly key: string;
  call<Body = Problem>(method: string, path: string, content?: unknown, headers?: Headers_): Promise<Answer<Body>>;
  /** A request whose body is this text or these bytes. */
  raw<Body = Problem>(
    method: string,
    path: string,
    body: string | Uint8Array,
    headers?: Headers_,
  ): Promise<Answer<Body>>;
  get<Body = Problem>(path: string, headers?: Headers_): Promise<Answer<Body>>;
  post<Body = Problem>(path: string, content?: unknown, headers?: Headers_): Promise<Answer<Body>>;
  /** The same server with another key; without one, none is sent. */
  as(key: string | undefined): Api;

  delegate(task?: Partial<CreateTask>): Promise<Task>;
  task(id: string): Promise<Task>;
  /** The task once it has the status. */
  taskWhen(id: string, status: Task["status"], seconds?: number): Promise<Task>;
  register(agent?: Partial<RegisterAgent>): Promise<TestAgent>;
  agent(id: string): Promise<Agent>;
  events(types?: string): Promise<WaggleEvent[]>;
}

export interface TestAgent {
  readonly id: string;
  readonly token: string;
  readonly api: Api;
  lease(max?: number, waitSeconds?: number): Promise<Assignment[]>;
  /** One assignment, waited for. */
  take(): Promise<Assignment>;
  start(assignment: Assignment): Promise<Answer<{ task: Task } & Problem>>;
  complete(assignment: Assignment, result?: unknown, more?: object): Promise<Answer<Ended>>;
  fail(assignment: Assignment, error?: Partial<TaskProblem>, more?: object): Promise<Answer<Ended>>;
  release(assignment: Assignment): Promise<Answer<Ended>>;
  beat(assignment: Assignment, content?: object): Promise<Answer<CommandsAnswer>>;
  heartbeat(): Promise<Answer<CommandsAnswer>>;
}
export type Ended = { task: Task; assignments?: Assignment[] } & Problem;
export type CommandsAnswer = { commands: { cancel: string[]; pause: boolean; drain: boolean } } & Problem;

const lists = /^\/v1\/(tasks|agents|deadletters|events)(\?|$)/;
const listsLagMs = 600;

let counter = 0;
/** A name no other test has. */
export const unique = (prefix: string): string =>
  `${prefix}-${process.pid.toString(36)}-${Date.now().toString(36)}-${counter++}`;

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

export function apiOf(url: string, key: string): Api {
  const raw: Api["raw"] = async (method, path, body, headers = {}) => {
    const response = await fetch(url + path, {
      method,
      headers: {
        ...(key ? { authorization: `Bearer ${key}` } : {}),
        ...(body.length > 0 ? { "content-type": "application/json" } : {}),
        ...headers,
      },
      body: body.length > 0 ? body : null,
    });
    const text = await response.text();
    return { status: response.status, headers: response.headers, text, body: parsed(text) as never };
  };
  const call: Api["call"] = (method, path, content, headers) =>
    raw(method, path, content === undefined ? "" : JSON.stringify(content), headers);
  const get: Api["get"] = async (path, headers) => {
    // On AWS lists follow what was written by a moment, and nothing tells a reader when.
    if (remote && lists.test(path)) await sleep(listsLagMs);
    return await call("GET", path, undefined, headers);
  };
  const post: Api["post"] = (path, content, headers) => call("POST", path, content, headers);
  /** The body of an answer that must have gone well. */
  async function good<Body>(status: number, answering: Promise<Answer<Body>>): Promise<Body> {
    const answer = await answering;
    if (answer.status !== status)
      throw new Error(`expected ${status}, got ${answer.status}: ${answer.text.slice(0, 2000)}`);
    return answer.body;
  }

  const api: Api = {
    url,
    key,
    raw,
    call,
    get,
    post,
    as: (other) => apiOf(url, other ?? ""),
    delegate: async (task = {}) => (await good(201, post<{ task: Task }>("/v1/tasks", { type: "test", ...task }))).task,
    task: async (id) => (await good(200, get<{ task: Task }>(`/v1/tasks/${id}`))).task,
    taskWhen: (id, status, seconds = 10) =>
      eventually(
        `task ${id} is ${status}`,
        async () => {
          const task = await api.task(id);
          if (task.status !== status) throw new Error(`it is ${task.status}, waiting: ${JSON.stringify(task.waiting)}`);
          return task;
        },
        { seconds },
      ),
    agent: async (id) => (await good(200, get<{ agent: Agent }>(`/v1/agents/${id}`))).agent,
    async register(options = {}) {
      const content = { name: unique("agent"), capabilities: [], ...options };
      const { agent, token } = await good(201, post<{ agent: Agent; token: string }>("/v1/agents", content));
      return agentOf(agent.id, token, apiOf(url, token));
    },
    async events(types) {
      const items: WaggleEvent[] = [];
      for (let after = 0; ; ) {
        const filter = types === undefined ? "" : `&types=${types}`;
        const path = `/v1/events?limit=200&after=${after}${filter}`;
        const page = await good(200, get<{ items: WaggleEvent[]; nextAfter: number }>(path));
        items.push(...page.items);
        if (page.items.length === 0 || page.nextAfter === after) return items;
        after = page.nextAfter;
      }
    },
  };
  return api;
}

export function agentOf(id: string, token: string, api: Api): TestAgent {
  const end = (verb: string, { task, fence }: Assignment, content: object) =>
    api.post<Ended>(`/v1/tasks/${task.id}/${verb}`, { fence, ...content });
  const agent: TestAgent = {
    id,
    token,
    api,
    async lease(max = 1, waitSeconds = 0) {
      const answer = await api.post<{ assignments: Assignment[] }>(`/v1/agents/${id}/lease`, { max, waitSeconds });
      expect(answer.status, answer.text).toBe(200);
      return answer.body.assignments;
    },
    async take() {
      const [assignment] = await agent.lease(1, 10);
      if (assignment === undefined) throw new Error("the agent was given nothing within 10 s");
      return assignment;
    },
    start: (assignment) => api.post(`/v1/tasks/${assignment.task.id}/start`, { fence: assignment.fence }),
    complete: (assignment, result, more = {}) =>
      end("complete", assignment, { ...(result === undefined ? {} : { result }), ...more }),
    fail: (assignment, error = {}, more = {}) =>
      end("fail", assignment, { error: { code: "broken", message: "it broke", ...error }, ...more }),
    release: (assignment) => end("release", assignment, {}),
    beat: (assignment, content = {}) =>
      api.post(`/v1/tasks/${assignment.task.id}/heartbeat`, { fence: assignment.fence, ...content }),
    heartbeat: () => api.post(`/v1/agents/${id}/heartbeat`, {}),
  };
  return agent;
}

/** A server somebody else runs: it can be spoken to, not killed. */
export const remote = process.env.WAGGLE_URL !== undefined;

/**
 * What `look` reads of a list once `check` takes it. A server of ours holds to it at once; elsewhere lists follow what was written.
 * @throws what `check` threw last
 */
export const listed = <Seen>(look: () => Promise<Seen>, check: (seen: Seen) => void): Promise<Seen> => {
  const checked = async () => {
    const seen = await look();
    check(seen);
    return seen;
  };
  return remote ? (eventually("the list follows", checked, { seconds: 30 }) as Promise<Seen>) : checked();
};

export interface TestServer {
  /** Admin of the first tenant. */
  readonly admin: Api;
  /** A tenant of its own, empty, with its admin. */
  tenant(): Promise<Api>;
  /** Only where the server is ours. */
  readonly server: Server | undefined;
  stop(): Promise<void>;
}

/** @param options only for a server of its own */
export async function openServer(options: Parameters<typeof startServer>[0] = {}): Promise<TestServer> {
  const server = remote ? undefined : await startServer(options);
  const url = server?.url ?? (process.env.WAGGLE_URL as string);
  const admin = apiOf(url.replace(/\/$/, ""), server?.key ?? process.env.WAGGLE_API_KEY ?? "");
  return {
    admin,
    server,
    async tenant() {
      const answer = await admin.post<{ key: string }>("/v1/keys", { role: "admin", tenant: unique("t") });
      expect(answer.status, answer.text).toBe(201);
      return admin.as(answer.body.key);
    },
    async stop() {
      try {
        // Whatever the tests did to it, no row is left behind.
        if (server?.process.running) expect((await admin.get<AuditReport>("/v1/audit")).body.findings).toEqual([]);
      } finally {
        await server?.stop();
      }
    },
  };
}
