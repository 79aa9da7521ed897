import {
  Agent,
  type AgentFrame,
  Frames,
  isError,
  Key,
  type Ports,
  problemType,
  requestErrors,
  type Scope,
  toProblem,
} from "@waggle/core";
import { type OnError, toLog } from "./log.ts";

/** What API Gateway hands to the function of a WebSocket. */
export interface SocketEvent {
  readonly requestContext: {
    readonly eventType?: string;
    readonly routeKey?: string;
    readonly connectionId: string;
    readonly requestId?: string;
  };
  readonly headers?: Readonly<Record<string, string | undefined>> | null;
  readonly body?: string | null;
  readonly isBase64Encoded?: boolean;
}

export interface SocketAnswer {
  readonly statusCode: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

/** What speaks for the agent as a whole: its token is looked at anew. Of a task its fence tells who may speak. */
const ofAgent: ReadonlySet<AgentFrame["op"]> = new Set(["heartbeat", "ping", "pause", "drain", "resume", "stop"]);

/**
 * The WebSocket of agents behind API Gateway: `$connect` checks the token, messages are the frames of `agent/frame.ts`, and
 * answers go to the connection as pushes do. Nothing polls and nothing is remembered: the agent's row says which
 * connection it has. Frames are at most 128 KB there; `complete` with a larger result goes over HTTP.
 */
export function socketHandler(ports: Ports, onError: OnError = toLog): (event: SocketEvent) => Promise<SocketAnswer> {
  Agent.watchConnections(ports);
  return async (event) => {
    const { connectionId, eventType, routeKey, requestId = connectionId } = event.requestContext;
    try {
      if (eventType === "CONNECT" || routeKey === "$connect") return await connected(ports, event, requestId);
      if (eventType === "DISCONNECT" || routeKey === "$disconnect") {
        await Agent.lost(ports, connectionId);
        return { statusCode: 200 };
      }
      return await messaged(ports, event, requestId, onError);
    } catch (thrown) {
      if (!isError(thrown)) onError("socket", thrown);
      const { status, text } = toProblem(thrown, requestId);
      return { statusCode: status, headers: { "content-type": problemType }, body: text };
    }
  };
}

async function connected(ports: Ports, event: SocketEvent, requestId: string): Promise<SocketAnswer> {
  const header = (name: string) =>
    Object.entries(event.headers ?? {}).find(([each]) => each.toLowerCase() === name)?.[1];
  const { bearer, speaks } = Frames.readHandshake(header);
  const known = bearer === undefined ? undefined : await Key.authenticate(ports, bearer);
  if (!known) throw requestErrors.unauthenticated("give an agent's token as Bearer");
  if (known.actor.role !== "agent") throw requestErrors.forbidden("only an agent's own token opens its connection");
  const scope: Scope = { ...known, ports, requestId };
  await Agent.seen(scope, known.actor.id);
  await Agent.hold(scope, event.requestContext.connectionId);
  await ports.store.settled();
  return { statusCode: 200, ...(speaks && { headers: { "Sec-WebSocket-Protocol": Frames.protocol } }) };
}

async function messaged(ports: Ports, event: SocketEvent, requestId: string, onError: OnError): Promise<SocketAnswer> {
  const { connectionId } = event.requestContext;
  const holder = await Agent.holderOf(ports, connectionId);
  if (!holder) throw requestErrors.unauthenticated("this connection is not known; connect again");
  const { tenant, agentId } = holder;
  const scope: Scope = { tenant, actor: { role: "agent", id: agentId }, ports, requestId };
  const replies: string[] = [];
  let stopped = false;
  /** Whether the agent itself spoke: known once something of it was taken, or its token was looked at. */
  let heard: boolean | undefined;
  const refuse = (re: number | undefined, thrown: unknown) => {
    if (!isError(thrown)) onError("socket", thrown);
    replies.push(Frames.refusal(re, thrown, requestId));
  };
  const hello = async ({ re, holding }: Extract<AgentFrame, { op: "hello" }>) => {
    const { agent, commands, again } = await Agent.attach(scope, agentId, {
      connectionId,
      carriedUntil: holder.until,
      tokenHash: holder.tokenHash,
      holding,
    });
    replies.push(...Frames.welcome(agent, commands, Agent.pingSeconds));
    if (re !== undefined) replies.push(Frames.helloReply(re, commands));
    heard ??= true;
    await answer(ports, connectionId, replies.splice(0));
    if (again.length > 0) Agent.send(ports, connectionId, { assign: again });
    await Agent.serve(scope, agentId);
  };
  const work = async (frame: AgentFrame) => {
    try {
      if (frame.op === "hello") return await hello(frame);
      if (ofAgent.has(frame.op) && !(await Agent.stillHolds(scope, connectionId, holder))) {
        heard = false;
        return;
      }
      replies.push(await Frames.act(scope, frame));
      heard ??= true;
      stopped ||= frame.op === "stop";
    } catch (thrown) {
      if (isError(thrown, requestErrors.unauthenticated)) {
        heard = false;
        return Agent.send(ports, connectionId, { stop: true, reason: thrown.message });
      }
      refuse(frame.re, thrown);
    }
  };
  try {
    if (event.isBase64Encoded) throw requestErrors.invalid("send text");
    const working = new Map<string, Promise<void>>();
    const all: Promise<void>[] = [];
    for (const each of Frames.readFrames(event.body ?? "")) {
      if ("problem" in each) {
        refuse(each.re, each.problem);
        continue;
      }
      const { frame } = each;
      const subject = Frames.subjectOf(frame);
      const before = frame.op === "stop" ? Promise.all(all) : subject !== undefined && working.get(subject);
      const done = before ? before.then(() => work(frame)) : work(frame);
      all.push(done);
      if (subject !== undefined) working.set(subject, done);
    }
    await Promise.all(all);
    // Not before: a void token must not keep the agent from being taken for lost. One that was, and is there, is refused all it says of its
    // tasks, and may say no more while it holds none.
    heard ??= await Agent.stillHolds(scope, connectionId, holder);
    if (heard && !stopped) await Agent.seen(scope, agentId);
  } catch (thrown) {
    refuse(undefined, thrown);
  }
  await answer(ports, connectionId, replies);
  if (stopped) Agent.hangUp(ports, connectionId);
  return { statusCode: 200 };
}

/** Once what they tell of is durable, in as few messages as the gateway's limit allows. */
async function answer(ports: Ports, connectionId: string, texts: readonly string[]): Promise<void> {
  await ports.store.settled();
  let group: string[] = [];
  let bytes = 0;
  const flush = () => {
    if (group.length === 0) return;
    const text = group.length === 1 ? (group[0] as string) : `[${group.join(",")}]`;
    ports.live.publish(Agent.connectionChannel(connectionId), text);
    group = [];
    bytes = 0;
  };
  for (const text of texts) {
    const size = Buffer.byteLength(text) + 1;
    if (bytes + size > Frames.gatewayBytes - 2) flush();
    group.push(text);
    bytes += size;
  }
  flush();
  // Sent as pushes are: the function must not end before they are.
  await ports.store.settled();
}
