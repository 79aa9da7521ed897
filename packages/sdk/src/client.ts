import { toApiError, WaggleApiError, WaggleConnectionError } from "./error.ts";
import {
  type Delegation,
  type ResultOptions,
  resultOf,
  type TaskHandle,
  toDelegation,
  toHandle,
  untilEnded,
} from "./handle.ts";
import { newTaskId } from "./id.ts";
import { backoffMs, defaultRetry, mayRetry, type RetryPolicy, type Sleep, sleep, withRetry } from "./retry.ts";
import { parseSse } from "./sse.ts";
import { submitter } from "./submit.ts";
import type { Transport } from "./transport.ts";
import type * as W from "./types.ts";

export interface ClientOptions {
  /** Where the server is, e.g. `http://127.0.0.1:9244`. Without it: `WAGGLE_URL`, then (in Node) the local data folder. */
  url?: string;
  /** Without it: `WAGGLE_API_KEY`, then (in Node) the key of the local data folder. */
  key?: string;
  /** The longest silence of the server before a try counts as failed. Default 30. */
  timeoutSeconds?: number;
  /** How long it tries again on 429, 502, 503, 504 and network errors. Default 30; 0 never tries again. */
  retrySeconds?: number;
  /** Joins tasks created in one turn of the event loop into one request. Default true. */
  coalesce?: boolean;
  /** Sent with every call, e.g. a `traceparent`. */
  headers?: Record<string, string>;
  fetch?: typeof fetch;
}

export interface CallOptions {
  signal?: AbortSignal;
  /** The longest silence of the server, for this call. */
  timeoutSeconds?: number;
}
export interface CreateOptions extends CallOptions {
  /** Yours, to make the same call safe across restarts. Without it the client makes one. */
  idempotencyKey?: string;
}
export interface FollowOptions {
  /** The sequence number to go on after. Default 0: from the first. */
  after?: number;
  /** Comma-separated; `task.*` matches a family. */
  types?: string;
  signal?: AbortSignal;
}

/** What differs between Node and a browser. */
export interface Platform {
  resolve(options: ClientOptions): { url: string; key: string | undefined };
  transport(url: string, options: ClientOptions): Transport;
  afterTurn(callback: () => void): void;
  /** Long polls the transport carries at one time. */
  readonly waits: number;
  readonly random: () => number;
  readonly sleep: Sleep;
  /** A monotonic clock, in ms. */
  readonly now: () => number;
}
export const commonPlatform = { random: Math.random, sleep, now: () => performance.now() } as const;

type Query = Record<string, string | number | boolean | undefined>;
interface Call extends CreateOptions {
  method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  path: string;
  query?: object | undefined;
  body?: object | undefined;
  /** The body as JSON text, instead of `body`. */
  text?: string;
  /** Makes something: carries an idempotency key. */
  creates?: boolean;
  /** Doing it twice differs from once, and no key guards it. */
  once?: boolean;
  waitSeconds?: number;
}

/** What an agent works on, by task and fence. */
type Holding = { taskId: string; fence: number }[];

export type Client = ReturnType<typeof buildClient>;

