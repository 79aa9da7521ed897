import { Agent, requestErrors, Task } from "@waggle/core";
import type * as z from "zod/mini";
import {
  AgentAnswer,
  AgentList,
  AssignmentsAnswer,
  CommandsAnswer,
  RegisteredAnswer,
  UpdatedAnswer,
} from "../answers.ts";
import { type Answer, agentOnly, type Call, everyone, json, operators, type Route, route } from "../route.ts";
import { whileAllowed } from "../wait.ts";
import { declared, idParam, Nothing, pageJson } from "./common.ts";

const notFound = declared("agent.not_found");
const stopped = declared("agent.stopped");
const conflict = declared("agent.conflict");
const params = { id: idParam("agt", "agent", notFound) };

const delivered = declared("agent.delivered");

/** `more`: what is shown this once. */
const agentJson = (agent: Agent.Info, more: { token?: string; secret?: string } = {}) =>
  `{"agent":${Agent.toJson(agent)}${Object.entries(more)
    .map(([name, text]) => `,"${name}":${JSON.stringify(text)}`)
    .join("")}}`;
export const assignmentsJson = (assignments: readonly Task.Assignment[]) =>
  `[${assignments.map(Task.assignmentJson).join(",")}]`;

async function leased(
  { scope, stillAllowed }: Pick<Call, "scope" | "stillAllowed">,
  id: string,
  body: z.output<typeof Agent.Lease>,
  signal: AbortSignal,
): Promise<Answer> {
  const assignments = await Agent.lease(scope, id, body, signal);
  if (!signal.aborted) {
    // Of an agent that is removed or replaced the wait may end a moment before its token does.
    if (assignments.length === 0 && body.waitSeconds > 0 && !(await stillAllowed()))
      throw requestErrors.unauthenticated("the token was replaced or revoked meanwhile");
    return json(`{"assignments":${assignmentsJson(assignments)}}`);
  }
  // Nobody is there to take it: others should not have to wait for the lease to run out.
  for (const { task, fence } of assignments)
    await Task.release(scope, task.id, { fence, reason: "the agent left before it was told" });
  return json('{"assignments":[]}');
}

const state = (
  verb: "drain" | "pause" | "resume",
  summary: string,
  change: (typeof Agent)["drain" | "pause" | "resume"],
): Route =>
  route({
    method: "POST",
    path: `/v1/agents/{id}/${verb}`,
    id: `${verb}Agent`,
    tag: "Agents",
    summary,
    roles: [...operators, "agent"],
    params,
    body: Nothing,
    bodyOptional: true,
    responses: { 200: { description: "The agent", schema: AgentAnswer } },
    errors: [notFound, stopped, conflict],
    handler: async ({ scope, params }) => json(agentJson(await change(scope, params.id as string))),
  });

