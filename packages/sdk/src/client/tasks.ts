import {
  type Delegation,
  type ResultOptions,
  resultOf,
  type TaskHandle,
  toDelegation,
  toHandle,
  untilEnded,
} from "../handle.ts";
import { newTaskId } from "../id.ts";
import { submitter } from "../submit.ts";
import type * as W from "../types.ts";
import { type Caller, part } from "./caller.ts";
import type { CallOptions, ClientOptions, CreateOptions, FollowOptions, Platform } from "./options.ts";

export function taskCalls({ call, every, follow }: Caller, options: ClientOptions, platform: Platform) {
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
        path: `/v1/tasks/${part(id)}`,
        ...(waitSeconds !== undefined && waitSeconds > 0 && { query: { waitSeconds }, waitSeconds }),
        ...how,
      }).then(({ task }) => task),
    list: (query: W.TaskQuery = {}, how: CallOptions = {}) =>
      call<W.Page<W.Task>>({ path: "/v1/tasks", query, ...how }),
    all: (query: W.TaskQuery = {}, how?: CallOptions) => every(tasks.list, query, how),
    cancel: (id: string, { reason, ...how }: CallOptions & { reason?: string } = {}) =>
      taskCall<{ task: W.Task }>(id, "cancel", reason === undefined ? {} : { reason }, how).then(({ task }) => task),
    /** A failed, cancelled or expired task again, with fresh attempts. */
    retry: (id: string, how: CallOptions = {}) =>
      taskCall<{ task: W.Task }>(id, "retry", {}, how, true).then(({ task }) => task),
    /** Why it waits, or why this agent has it. */
    explain: (id: string, how: CallOptions = {}) =>
      call<Record<string, unknown>>({ path: `/v1/tasks/${part(id)}/explain`, ...how }),
    events: (id: string, query: { after?: number; limit?: number } = {}, how: CallOptions = {}) =>
      call<{ items: W.WaggleEvent[]; nextAfter: number }>({
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
  return tasks;
}
