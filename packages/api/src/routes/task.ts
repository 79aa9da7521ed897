import { EventLog, requestErrors, type Scope, Task, toProblem } from "@waggle/core";
import * as z from "zod/mini";
import { BatchAnswer, CommandsAnswer, EndedAnswer, EventList, Explanation, TaskAnswer, TaskList } from "../answers.ts";
import { agentOnly, clients, everyone, json, type Route, replayedHeader, route } from "../route.ts";
import { afterOf, eventStream, wantsStream } from "../stream.ts";
import { whileAllowed } from "../wait.ts";
import { assignmentsJson } from "./agent.ts";
import { declared, idParam, Nothing, pageJson } from "./common.ts";

const notFound = declared("task.not_found");
const leaseLost = declared("task.lease_lost");
const conflict = declared("task.conflict");
const params = { id: idParam("tsk", "task", notFound) };
const creating = [
  declared("task.dependency_not_found"),
  declared("task.parent_not_found"),
  declared("task.too_deep"),
  declared("task.gone"),
  declared("quota.exceeded"),
  declared("quota.throttled"),
  requestErrors.idempotencyMismatch,
];

const taskJson = (task: Task.Info) => `{"task":${Task.toJson(task)}}`;
const endedJson = ({ task, assignments }: Task.Ended) =>
  `{"task":${Task.toJson(task)}${assignments ? `,"assignments":${assignmentsJson(assignments)}` : ""}}`;

const WaitQuery = z.strictObject({ waitSeconds: z._default(z.coerce.number().check(z.gte(0), z.lte(20)), 0) });
const EventsQuery = z.pick(EventLog.ListQuery, { after: true, limit: true });

/** An agent sees the tasks it has or had, and their children. */
async function checkReadable(scope: Scope, id: string): Promise<void> {
  if (scope.actor.role !== "agent") return;
  const touched = (task: Task.Info) =>
    task.agentId === scope.actor.id || task.history.some(({ agentId }) => agentId === scope.actor.id);
  const task = await Task.get(scope, id);
  if (touched(task)) return;
  if (task.parentId !== undefined && touched(await Task.get(scope, task.parentId))) return;
  throw Task.missing(id);
}

const byHolder = (
  verb: "complete" | "fail" | "release",
  summary: string,
  description: string,
  // biome-ignore lint/suspicious/noExplicitAny: three calls that differ in their body alone
  [body, call]: readonly [z.ZodMiniType<any>, (scope: Scope, id: string, input: any) => Promise<Task.Ended>],
): Route =>
  route({
    method: "POST",
    path: `/v1/tasks/{id}/${verb}`,
    id: `${verb}Task`,
    tag: "Tasks",
    summary,
    description: `${description} With \`take\`, the agent's next work comes in the same answer. An input above 64 KiB is left out of it.`,
    roles: agentOnly,
    params,
    body,
    payloads: ["result"],
    responses: { 200: { description: "The recorded outcome", schema: EndedAnswer } },
    errors: [notFound, leaseLost, conflict],
    handler: async ({ scope, params, body }) => json(endedJson(await call(scope, params.id as string, body))),
  });

