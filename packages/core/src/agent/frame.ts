import * as z from "zod/mini";
import { integer, name, text } from "../fields.ts";
import { jsonText } from "../json.ts";
import * as task from "../task/schema.ts";
import { Commands, Heartbeat } from "./schema.ts";

/**
 * The WebSocket of an agent (`GET /v1/agents/{id}/connect`, subprotocol `waggle.v1`, token as Bearer or as
 * subprotocol `bearer.<token>`). A message is one frame or a list of frames, as JSON text; the agent's have 1000 frames and
 * 1 MiB at most.
 *
 * The first frame is `hello`; the server answers `welcome` and pushes `assign` from then on, up to the free slots.
 * Every other frame of the agent may carry `re`, a number of its choice: the server answers exactly one
 * `reply` with it, in any order. `complete`, `fail` and `release` are accepted from `assigned` too: the start is
 * implied, so an agent that is quick need not send one.
 */
const re = z.optional(integer(0));
const on = { re, taskId: name(64) };
const fence = task.Start.shape.fence;

export const AgentFrame = z.discriminatedUnion("op", [
  /** `holding`: what the agent still works on after a reconnect; the rest it held is given to another. */
  z.strictObject({ op: z.literal("hello"), re, holding: Heartbeat.shape.holding }),
  z.strictObject({ op: z.literal("start"), ...on, fence }),
  z.strictObject({
    op: z.literal("progress"),
    ...on,
    fence,
    progress: task.Heartbeat.shape.progress,
    details: z.optional(jsonText()),
  }),
  z.strictObject({
    op: z.literal("complete"),
    ...on,
    fence,
    result: z.optional(jsonText()),
    usage: z.optional(task.Usage),
  }),
  z.strictObject({ op: z.literal("fail"), ...on, fence, error: task.Problem, usage: z.optional(task.Usage) }),
  z.strictObject({ op: z.literal("release"), ...on, fence, reason: z.optional(text(1024)) }),
  /** A sign of life; renews the lease. Answered with the commands. */
  z.strictObject({ op: z.literal("heartbeat"), re, holding: Heartbeat.shape.holding }),
  /** Nothing: keeps a silent connection from being closed. A gateway takes it by itself, and answers none. */
  z.strictObject({ op: z.literal("ping"), re }),
  z.strictObject({ op: z.literal("drain"), re }),
  z.strictObject({ op: z.literal("pause"), re }),
  z.strictObject({ op: z.literal("resume"), re }),
  /** The agent leaves: graceful when it holds nothing, else its work is given to others. */
  z.strictObject({ op: z.literal("stop"), re }),
]);
export type AgentFrame = z.output<typeof AgentFrame>;

/** Fields of agent frames that carry payload text. */
export const framePayloads = ["result", "details"] as const;

export const ServerFrame = z.discriminatedUnion("op", [
  z.object({
    op: z.literal("welcome"),
    agentId: z.string(),
    status: z.string(),
    leaseSeconds: z.number(),
    maxConcurrency: z.number(),
    /** While it holds nothing the agent need not send heartbeats, only a `ping` this often. */
    pingSeconds: z.optional(z.number()),
  }),
  z.object({ op: z.literal("assign"), assignments: z.array(task.Assignment) }),
  /** `revoked`: fenced off; stop working on it, the outcome will not be taken. `stop`: the agent was removed. */
  z.object({
    op: z.literal("command"),
    ...z.partial(Commands).shape,
    revoked: z.optional(z.array(z.string())),
    stop: z.optional(z.boolean()),
    reason: z.optional(z.string()),
  }),
  /** `problem` is the RFC 9457 object the HTTP call would answer. `task` carries only id, status and fence. */
  z.object({
    op: z.literal("reply"),
    re: z.optional(z.number()),
    ok: z.boolean(),
    task: z.optional(z.object({ id: z.string(), status: z.enum(task.statuses), fence: z.number() })),
    commands: z.optional(Commands),
    problem: z.optional(z.unknown()),
  }),
]);
export type ServerFrame = z.output<typeof ServerFrame>;