export const agentRoutes: readonly Route[] = [
  route({
    method: "POST",
    path: "/v1/agents",
    id: "registerAgent",
    brings: "work",
    tag: "Agents",
    summary: "Register an agent",
    description:
      "The answer carries the agent's token, which is shown only once. A name that is taken is refused, unless `onConflict` is " +
      '`"replace"`: then the agent keeps its id and gets a new token, and what the old one held is fenced off. ' +
      "If no secret is given for a webhook, one is made and shown only once too.",
    roles: operators,
    body: Agent.Register,
    payloads: ["metadata"],
    idempotent: "answer",
    responses: { 201: { description: "Registered", schema: RegisteredAnswer } },
    errors: [declared("agent.exists"), declared("quota.exceeded"), conflict],
    async handler({ scope, body }) {
      const { agent, ...shownOnce } = await Agent.register(scope, body);
      return json(agentJson(agent, shownOnce), 201);
    },
  }),
  route({
    method: "GET",
    path: "/v1/agents",
    id: "listAgents",
    tag: "Agents",
    summary: "List agents, newest first",
    roles: everyone,
    query: Agent.ListQuery,
    responses: { 200: { description: "A page of agents", schema: AgentList } },
    errors: [],
    async handler({ scope, query }) {
      const { items, nextCursor } = await Agent.list(scope, query);
      return json(pageJson(items.map(Agent.toJson), nextCursor));
    },
  }),
  route({
    method: "GET",
    path: "/v1/agents/{id}",
    id: "getAgent",
    tag: "Agents",
    summary: "Get an agent",
    roles: [...everyone, "agent"],
    params,
    responses: { 200: { description: "The agent", schema: AgentAnswer } },
    errors: [notFound],
    handler: async ({ scope, params }) => json(agentJson(await Agent.get(scope, params.id as string))),
  }),
  route({
    method: "PATCH",
    path: "/v1/agents/{id}",
    id: "updateAgent",
    tag: "Agents",
    summary: "Change what an agent offers",
    description:
      "Only the given fields are changed (null takes away a role, type or description), and work that the agent holds goes on. Only operators may change `delivery`; a webhook that " +
      "has no secret yet gets one, shown only once.",
    roles: [...operators, "agent"],
    params,
    body: Agent.Patch,
    payloads: ["metadata"],
    responses: { 200: { description: "The agent", schema: UpdatedAnswer } },
    errors: [notFound, stopped, conflict],
    async handler({ scope, params, body }) {
      const { agent, ...shownOnce } = await Agent.update(scope, params.id as string, body);
      return json(agentJson(agent, shownOnce));
    },
  }),
  route({
    method: "POST",
    path: "/v1/agents/{id}/lease",
    id: "leaseTasks",
    tag: "Agents",
    summary: "Ask for work",
    description:
      "Waits up to `waitSeconds` for the first task, also while the agent is full, paused or draining. The list is empty if none came. " +
      "Say in `holding` what the agent has: tasks whose answer was lost then come again. A task that is neither begun nor ended " +
      "within 15 minutes, or within the agent's lease if that is longer, is given to others.",
    roles: agentOnly,
    params,
    body: Agent.Lease,
    bodyOptional: true,
    responses: { 200: { description: "The work given", schema: AssignmentsAnswer } },
    errors: [notFound, stopped, delivered],
    handler(call) {
      const lease = (signal: AbortSignal) => leased(call, call.params.id as string, call.body, signal);
      return call.body.waitSeconds > 0 ? whileAllowed(call, lease) : lease(call.request.signal);
    },
  }),
  route({
    method: "POST",
    path: "/v1/agents/{id}/heartbeat",
    id: "heartbeatAgent",
    tag: "Agents",
    summary: "Stay alive and hear commands",
    description:
      "Renews the agent's leases. With `holding`, work that it should hold but does not name is given to others. " +
      "Any authenticated call of an agent counts as a sign of life as well.",
    roles: agentOnly,
    params,
    body: Agent.Heartbeat,
    bodyOptional: true,
    responses: { 200: { description: "What the agent is to do", schema: CommandsAnswer } },
    errors: [notFound, stopped],
    handler: async ({ scope, params, body }) =>
      json(JSON.stringify({ commands: await Agent.heartbeat(scope, params.id as string, body) })),
  }),
  state("drain", "Give an agent no new work; what it runs goes on", Agent.drain),
  state("pause", "Give an agent no new work until it is resumed", Agent.pause),
  state("resume", "Give a paused or draining agent work again; a lost one, once it is heard of", Agent.resume),
  route({
    method: "DELETE",
    path: "/v1/agents/{id}",
    id: "removeAgent",
    tag: "Agents",
    summary: "Remove an agent",
    description:
      "`graceful`: it may finish what it runs, for at most `graceSeconds`. `force`: it is removed at once, and what it held is fenced off " +
      "and given to others.",
    roles: [...operators, "agent"],
    params,
    query: Agent.RemoveQuery,
    responses: { 200: { description: "The agent, stopped or draining", schema: AgentAnswer } },
    errors: [notFound, conflict],
    handler: async ({ scope, params, query }) => json(agentJson(await Agent.remove(scope, params.id as string, query))),
  }),
  route({
    method: "GET",
    path: "/v1/agents/{id}/connect",
    id: "connectAgent",
    tag: "Agents",
    summary: "Connect by WebSocket, the fast path",
    description:
      "Subprotocol `waggle.v1`; the token as `Authorization: Bearer` or as a second subprotocol `bearer.<token>`. " +
      "A message is one frame or a list of frames (`AgentFrame`, answered by `ServerFrame`); the agent's have 1000 frames and 1 MiB at most. " +
      "The first frame is `hello`.",
    roles: agentOnly,
    params,
    responses: {
      101: { description: "Switched to WebSocket" },
      307: { description: "Connect at `location`, with the same token and subprotocol" },
    },
    errors: [notFound, delivered, requestErrors.upgradeRequired],
    handler: async ({ shared: { socketUrl } }) => {
      if (socketUrl !== undefined) return { status: 307, text: "", headers: { location: socketUrl } };
      throw requestErrors.upgradeRequired("connect here by WebSocket, subprotocol waggle.v1");
    },
  }),
];