export function buildClient(options: ClientOptions, platform: Platform) {
  const policy: RetryPolicy = {
    ...defaultRetry,
    ...(options.retrySeconds !== undefined && { forMs: options.retrySeconds * 1000 }),
  };
  const timeoutMs = (options.timeoutSeconds ?? 30) * 1000;
  let opened: { transport: Transport; url: string; headers: Record<string, string> } | undefined;
  // Resolved at the first call, so that making a client never fails.
  const open = () => {
    if (opened) return opened;
    const { url, key } = platform.resolve(options);
    const headers: Record<string, string> = { accept: "application/json", ...options.headers };
    if (key !== undefined) headers.authorization = `Bearer ${key}`;
    opened = { transport: platform.transport(url, options), url, headers };
    return opened;
  };
  // One random number a client and a counter: as unique as a UUID a call, and cheaper.
  let keyPrefix: string | undefined;
  let keyCount = 0;
  const newKey = () => {
    keyPrefix ??= Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("");
    return `${keyPrefix}-${++keyCount}`;
  };

  async function call<T>(request: Call): Promise<T> {
    const { transport, headers: common } = open();
    const body = request.text ?? (request.body === undefined ? undefined : JSON.stringify(request.body));
    const headers: Record<string, string> = { ...common };
    if (body !== undefined) headers["content-type"] = "application/json";
    if (request.creates) headers["idempotency-key"] = request.idempotencyKey ?? newKey();
    const wire = {
      method: request.method,
      path: request.query ? request.path + toQuery(request.query as Query) : request.path,
      headers,
      body,
      signal: request.signal,
      timeoutMs:
        (request.timeoutSeconds === undefined ? timeoutMs : request.timeoutSeconds * 1000) +
        (request.waitSeconds ?? 0) * 1000,
      waits: request.waitSeconds !== undefined && request.waitSeconds > 0,
    };
    const once = async () => {
      const reply = await transport.send(wire);
      if (reply.status >= 400 || reply.status < 200) throw toApiError(reply.status, reply.text, reply.header);
      if (reply.text === "") return undefined as T;
      try {
        return JSON.parse(reply.text) as T;
      } catch {
        throw new WaggleApiError({
          status: reply.status,
          code: "client.not_waggle",
          detail: `${opened?.url} answered something other than JSON; is it a Waggle server?`,
        });
      }
    };
    return withRetry(once, {
      policy,
      repeatable: !request.once,
      signal: request.signal,
      random: platform.random,
      sleep: platform.sleep,
      now: platform.now,
    });
  }

  async function* follow(
    path: string,
    { after = 0, types, signal }: FollowOptions = {},
  ): AsyncGenerator<W.WaggleEvent, void, undefined> {
    let last = after;
    let failingSince: number | undefined;
    for (let tried = 0; ; tried++) {
      const { transport, headers } = open();
      try {
        const stream = await transport.open({
          method: "GET",
          path: path + toQuery({ after: last, types }),
          headers: { ...headers, accept: "text/event-stream", ...(last > 0 && { "last-event-id": String(last) }) },
          signal,
          timeoutMs: Math.max(timeoutMs, 60_000),
        });
        if (stream.status !== 200) {
          let text = "";
          for await (const chunk of stream.chunks) text += chunk;
          throw toApiError(stream.status, text, stream.header);
        }
        failingSince = undefined;
        for await (const message of parseSse(stream.chunks)) {
          const sequence = Number(message.id);
          // A server may begin again at the last event it knows was read.
          if (message.id !== "" && sequence <= last) continue;
          if (message.id !== "") last = sequence;
          tried = 0;
          yield JSON.parse(message.data) as W.WaggleEvent;
        }
      } catch (error) {
        if (signal?.aborted) return;
        failingSince ??= platform.now();
        if (platform.now() - failingSince >= policy.forMs || !mayRetry(error, true)) throw error;
      }
      try {
        await platform.sleep(backoffMs(tried, policy, platform.random), signal);
      } catch {
        return;
      }
    }
  }

  /** Every item of a list, page after page. */
  async function* every<Item>(page: (cursor?: string) => Promise<W.Page<Item>>): AsyncGenerator<Item, void, undefined> {
    for (let cursor: string | undefined; ; ) {
      const { items, nextCursor } = await page(cursor);
      yield* items;
      if (nextCursor === undefined) return;
      cursor = nextCursor;
    }
  }

  const agentCall = (id: string, verb: string, body: object = {}) =>
    call<{ agent: W.Agent }>({ method: "POST", path: `/v1/agents/${part(id)}/${verb}`, body }).then(
      ({ agent }) => agent,
    );
  const agents = {
    /** @returns the agent and its token, shown this once, as is the secret of a webhook for which none was given */
    register: (agent: W.RegisterAgent, how: CreateOptions = {}) =>
      call<{ agent: W.Agent; token: string; secret?: string }>({
        method: "POST",
        path: "/v1/agents",
        body: agent,
        creates: true,
        ...how,
      }),
    get: (id: string, how: CallOptions = {}) =>
      call<{ agent: W.Agent }>({ method: "GET", path: `/v1/agents/${part(id)}`, ...how }).then(({ agent }) => agent),
    list: (query: W.AgentQuery = {}, how: CallOptions = {}) =>
      call<W.Page<W.Agent>>({ method: "GET", path: "/v1/agents", query, ...how }),
    all: (query: W.AgentQuery = {}) =>
      every((cursor) => agents.list({ limit: 200, ...query, ...(cursor && { cursor }) })),
    update: (id: string, patch: W.PatchAgent, how: CallOptions = {}) =>
      call<{ agent: W.Agent }>({ method: "PATCH", path: `/v1/agents/${part(id)}`, body: patch, ...how }).then(
        ({ agent }) => agent,
      ),
    /** How work reaches it from now on. @returns the secret too of a webhook that had none, shown this once */
    setDelivery: (id: string, delivery: W.Delivery, how: CallOptions = {}) =>
      call<{ agent: W.Agent; secret?: string }>({
        method: "PATCH",
        path: `/v1/agents/${part(id)}`,
        body: { delivery },
        // Made again, it would keep the secret that the lost answer showed.
        once: true,
        ...how,
      }),
    /** No new work; what runs goes on. */
    drain: (id: string) => agentCall(id, "drain"),
    pause: (id: string) => agentCall(id, "pause"),
    resume: (id: string) => agentCall(id, "resume"),
    /** `graceful` (default): finishes what runs, then stops. `force`: what runs is given to others now. */
    remove: (id: string, query: { mode?: "graceful" | "force"; graceSeconds?: number } = {}, how: CallOptions = {}) =>
      call<{ agent: W.Agent }>({ method: "DELETE", path: `/v1/agents/${part(id)}`, query, ...how }).then(
        (answer) => answer?.agent,
      ),
    lease: (id: string, body: { max?: number; waitSeconds?: number; holding?: Holding } = {}, how: CallOptions = {}) =>
      call<{ assignments: W.Assignment[] }>({
        method: "POST",
        path: `/v1/agents/${part(id)}/lease`,
        body,
        waitSeconds: body.waitSeconds ?? 0,
        ...how,
      }).then(({ assignments }) => assignments),
    heartbeat: (id: string, body: { holding?: Holding } = {}, how: CallOptions = {}) =>
      call<{ commands: W.Commands }>({ method: "POST", path: `/v1/agents/${part(id)}/heartbeat`, body, ...how }).then(
        ({ commands }) => commands,
      ),
  };

  const taskCall = <T>(id: string, verb: string, body: object, how: CallOptions = {}, once = false) =>
    call<T>({ method: "POST", path: `/v1/tasks/${part(id)}/${verb}`, body, once, ...how });
  type Ended = { task: W.Task; assignments?: W.Assignment[] };
  const joined = submitter({
    // The id makes the call safe to repeat. Written into the text: the task need not be made into JSON twice.
    one: (text) =>
      call<{ task: W.Task }>({
        method: "POST",
        path: "/v1/tasks",
        text: `{"id":"${newTaskId(Date.now())}",${text.slice(1)}`,
      }).then(({ task }) => task),
    many: (text) =>
      call<{ results: ({ task: W.Task } | { problem: W.TaskProblem & { status: number } })[] }>({
        method: "POST",
        path: "/v1/tasks/batch",
        text,
        creates: true,
      }).then(({ results }) => results),
    afterTurn: platform.afterTurn,
  });
  const plain = (how: CreateOptions) =>
    how.idempotencyKey === undefined && how.signal === undefined && how.timeoutSeconds === undefined;
  const waits = { count: 0, shared: platform.waits };
  const tasks = {
    create: (task: W.CreateTask, how: CreateOptions = {}): Promise<W.Task> =>
      options.coalesce !== false && plain(how) && task.id === undefined
        ? joined(JSON.stringify(task))
        : call<{ task: W.Task }>({ method: "POST", path: "/v1/tasks", body: task, creates: true, ...how }).then(
            (answer) => answer.task,
          ),
    /** Up to 100 in one call. Entries may depend on each other by `ref`; with `atomic` it is all or none. */
    createBatch: (batch: W.BatchEntry[], { atomic, ...how }: CreateOptions & { atomic?: boolean } = {}) =>
      call<{ results: ({ task: W.Task } | { problem: Record<string, unknown> & { status: number; code: string } })[] }>(
        {
          method: "POST",
          path: "/v1/tasks/batch",
          body: { tasks: batch, ...(atomic !== undefined && { atomic }) },
          creates: true,
          ...how,
        },
      ).then(({ results }) => results),
    /** With `waitSeconds` (≤ 20): answers when it has ended or the time is up. */
    get: (id: string, { waitSeconds, ...how }: CallOptions & { waitSeconds?: number } = {}) =>
      call<{ task: W.Task }>({
        method: "GET",
        path: `/v1/tasks/${part(id)}`,
        ...(waitSeconds !== undefined && waitSeconds > 0 && { query: { waitSeconds }, waitSeconds }),
        ...how,
      }).then(({ task }) => task),
    list: (query: W.TaskQuery = {}, how: CallOptions = {}) =>
      call<W.Page<W.Task>>({ method: "GET", path: "/v1/tasks", query, ...how }),
    all: (query: W.TaskQuery = {}) =>
      every((cursor) => tasks.list({ limit: 200, ...query, ...(cursor && { cursor }) })),
    cancel: (id: string, { reason, ...how }: CallOptions & { reason?: string } = {}) =>
      taskCall<{ task: W.Task }>(id, "cancel", reason === undefined ? {} : { reason }, how).then(({ task }) => task),
    /** A failed, cancelled or expired task again, with fresh attempts. */
    retry: (id: string, how: CallOptions = {}) =>
      taskCall<{ task: W.Task }>(id, "retry", {}, how, true).then(({ task }) => task),
    /** Why it waits, or why this agent has it. */
    explain: (id: string, how: CallOptions = {}) =>
      call<Record<string, unknown>>({ method: "GET", path: `/v1/tasks/${part(id)}/explain`, ...how }),
    events: (id: string, query: { after?: number; limit?: number } = {}, how: CallOptions = {}) =>
      call<{ items: W.WaggleEvent[]; nextAfter: number }>({
        method: "GET",
        path: `/v1/tasks/${part(id)}/events`,
        query,
        ...how,
      }),
    follow: (id: string, how: FollowOptions = {}): AsyncIterable<W.WaggleEvent> =>
      follow(`/v1/tasks/${part(id)}/events`, how),

    /**
     * Gives work to the fleet.
     * @example
     * const handle = await client.tasks.delegate({ type: "summarise", input: { url }, requires: [{ capability: "nlp" }] });
     * const summary = await handle.result<{ text: string }>();
     */
    delegate(task: W.CreateTask, how: CreateOptions = {}): Delegation {
      return toDelegation(tasks.create(task, how).then(tasks.handle));
    },
    /**
     * Gives work to the fleet and waits for its result: one request, when the work is done within 20 s.
     * A wait that is given up or aborted leaves the task to go on; to find it again, choose its `id`.
     * @throws WaggleTaskError when it did not complete
     * @example const { text } = await client.tasks.run<{ text: string }>({ type: "summarise", input: { url } }, { timeoutSeconds: 60 });
     */
    async run<T = unknown>(task: W.CreateTask, options: ResultOptions = {}): Promise<T> {
      const id = task.id ?? newTaskId(Date.now());
      let made = false;
      const ask = async ({ waitSeconds, ...how }: CallOptions & { waitSeconds: number }) => {
        if (made) return tasks.get(id, { waitSeconds, ...how });
        const body = { ...task, id };
        const query = waitSeconds > 0 ? { waitSeconds } : undefined;
        const answer = await call<{ task: W.Task }>({
          method: "POST",
          path: "/v1/tasks",
          query,
          body,
          waitSeconds,
          ...how,
        });
        made = true;
        return answer.task;
      };
      return resultOf<T>(await untilEnded(ask, waits, options));
    },
    /** Many at once, in order. @throws the first refusal; those accepted go on */
    delegateMany: (many: W.CreateTask[], how: CreateOptions = {}): Promise<TaskHandle[]> =>
      Promise.all(
        many.map((task, i) =>
          tasks
            .create(
              task,
              how.idempotencyKey === undefined ? how : { ...how, idempotencyKey: `${how.idempotencyKey}-${i}` },
            )
            .then(tasks.handle),
        ),
      ),
    /** A handle on a task that exists. */
    handle: (task: W.Task): TaskHandle => toHandle(task, tasks, waits),

    /** For agents: the calls on a task they hold. `createAgent` makes them for you. */
    start: (id: string, body: { fence: number }, how?: CallOptions) =>
      taskCall<{ task: W.Task }>(id, "start", body, how).then(({ task }) => task),
    heartbeat: (id: string, body: { fence: number; progress?: W.Progress; details?: unknown }, how?: CallOptions) =>
      taskCall<{ commands: W.Commands }>(id, "heartbeat", body, how).then(({ commands }) => commands),
    complete: (
      id: string,
      body: { fence: number; result?: unknown; usage?: W.Usage; take?: number },
      how?: CallOptions,
    ) => taskCall<Ended>(id, "complete", body, how),
    fail: (
      id: string,
      body: { fence: number; error: W.TaskProblem; usage?: W.Usage; take?: number },
      how?: CallOptions,
    ) => taskCall<Ended>(id, "fail", body, how),
    release: (id: string, body: { fence: number; reason?: string; take?: number }, how?: CallOptions) =>
      taskCall<Ended>(id, "release", body, how),
  };

  const events = {
    list: (query: { after?: number; limit?: number; types?: string } = {}, how: CallOptions = {}) =>
      call<{ items: W.WaggleEvent[]; nextAfter: number }>({ method: "GET", path: "/v1/events", query, ...how }),
    /** History from `after`, then live, without a gap; reconnects by itself until the signal aborts. */
    follow: (how: FollowOptions = {}): AsyncIterable<W.WaggleEvent> => follow("/v1/events", how),
  };
  const deadLetters = {
    list: (query: { limit?: number; cursor?: string } = {}, how: CallOptions = {}) =>
      call<W.Page<W.Task>>({ method: "GET", path: "/v1/dead-letters", query, ...how }),
    all: () => every((cursor) => deadLetters.list({ limit: 200, ...(cursor && { cursor }) })),
    redrive: (body: W.Redrive, how: CallOptions = {}) =>
      call<{ redriven: number; skipped: { taskId: string; code: string }[] }>({
        method: "POST",
        path: "/v1/dead-letters/redrive",
        body,
        creates: true,
        ...how,
      }),
  };
  const limits = {
    put: (key: string, body: W.PutLimit, how: CallOptions = {}) =>
      call<{ limit: W.Limit }>({ method: "PUT", path: `/v1/limits/${part(key)}`, body, ...how }).then(
        ({ limit }) => limit,
      ),
    get: (key: string, how: CallOptions = {}) =>
      call<{ limit: W.Limit }>({ method: "GET", path: `/v1/limits/${part(key)}`, ...how }).then(({ limit }) => limit),
    /** What tasks ask holds again. */
    remove: (key: string, how: CallOptions = {}) =>
      call<void>({ method: "DELETE", path: `/v1/limits/${part(key)}`, ...how }),
    list: (query: { limit?: number; cursor?: string } = {}, how: CallOptions = {}) =>
      call<W.Page<W.Limit>>({ method: "GET", path: "/v1/limits", query, ...how }),
    all: () => every((cursor) => limits.list({ limit: 200, ...(cursor && { cursor }) })),
  };
  const retention = {
    /** Seconds; 0 keeps for ever, what is left out stays as it is. */
    put: (body: W.PutRetention, how: CallOptions = {}) =>
      call<{ retention: W.Retention }>({ method: "PUT", path: "/v1/retention", body, ...how }).then(
        ({ retention }) => retention,
      ),
    get: (how: CallOptions = {}) =>
      call<{ retention: W.Retention }>({ method: "GET", path: "/v1/retention", ...how }).then(
        ({ retention }) => retention,
      ),
  };
  const quotas = {
    /** All of a tenant's quotas; what is left out is not limited. By an admin of the first tenant. */
    put: (tenant: string, body: W.Quotas, how: CallOptions = {}) =>
      call<{ quota: W.Quota }>({ method: "PUT", path: `/v1/quotas/${part(tenant)}`, body, ...how }).then(
        ({ quota }) => quota,
      ),
    get: (tenant: string, how: CallOptions = {}) =>
      call<{ quota: W.Quota }>({ method: "GET", path: `/v1/quotas/${part(tenant)}`, ...how }).then(
        ({ quota }) => quota,
      ),
  };
  const keys = {
    /** @returns the key, which is shown this once */
    create: (body: W.CreateKey, how: CreateOptions = {}) =>
      call<W.Key & { key: string }>({ method: "POST", path: "/v1/keys", body, creates: true, ...how }),
    list: (query: { limit?: number; cursor?: string } = {}, how: CallOptions = {}) =>
      call<W.Page<W.Key>>({ method: "GET", path: "/v1/keys", query, ...how }),
    all: () => every((cursor) => keys.list({ limit: 200, ...(cursor && { cursor }) })),
    revoke: (id: string, how: CallOptions = {}) =>
      call<void>({ method: "DELETE", path: `/v1/keys/${part(id)}`, ...how }),
  };
  const status = {
    get: (how: CallOptions = {}) => call<W.Status>({ method: "GET", path: "/v1/status", ...how }),
    /** Reads the whole store, which may take minutes. Admins alone. */
    audit: (query: { tenant?: string } = {}, how: CallOptions = {}) =>
      call<W.AuditReport>({ method: "GET", path: "/v1/audit", query, timeoutSeconds: 900, ...how }),
    /** Needs no key. An unhealthy server answers 503 with the same body, which is returned, not thrown. */
    async health(how: CallOptions = {}): Promise<W.Health> {
      const { transport, headers } = open();
      const reply = await transport.send({ method: "GET", path: "/health", headers, timeoutMs, signal: how.signal });
      try {
        const health = JSON.parse(reply.text) as W.Health;
        if (typeof health.status === "string") return health;
      } catch {
        // told below
      }
      throw toApiError(reply.status, reply.text, reply.header);
    },
  };

  /** Moving to another server; `waggle export` and `waggle import` do it by files. Admins alone. */
  const transfer = {
    export: (query: { limit?: number; cursor?: string } = {}, how: CallOptions = {}) =>
      call<W.ExportPage>({ method: "GET", path: "/v1/export", query, ...how }),
    import: (body: W.ImportRecords, how: CallOptions = {}) =>
      call<W.ImportAnswer>({ method: "POST", path: "/v1/import", body, ...how }),
  };

  return {
    agents,
    tasks,
    events,
    deadLetters,
    limits,
    retention,
    quotas,
    keys,
    status,
    transfer,
    /** Where the calls go. */
    get url() {
      return open().url;
    },
    /** Closes kept-open connections; a later call opens them again. */
    close() {
      opened?.transport.close();
      opened = undefined;
    },
  };
}

const part = encodeURIComponent;

function toQuery(query: Query): string {
  let text = "";
  for (const name in query) {
    const value = query[name];
    if (value !== undefined) text += `${text === "" ? "?" : "&"}${name}=${encodeURIComponent(value)}`;
  }
  return text;
}

/** `https://host/v1/` → `https://host`. @throws WaggleConnectionError when it is no http(s) address */
export function normalUrl(url: string): string {
  let parsed: URL | undefined;
  try {
    parsed = new URL(url);
  } catch {
    // told below
  }
  if (!parsed || (parsed.protocol !== "http:" && parsed.protocol !== "https:")) {
    throw new WaggleConnectionError(
      "client.bad_address",
      `"${url}" is not a server address; expected http://… or https://…`,
    );
  }
  return (parsed.origin + parsed.pathname).replace(/\/+$/, "").replace(/\/v1$/, "");
}
