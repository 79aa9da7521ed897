import { randomUUID } from "node:crypto";
import { type IncomingMessage, STATUS_CODES } from "node:http";
import type { Duplex } from "node:stream";
import {
  Agent,
  type AgentFrame,
  Frames,
  isError,
  isId,
  isNoJson,
  jsonLimits,
  Key,
  problemType,
  requestErrors,
  type Scope,
  toProblem,
} from "@waggle/core";
import { type RawData, WebSocket, WebSocketServer } from "ws";
import { type App, authenticate, requestIdOf, serverTiming } from "./app.ts";
import { headerOf } from "./inbound.ts";
import { declared } from "./routes/common.ts";

const limits = {
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

const close = {
  normal: 1000,
  goingAway: 1001,
  unsupported: 1003,
  invalid: 1007,
  policy: 1008,
  tryLater: 1013,
} as const;

export interface Sockets {
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void;
  /** Closes every connection with 1001; resolves once all are gone, by force after `graceMs`. */
  close(graceMs: number): Promise<void>;
}

export interface SocketOptions extends App {
  readonly onError?: ((error: unknown, requestId: string) => void) | undefined;
}

/** The WebSocket edge of agents; see `agent/frame.ts` for the protocol. */
export function createSockets(app: SocketOptions): Sockets {
  const { shared, failedAuth } = app;
  const { ports } = shared;
  const server = new WebSocketServer({
    noServer: true,
    maxPayload: jsonLimits.bodyBytes,
    // A frame is small and often random; compression costs memory for each connection.
    perMessageDeflate: false,
    clientTracking: false,
    handleProtocols: (offered) => (offered.has(Frames.protocol) ? Frames.protocol : false),
  });
  server.on("wsClientError", (error, socket, request) => {
    const message = `this is no WebSocket handshake: ${error.message}`;
    refuse(
      socket,
      requestErrors.invalid(message, { errors: [{ path: "", message }] }),
      requestIdOf({ header: headerOf(request) }, ports),
      performance.now(),
    );
  });
  const accepted = new WeakMap<IncomingMessage, { readonly requestId: string; readonly started: number }>();
  server.on("headers", (lines, request) => {
    const own = accepted.get(request);
    if (own) lines.push(...ownHeaders(own.requestId, own.started));
  });
  const open = new Map<WebSocket, Served>();

  /** All connections together have more unread than there is room for. */
  function isTight(): boolean {
    let all = 0;
    for (const { unread } of open.values()) all += unread();
    return all > limits.bufferedBytesOfAll;
  }

  function refuseWhenStopping(): void {
    if (shared.closing.aborted) throw requestErrors.notReady("the server is stopping", { retryAfterSeconds: 1 });
  }

  async function accept(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const started = performance.now();
    const header = headerOf(request);
    const requestId = requestIdOf({ header }, ports);
    const alive = () => !socket.destroyed;
    try {
      refuseWhenStopping();
      const path = (request.url ?? "").split("?", 1)[0] as string;
      const id = /^\/v1\/agents\/([^/]+)\/connect$/.exec(path)?.[1];
      if (id === undefined) throw requestErrors.notFound(`there is no WebSocket at ${path.slice(0, 200)}`);
      const { bearer } = Frames.readHandshake(header);
      const from = { header, remoteAddress: request.socket.remoteAddress ?? "" };
      const scope = await authenticate(["agent"], bearer, from, requestId, { options: { ports }, failedAuth });
      if (!isId("agt", id) || id !== scope.actor.id)
        throw declared("agent.not_found")(`there is no agent ${id.slice(0, 64)}`);
      await Agent.seen(scope, id);
      await ports.store.settled();
      // One that joined now would be told of no stop, and hold it up.
      refuseWhenStopping();
      if (alive()) {
        accepted.set(request, { requestId, started });
        server.handleUpgrade(request, socket, head, (ws) => {
          open.set(ws, serve(ws, scope, bearer as string, app, isTight));
          ws.once("close", () => {
            open.delete(ws);
          });
        });
      }
    } catch (thrown) {
      if (!isError(thrown)) app.onError?.(thrown, requestId);
      if (alive()) refuse(socket, thrown, requestId, started);
    }
  }

  return {
    upgrade: (request, socket, head) => void accept(request, socket, head),
    async close(graceMs) {
      const sockets = [...open.keys()];
      for (const ws of sockets) ws.close(close.goingAway, "the server is stopping");
      const gone = Promise.all(
        sockets.map(
          (ws) => new Promise<void>((resolve) => (open.has(ws) ? ws.once("close", () => resolve()) : resolve())),
        ),
      );
      const timer = setTimeout(() => {
        for (const ws of open.keys()) ws.terminate();
      }, graceMs);
      const ends = [...open.values()];
      await gone;
      clearTimeout(timer);
      await Promise.all(ends.map(({ ended }) => ended()));
      server.close();
    },
  };
}

const wrongOp = (message: string) => requestErrors.invalid(message, { errors: [{ path: "op", message }] });

const ownHeaders = (requestId: string, started: number) => [
  `X-Request-Id: ${requestId}`,
  `Server-Timing: ${serverTiming(started)}`,
];

function refuse(socket: Duplex, thrown: unknown, requestId: string, started: number): void {
  const { status, text, retryAfterSeconds } = toProblem(thrown, requestId);
  const lines = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ""}`,
    `Content-Type: ${problemType}`,
    `Content-Length: ${Buffer.byteLength(text)}`,
    ...ownHeaders(requestId, started),
    "Cache-Control: no-store",
    "Connection: close",
    ...(retryAfterSeconds === undefined ? [] : [`Retry-After: ${retryAfterSeconds}`]),
    ...(status === 401 ? ['WWW-Authenticate: Bearer realm="waggle"'] : []),
  ];
  // A peer that keeps its side open would hold up a stop.
  socket.once("finish", () => socket.destroy());
  socket.end(`${lines.join("\r\n")}\r\n\r\n${text}`);
}

interface Served {
  readonly ended: () => Promise<void>;
  /** Bytes its peer has not taken yet; of those that wait here the characters are counted. */
  readonly unread: () => number;
}

/** One connection, from its first frame to its end. */
function serve(ws: WebSocket, scope: Scope, bearer: string, app: SocketOptions, isTight: () => boolean): Served {
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
    while (ready.length > 0 && (all || ws.bufferedAmount <= limits.bufferedBytes)) {
      const frames = all ? ready.splice(0) : nextMessage();
      const text = frames.length === 1 ? (frames[0] as string) : `[${frames.join(",")}]`;
      counts.framesOut += frames.length;
      for (const { length } of frames) waiting -= length;
      ws.send(text, sent);
    }
    if (unread() > limits.bufferedBytesMax && isTight()) return giveUp();
    throttle();
  };
  const nextMessage = (): string[] => {
    let characters = 0;
    let frames = 0;
    for (; frames < ready.length; frames++) {
      characters += (ready[frames] as string).length;
      if (frames > 0 && characters > limits.messageCharacters) break;
    }
    return ready.splice(0, frames);
  };
  const sent = () => (ready.length > 0 ? send() : throttle());
  const giveUp = () => {
    counts.slow++;
    ws.resume();
    ws.close(close.tryLater, "too much is unread: read faster, or take less at a time");
    const cut = setTimeout(() => ws.terminate(), limits.slowCloseMs);
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
      ws.close(close.tryLater, "storage unavailable");
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
    const full = inFlight > limits.framesInFlight || unread() > limits.bufferedBytes;
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
        if (data.op === "stop") ending ??= { code: close.normal, reason: "the agent was removed" };
      }
    } catch (thrown) {
      refused(data.re, thrown);
      // Without a connection there is nothing to go on with.
      if (data.op === "hello" && held !== undefined) ending ??= { code: close.policy, reason: "hello was refused" };
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
    return all > limits.inputBytes || (all > limits.bufferedBytes && isTight());
  };
  const pushed = (message: Agent.AgentMessage) => {
    for (const text of Frames.framesOf(message, limits.messageCharacters, isTooMuch)) push(text);
    if (!("stop" in message)) return;
    ending ??= { code: close.normal, reason: message.reason };
    closeWhenIdle();
  };

  ws.on("message", (data: RawData, binary: boolean) => {
    beats = 0;
    if (over || revoked) return;
    if (binary) return ws.close(close.unsupported, "send text");
    let frames: ReturnType<typeof Frames.readFrames>;
    try {
      frames = Frames.readFrames((data as Buffer).toString("utf8"));
    } catch (error) {
      // The peer speaks something else.
      if (isNoJson(error)) return ws.close(close.invalid, "not JSON");
      return refused(undefined, error);
    }
    counts.framesIn += frames.length;
    for (const each of frames) {
      if ("problem" in each) refused(each.re, each.problem);
      else frame(each.frame);
    }
    if (inFlight > limits.framesInFlight) throttle();
  });

  // Life.
  let revoked = false;
  const offRevoked = Key.onRevoked(ports, bearer, () => {
    revoked = true;
    // An agent that was removed or replaced has been told why.
    ending ??= { code: close.policy, reason: "the token is no longer valid" };
    closeWhenIdle();
  });
  let beats = 0;
  ws.on("pong", () => {
    beats = 0;
  });
  let cancelTimer = ports.clock.after(limits.helloMs, () => {
    if (connection === undefined) ws.close(close.policy, "no hello came");
    else beat();
  });
  const beat = () => {
    cancelTimer = ports.clock.after(limits.pingMs, beat);
    if (beats > 0) return ws.terminate();
    beats++;
    ws.ping();
    Key.authenticate(ports, bearer)
      .then((known) => {
        if (known?.actor.id !== id) return ws.close(close.policy, "the token is no longer valid");
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
