import { randomUUID } from "node:crypto";
import { Agent, type AgentFrame, Frames, isError, isNoJson, Key, requestErrors, type Scope } from "@waggle/core";
import { type RawData, WebSocket } from "ws";
import type { App } from "./app.ts";

export const connectionLimits = {
  /** Between pings. A peer that answers none in this time is gone. */
  pingMs: 15_000,
  /** The first frame must come this soon. */
  helloMs: 10_000,
  /** Frames being worked on; above this no more is read. */
  framesInFlight: 2000,
  /** Bytes the peer has not taken yet: above this no more is read, and what else there is for it waits here, so that pings pass it … */
  bufferedBytes: 1024 * 1024,
  /** … in messages of at most about so many characters each. */
  messageCharacters: 256 * 1024,
  /** Above this, tasks come without their inputs: an agent may have slots for many times that. */
  inputBytes: 32 * 1024 * 1024,
  /** Of all connections. Above it, inputs are left out at `bufferedBytes` … */
  bufferedBytesOfAll: 256 * 1024 * 1024,
  /** … and those that have so much unread are closed. */
  bufferedBytesMax: 2 * 1024 * 1024,
  /** So long the peer may take to read on, and learn why, before the connection is cut. */
  slowCloseMs: 5_000,
} as const;

export const closeCodes = {
  normal: 1000,
  goingAway: 1001,
  unsupported: 1003,
  invalid: 1007,
  policy: 1008,
  tryLater: 1013,
} as const;

export interface SocketOptions extends App {
  readonly onError?: ((error: unknown, requestId: string) => void) | undefined;
}

export interface Connection {
  readonly ended: () => Promise<void>;
  /** Bytes its peer has not taken yet; of those that wait here the characters are counted. */
  readonly unread: () => number;
}

/**
 * Serves one connection of an agent, from its first frame to its end.
 * @param isTight all connections together have more unread than there is room for
 */