export const taskRoutes: readonly Route[] = [
  route({
    method: "POST",
    path: "/v1/tasks",
    id: "createTask",
    tag: "Tasks",
    brings: "work",
    summary: "Submit a task",
    description:
      "With `waitSeconds`, answers once the task has ended or the time is up, so that an agent can be called like a function. " +
      "An agent may submit children of a task that it holds, with that task's id as `parentId`.",
    roles: [...clients, "agent"],
    query: WaitQuery,
    body: Task.Create,
    payloads: ["input", "metadata"],
    idempotent: "domain",
    responses: { 201: { description: "Taken, on disk", schema: TaskAnswer } },
    errors: creating,
    async handler(call) {
      const { scope, body, idempotency } = call;
      const { task, replayed } = await Task.create(scope, body, idempotency && { idempotency });
      const { waitSeconds } = call.query;
      if (waitSeconds > 0) call.done();
      const wait = (signal: AbortSignal) => Task.get(scope, task.id, { waitSeconds, signal });
      // Whoever may wait no longer is told that it was taken, as it was.
      const answered = waitSeconds > 0 ? await whileAllowed(call, wait).catch(() => task) : task;
      return json(taskJson(answered), 201, replayed ? replayedHeader : undefined);
    },
  }),
  route({
    method: "POST",
    path: "/v1/tasks/batch",
    id: "createTasks",
    tag: "Tasks",
    brings: "work",
    summary: "Submit up to 100 tasks",
    description:
      "A bad entry does not affect the others, unless `atomic` is true. An entry may name itself with `ref`, and others can depend on it by " +
      "`ref:name`. Each entry is a `CreateTask` with an optional `ref`.",
    roles: clients,
    body: Task.CreateBatch,
    payloads: ["tasks.*.input", "tasks.*.metadata"],
    apart: {
      member: "tasks",
      payloads: ["input", "metadata"],
      most: Task.tasksOfBatch,
      refused: (problem) => problem,
    },
    idempotent: "domain",
    responses: { 207: { description: "One task or problem for each entry, in order", schema: BatchAnswer } },
    errors: [...creating, declared("task.dependency_cycle"), declared("task.batch_refused")],
    async handler({ scope, body, idempotency }) {
      const { results, replayed } = await Task.createBatch(scope, body, idempotency && { idempotency });
      const entries = results.map((result) =>
        "task" in result ? taskJson(result.task) : `{"problem":${toProblem(result.problem, undefined).text}}`,
      );
      return json(`{"results":[${entries.join(",")}]}`, 207, replayed ? replayedHeader : undefined);
    },
  }),
  route({
    method: "GET",
    path: "/v1/tasks",
    id: "listTasks",
    tag: "Tasks",
    summary: "List tasks, newest first",
    description:
      "Inputs and results above 64 KiB are left out: get a task by its id to have them. On AWS a list follows a moment behind what was written; on the embedded engine it is always up to date. A task read by its id always is.",
    roles: everyone,
    query: Task.ListQuery,
    responses: { 200: { description: "A page of tasks", schema: TaskList } },
    errors: [],
    async handler({ scope, query }) {
      const { items, nextCursor } = await Task.list(scope, query);
      return json(pageJson(items.map(Task.toJson), nextCursor));
    },
  }),
  route({
    method: "GET",
    path: "/v1/tasks/{id}",
    id: "getTask",
    tag: "Tasks",
    summary: "Get a task, or wait for its end",
    description: "With `waitSeconds`, answers once the task has ended or the time is up.",
    roles: [...everyone, "agent"],
    params,
    query: WaitQuery,
    responses: { 200: { description: "The task", schema: TaskAnswer } },
    errors: [notFound],
    async handler(call) {
      const { scope } = call;
      const id = call.params.id as string;
      await checkReadable(scope, id);
      const { waitSeconds } = call.query;
      const get = (signal?: AbortSignal) => Task.get(scope, id, signal && { waitSeconds, signal });
      return json(taskJson(await (waitSeconds > 0 ? whileAllowed(call, get) : get())));
    },
  }),
  route({
    method: "POST",
    path: "/v1/tasks/{id}/cancel",
    id: "cancelTask",
    tag: "Tasks",
    summary: "Cancel a task, whatever its state",
    description: "A task that has ended stays as it is, and is answered with its recorded outcome.",
    roles: clients,
    params,
    body: Task.Cancel,
    bodyOptional: true,
    responses: { 200: { description: "The task", schema: TaskAnswer } },
    errors: [notFound, conflict],
    handler: async ({ scope, params, body }) => json(taskJson(await Task.cancel(scope, params.id as string, body))),
  }),
  route({
    method: "POST",
    path: "/v1/tasks/{id}/start",
    id: "startTask",
    tag: "Tasks",
    summary: "Begin an attempt",
    description: "An input above 64 KiB is left out of the answer.",
    roles: agentOnly,
    params,
    body: Task.Start,
    responses: { 200: { description: "The task, running", schema: TaskAnswer } },
    errors: [notFound, leaseLost, conflict],
    handler: async ({ scope, params, body }) => json(taskJson(await Task.start(scope, params.id as string, body))),
  }),
  route({
    method: "POST",
    path: "/v1/tasks/{id}/heartbeat",
    id: "heartbeatTask",
    tag: "Tasks",
    summary: "Report progress of an attempt",
    description: "`details`, 64 KiB at most, are handed to the next attempt, if there is one.",
    roles: agentOnly,
    params,
    body: Task.Heartbeat,
    payloads: ["details"],
    responses: { 200: { description: "What the agent is to do", schema: CommandsAnswer } },
    errors: [notFound, leaseLost, conflict],
    handler: async ({ scope, params, body }) =>
      json(JSON.stringify({ commands: await Task.heartbeat(scope, params.id as string, body) })),
  }),
  byHolder(
    "complete",
    "End an attempt with its result",
    "Repeating it with the same fence answers the recorded outcome again.",
    [Task.Complete, Task.complete],
  ),
  byHolder("fail", "End an attempt with an error", "It is tried again as the task's retry policy says.", [
    Task.Fail,
    Task.fail,
  ]),
  byHolder("release", "Give a task back unharmed", "It uses up no attempt.", [Task.Release, Task.release]),
  route({
    method: "POST",
    path: "/v1/tasks/{id}/retry",
    id: "retryTask",
    tag: "Tasks",
    summary: "Run a failed, cancelled or expired task again",
    description: "Same id, fresh attempts, at once, whatever time it was to wait for.",
    roles: clients,
    params,
    body: Nothing,
    bodyOptional: true,
    responses: { 200: { description: "The task", schema: TaskAnswer } },
    errors: [notFound, declared("task.not_retryable"), conflict],
    handler: async ({ scope, params }) => json(taskJson(await Task.retry(scope, params.id as string))),
  }),
  route({
    method: "GET",
    path: "/v1/tasks/{id}/events",
    id: "listTaskEvents",
    tag: "Tasks",
    summary: "Events of a task, in order",
    description:
      "With `Accept: text/event-stream`: the events after `after` or `Last-Event-ID`, then live, for as long as there is the task; `id` is " +
      "the sequence number. 410 with `firstSequence` means, to a stream, that the number is of another log.",
    roles: [...everyone, "agent"],
    params,
    query: EventsQuery,
    streams: true,
    responses: { 200: { description: "Events, in order", schema: EventList } },
    errors: [notFound, declared("event.gone")],
    async handler(call) {
      const { scope, query, request } = call;
      const taskId = call.params.id as string;
      await checkReadable(scope, taskId);
      if (wantsStream(request.header("accept"))) {
        await Task.get(scope, taskId);
        const after = afterOf(call, query.after);
        await EventLog.endFrom(scope, after);
        return eventStream(call, { after, taskId });
      }
      return json(JSON.stringify(await Task.events(scope, taskId, query)));
    },
  }),
  route({
    method: "GET",
    path: "/v1/tasks/{id}/explain",
    id: "explainTask",
    tag: "Tasks",
    summary: "Explain why a task is waiting, or why its agent has it",
    roles: everyone,
    params,
    responses: { 200: { description: "Candidates, scores and refusals", schema: Explanation } },
    errors: [notFound],
    handler: async ({ scope, params }) => json(JSON.stringify(await Task.explain(scope, params.id as string))),
  }),
];
