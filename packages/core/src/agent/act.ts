import { isError, requestErrors, type WaggleError } from "../error.ts";
import { readJsonApart } from "../json.ts";
import { toProblem, tryParse } from "../problem.ts";
import type { Scope } from "../scope.ts";
import { complete, type Ended, fail, release, start, heartbeat as taskHeartbeat } from "../task/run.ts";
import type { Info as Task } from "../task/schema.ts";
import { AgentFrame, framePayloads } from "./frame.ts";
import { heartbeat, seen } from "./liveness.ts";
import { drain, pause, remove, resume } from "./manage.ts";
import type { Commands, Info } from "./schema.ts";

export * as Frames from "./act.ts";
export { framesOf, gatewayBytes } from "./framing.ts";
export { protocol, readHandshake } from "./handshake.ts";

/*
 * The frames of an agent, whatever carries them: a socket of this process, or a gateway's messages.
 */

const payloads = [...framePayloads, ...framePayloads.map((name) => `*.${name}`)];

/** Each bad one is answered by a problem many times its size. */
export const framesOfMessage = 1000;

/** A frame that is refused, and the number it asked to be answered by, if that can be told. */
interface Refused {
  readonly re: number | undefined;
  readonly problem: WaggleError;
}

/**
 * The frames of one message, each checked by itself.
 * @throws `request.invalid`, see `isNoJson`
 */
export function readFrames(text: string): readonly ({ readonly frame: AgentFrame } | Refused)[] {
  const value = readJsonApart(text, payloads, {
    payloads: framePayloads,
    most: framesOfMessage,
    refused: (problem, entry): Refused => ({ re: reOf(entry), problem }),
  });
  const values = Array.isArray(value) ? value : [value];
  if (values.length <= framesOfMessage) return values.map((each) => (isRefused(each) ? each : checked(each)));
  const message = `expected at most ${framesOfMessage} frames, not ${values.length}`;
  throw requestErrors.invalid(message, { errors: [{ path: "", message }] });
}

/** No JSON has such an error in it. */
const isRefused = (value: unknown): value is Refused => isError((value as Partial<Refused> | null)?.problem);

function checked(value: unknown): { readonly frame: AgentFrame } | Refused {
  const { data, problem } = tryParse(AgentFrame, value);
  return problem ? { re: reOf(value), problem } : { frame: data };
}

function reOf(value: unknown): number | undefined {
  const re = (value as { re?: unknown } | null)?.re;
  return Number.isSafeInteger(re) ? (re as number) : undefined;
}

/** Frames of one task, and those of the agent as a whole, are done in the order they came; undefined: in any. */
export const subjectOf = (frame: AgentFrame): string | undefined =>
  "taskId" in frame ? frame.taskId : frame.op === "heartbeat" ? undefined : "";

/** Does what a frame says. @returns its reply, as text */
export async function act(scope: Scope, frame: Exclude<AgentFrame, { op: "hello" }>): Promise<string> {
  return replyText(frame.re, await members(scope, frame));
}

/** The reply to a hello. */
export const helloReply = (re: number, commands: Commands): string => replyText(re, commandsPart(commands));

/** The reply to a frame that was refused. */
export const refusal = (re: number | undefined, thrown: unknown, requestId: string): string =>
  `{"op":"reply",${re === undefined ? "" : `"re":${re},`}"ok":false,"problem":${toProblem(thrown, requestId).text}}`;

/** What an agent gets that said hello, as frames. @param pingSeconds where a gateway carries its connection */
export function welcome(agent: Info, commands: Commands, pingSeconds?: number): string[] {
  const { id, status, leaseSeconds, maxConcurrency } = agent;
  const texts = [JSON.stringify({ op: "welcome", agentId: id, status, leaseSeconds, maxConcurrency, pingSeconds })];
  if (commands.cancel.length > 0 || commands.pause || commands.drain)
    texts.push(JSON.stringify({ op: "command", ...commands }));
  return texts;
}

/** The members of the reply, as JSON text after `"ok":true`. */
async function members(scope: Scope, frame: Exclude<AgentFrame, { op: "hello" }>): Promise<string> {
  const { id } = scope.actor;
  switch (frame.op) {
    case "complete":
      return endedPart(frame.taskId, await complete(scope, frame.taskId, frame));
    case "start":
      return taskPart(await start(scope, frame.taskId, frame));
    case "progress":
      return commandsPart(await taskHeartbeat(scope, frame.taskId, frame));
    case "fail":
      return endedPart(frame.taskId, await fail(scope, frame.taskId, frame));
    case "release":
      return endedPart(frame.taskId, await release(scope, frame.taskId, frame));
    case "heartbeat":
      return commandsPart(await heartbeat(scope, id, frame));
    case "drain":
      await drain(scope, id);
      return "";
    case "pause":
      await pause(scope, id);
      return "";
    case "resume":
      await seen(scope, id);
      await resume(scope, id);
      return "";
    case "ping":
      return "";
    case "stop":
      await remove(scope, id, { mode: "force", graceSeconds: 0 });
      return "";
  }
}

const replyText = (re: number | undefined, members: string) =>
  `{"op":"reply",${re === undefined ? "" : `"re":${re},`}"ok":true${members}}`;
// Ids and statuses hold nothing that JSON would escape.
const taskPart = ({ id, status, fence }: Pick<Task, "id" | "status" | "fence">) =>
  `,"task":{"id":"${id}","status":"${status}","fence":${fence}}`;
const endedPart = (id: string, { status, fence }: Ended) => taskPart({ id, status, fence });
const commandsPart = (commands: Commands) => `,"commands":${JSON.stringify(commands)}`;