export function serve(
  ws: WebSocket,
  scope: Scope,
  bearer: string,
  app: SocketOptions,
  isTight: () => boolean,
): Connection {
  const { ports, metrics } = app.shared;
  const id = scope.actor.id;
  const counts = metrics.sockets;
  counts.open++;

  // Output. Replies wait until what they tell of is durable; pushes are durable when they come.
  let ready: string[] = [];
  /** Characters of what is ready or held. */
  let waiting = 0;
  let replies: { readonly frame: string; readonly generation: number }[] = [];
  let held: string[] | undefined = [];
  let settling = false;
  let scheduled = false;
  let inFlight = 0;
  let paused = false;
  let over = false;

  const unread = () => ws.bufferedAmount + waiting;
  /** @param all also what the peer has no room for yet */
  const send = (all = false) => {
    scheduled = false;
    // What a connection that is closing was to get, the agent gets with its next one.
    if (ws.readyState !== WebSocket.OPEN) {
      ready = [];
      waiting = 0;
      return;
    }
    while (ready.length > 0 && (all || ws.bufferedAmount <= connectionLimits.bufferedBytes)) {
      const frames = all ? ready.splice(0) : nextMessage();
      const text = frames.length === 1 ? (frames[0] as string) : `[${frames.join(",")}]`;
      counts.framesOut += frames.length;
      for (const { length } of frames) waiting -= length;
      ws.send(text, sent);
    }
    if (unread() > connectionLimits.bufferedBytesMax && isTight()) return giveUp();
    throttle();
  };
  const nextMessage = (): string[] => {
    let characters = 0;
    let frames = 0;
    for (; frames < ready.length; frames++) {
      characters += (ready[frames] as string).length;
      if (frames > 0 && characters > connectionLimits.messageCharacters) break;
    }
    return ready.splice(0, frames);
  };
  const sent = () => (ready.length > 0 ? send() : throttle());
  const giveUp = () => {
    counts.slow++;
    ws.resume();
    ws.close(closeCodes.tryLater, "too much is unread: read faster, or take less at a time");
    const cut = setTimeout(() => ws.terminate(), connectionLimits.slowCloseMs);
    ws.once("close", () => clearTimeout(cut));
  };
  /** All that is ready within one turn of the event loop leaves as one message. */
  const push = (frame: string) => {
    if (held === undefined) return emit(frame);
    waiting += frame.length;
    held.push(frame);
  };
  const emit = (frame: string) => {
    waiting += frame.length;
    ready.push(frame);
    if (scheduled) return;
    scheduled = true;
    setImmediate(send);
  };
  const settle = async () => {
    settling = true;
    try {
      while (replies.length > 0) {
        const batch = replies;
        replies = [];
        const patient = !over && ending === undefined;
        await ports.store.settled(Math.min(...batch.map((each) => each.generation)), patient);
        for (const { frame } of batch) emit(frame);
      }
    } catch {
      // What was done may not last, so it must not be told. The agent comes back and learns what holds.
      ws.close(closeCodes.tryLater, "storage unavailable");
    }
    settling = false;
    closeWhenIdle();
  };
  /**
   * A reply is in no hurry: what it tells of goes to disk together with something that is, if that comes soon. Often that
   * is the next assignment of the agent, which then brings the reply along.
   * @param generation of the store when the work began that the frame tells of
   */
  const reply = (frame: string, generation = ports.store.generation()) => {
    replies.push({ frame, generation });
    if (!settling) void settle();
  };

  const throttle = () => {
    const full = inFlight > connectionLimits.framesInFlight || unread() > connectionLimits.bufferedBytes;
    if (full && !paused) ws.pause();
    else if (!full && paused) ws.resume();
    paused = full;
  };

  // Input.
  let connection: Promise<Agent.Connection> | undefined;
  let ending: { code: number; reason: string } | undefined;
  /** Once all that was asked is answered. */
  const closeWhenIdle = () => {
    if (ending === undefined || inFlight > 0 || settling) return;
    send(true);
    ws.close(ending.code, ending.reason.slice(0, 120));
  };

  const refused = (re: number | undefined, thrown: unknown) => {
    if (!isError(thrown)) app.onError?.(thrown, scope.requestId);
    reply(Frames.refusal(re, thrown, scope.requestId));
  };
  /** Frames of one task, and those of the agent as a whole, are done in the order they came. */
  const working = new Map<string, Promise<void>>();
  const frame = (data: AgentFrame) => {
    const subject = Frames.subjectOf(data);
    const before = data.op === "stop" ? Promise.all(working.values()) : subject !== undefined && working.get(subject);
    inFlight++;
    const done = work(data, before).finally(() => {
      inFlight--;
      if (subject !== undefined && working.get(subject) === done) working.delete(subject);
      if (paused) throttle();
      closeWhenIdle();
    });
    if (subject !== undefined) working.set(subject, done);
  };
  const work = async (data: AgentFrame, before: Promise<unknown> | false | undefined) => {
    const generation = ports.store.generation();
    try {
      if (before) await before;
      if (data.op === "hello") await hello(data);
      else {
        if (held !== undefined) await (connection ?? Promise.reject(wrongOp("the first frame must be hello")));
        reply(await Frames.act(scope, data), generation);
        if (data.op === "stop") ending ??= { code: closeCodes.normal, reason: "the agent was removed" };
      }
    } catch (thrown) {
      refused(data.re, thrown);
      // Without a connection there is nothing to go on with.
      if (data.op === "hello" && held !== undefined)
        ending ??= { code: closeCodes.policy, reason: "hello was refused" };
    }
  };
  const hello = async ({ re, holding }: Extract<AgentFrame, { op: "hello" }>) => {
    if (connection !== undefined) throw wrongOp("hello was said already");
    const generation = ports.store.generation();
    connection = Agent.connect(scope, id, { connectionId: randomUUID(), holding, push: pushed });
    const { agent, commands } = await connection;
    await ports.store.settled(generation);
    if (over) return;
    welcome(agent, commands);
    if (re !== undefined) reply(Frames.helloReply(re, commands));
  };
  const welcome = (agent: Agent.Info, commands: Agent.Commands) => {
    const before = held ?? [];
    held = undefined;
    for (const text of before) waiting -= text.length;
    for (const text of [...Frames.welcome(agent, commands), ...before]) emit(text);
  };
  const isTooMuch = (before: number, bytes: number) => {
    const all = unread() + before + bytes;
    return all > connectionLimits.inputBytes || (all > connectionLimits.bufferedBytes && isTight());
  };
  const pushed = (message: Agent.AgentMessage) => {
    for (const text of Frames.framesOf(message, connectionLimits.messageCharacters, isTooMuch)) push(text);
    if (!("stop" in message)) return;
    ending ??= { code: closeCodes.normal, reason: message.reason };
    closeWhenIdle();
  };

  ws.on("message", (data: RawData, binary: boolean) => {
    beats = 0;
    if (over || revoked) return;
    if (binary) return ws.close(closeCodes.unsupported, "send text");
    let frames: ReturnType<typeof Frames.readFrames>;
    try {
      frames = Frames.readFrames((data as Buffer).toString("utf8"));
    } catch (error) {
      // The peer speaks something else.
      if (isNoJson(error)) return ws.close(closeCodes.invalid, "not JSON");
      return refused(undefined, error);
    }
    counts.framesIn += frames.length;
    for (const each of frames) {
      if ("problem" in each) refused(each.re, each.problem);
      else frame(each.frame);
    }
    if (inFlight > connectionLimits.framesInFlight) throttle();
  });

  // Life.
  let revoked = false;
  const offRevoked = Key.onRevoked(ports, bearer, () => {
    revoked = true;
    // An agent that was removed or replaced has been told why.
    ending ??= { code: closeCodes.policy, reason: "the token is no longer valid" };
    closeWhenIdle();
  });
  let beats = 0;
  ws.on("pong", () => {
    beats = 0;
  });
  let cancelTimer = ports.clock.after(connectionLimits.helloMs, () => {
    if (connection === undefined) ws.close(closeCodes.policy, "no hello came");
    else beat();
  });
  const beat = () => {
    cancelTimer = ports.clock.after(connectionLimits.pingMs, beat);
    if (beats > 0) return ws.terminate();
    beats++;
    ws.ping();
    Key.authenticate(ports, bearer)
      .then((known) => {
        if (known?.actor.id !== id) return ws.close(closeCodes.policy, "the token is no longer valid");
        return Agent.seen(scope, id);
      })
      .catch(() => {});
  };
  let ended: Promise<void> | undefined;
  const end = (): Promise<void> => {
    over = true;
    ended ??= (async () => {
      cancelTimer();
      offRevoked();
      counts.open--;
      await (await connection?.catch(() => undefined))?.disconnect();
    })().catch((error) => app.onError?.(error, scope.requestId));
    return ended;
  };
  ws.on("error", () => {});
  ws.once("close", () => void end());
  return { ended: end, unread };
}

const wrongOp = (message: string) => requestErrors.invalid(message, { errors: [{ path: "op", message }] });
