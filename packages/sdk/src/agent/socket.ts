import type { ClientRequest, IncomingMessage } from "node:http";
import { WebSocket } from "ws";
import { isOwnWord, isPassing, toApiError, WaggleApiError, WaggleConnectionError } from "../error.ts";
import { backoffMs } from "../retry.ts";
import type { Assignment, Commands } from "../types.ts";
import { type AgentConnection, type Ended, tellState } from "./connection.ts";
import type { Job, Log, Work } from "./work.ts";

export interface SocketOptions {
  readonly url: string;
  readonly id: string;
  readonly token: string;
  readonly leaseSeconds: number;
  readonly work: Work;
  readonly log: Log;
  readonly random: () => number;
  readonly now: () => number;
  readonly ended: Ended;
}

interface Reply {
  ok: boolean;
  commands?: Commands;
  problem?: { status?: number; code?: string; detail?: string };
}
/** ServerFrame of core's agent/frame.ts, as far as an agent reads it. */
type ServerFrame =
  | { op: "welcome"; leaseSeconds: number; pingSeconds?: number }
  | { op: "assign"; assignments: Assignment[] }
  | ({ op: "command"; revoked?: string[]; stop?: boolean; reason?: string } & Partial<Commands>)
  | ({ op: "reply"; re?: number } & Reply)
  /** A gateway's own word for a frame that was lost on its way: it names none. */
  | { op?: undefined; message?: string };

/** The server's limits of one message are 1 MiB and 1000 frames. */
const maxMessageChars = 300 * 1024;
/** Of API Gateway: https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html */
const gateway = { messageBytes: 128 * 1024, fragmentBytes: 32 * 1024 };
/** Beside the members of a frame: its number, braces, the brackets of a list. */
const frameBytes = 64;
const maxMessageFrames = 1000;
/** Under the ten minutes after which API Gateway closes a silent connection, and half-open ones are found. */
const longestSilenceMs = 240_000;
/** A server that restarts is back within a second or two; one that is down for longer is asked less often. */
const soon = { tries: 10, initialMs: 50, maxMs: 1_000 };
const later = { initialMs: 1_000, maxMs: 10_000 };

/** The longest a call beside the connection may take, or a welcome. A gateway gives its function no longer. */
const callMs = 30_000;

/** Instead of the answers that a connection took with it. */
const lost = { status: 503, code: "client.unreachable" };

/** Answers to the upgrade that another try will not change. */
const isFinal = (status: number) => status >= 400 && status < 500 && status !== 408 && status !== 425 && status !== 429;

export function socketConnection(options: SocketOptions): AgentConnection {
  const { work, log, now } = options;
  const address = `${options.url.replace(/^http/, "ws")}/v1/agents/${encodeURIComponent(options.id)}/connect`;
  let socket: WebSocket | undefined;
  /** Welcomed: frames may be sent. */
  let live = false;
  /** The API takes no connections itself: a gateway carries this one. */
  let carried = false;
  let closed = false;
  let draining = false;
  let out: string[] = [];
  let re = 0;
  /** Who waits for which reply; a job waits for that of its outcome. */
  const pending = new Map<number, Job | ((reply: Reply) => void)>();
  let leaseMs = options.leaseSeconds * 1000;
  /** When the last confirmed sign of life was sent: the lease counts from here. */
  let confirmedAt = now();
  let beat: { readonly at: number } | undefined;
  /** While it holds nothing a gateway's connection is its sign of life, and this is how often something has to be said on it. */
  let pingMs: number | undefined;
  let saidAt = now();
  let timer: NodeJS.Timeout | undefined;
  let retryTimer: NodeJS.Timeout | undefined;
  let failures = 0;
  const told = tellState(log);
  let opened: { resolve(): void; reject(error: Error): void } | undefined;

  const send = (text: string) => {
    saidAt = now();
    if (!carried || text.length * 3 <= gateway.fragmentBytes) return socket?.send(text);
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.length; at += gateway.fragmentBytes) {
      const end = at + gateway.fragmentBytes;
      socket?.send(bytes.subarray(at, end), { binary: false, fin: end >= bytes.length });
    }
  };
  const flush = () => {
    const frames = out;
    out = [];
    if (!live || !socket) return;
    const sizeOf = (frame: string) => (carried ? Buffer.byteLength(frame) + 1 : frame.length);
    const most = carried ? gateway.messageBytes - frameBytes : maxMessageChars;
    for (let from = 0; from < frames.length; ) {
      let to = from;
      let size = 0;
      while (to < frames.length && to - from < maxMessageFrames) {
        size += sizeOf(frames[to] as string);
        if (to > from && size >= most) break;
        to++;
      }
      send(to - from === 1 ? (frames[from] as string) : `[${frames.slice(from, to).join(",")}]`);
      from = to;
    }
  };
  /** All frames of one turn of the event loop leave as one message. */
  const push = (frame: string) => {
    if (!live) return;
    if (out.push(frame) === 1) process.nextTick(flush);
  };
  const ask = (members: string, whom: Job | ((reply: Reply) => void)) => {
    pending.set(++re, whom);
    push(`{"re":${re},${members}}`);
  };
  /** Of a task: as a frame, or as a call of its own where a gateway carries none so large. */
  const say = (op: string, job: Job, members: string, whom: Job | ((reply: Reply) => void)) => {
    const more = members === "" ? "" : `,${members}`;
    const frame = `"op":"${op}","taskId":"${job.task.id}","fence":${job.fence}${more}`;
    if (!carried || Buffer.byteLength(frame) <= gateway.messageBytes - frameBytes) return ask(frame, whom);
    const path = `${job.task.id}/${op === "progress" ? "heartbeat" : op}`;
    void call(path, `{"fence":${job.fence}${more}}`).then(
      (reply) => hear(whom, reply),
      (error) => hear(whom, { ok: false, problem: { status: 503, detail: String(error) } }),
    );
  };
  const call = async (path: string, body?: string): Promise<Reply & { task?: Assignment["task"] }> => {
    const response = await fetch(`${options.url}/v1/tasks/${path}`, {
      headers: { authorization: `Bearer ${options.token}`, "content-type": "application/json" },
      signal: AbortSignal.timeout(callMs),
      ...(body !== undefined && { method: "POST", body }),
    });
    const answer = (await response.json()) as NonNullable<Reply["problem"]> & { task?: Assignment["task"] };
    return response.ok
      ? { ok: true, ...(answer.task && { task: answer.task }) }
      : { ok: false, problem: { ...answer, status: response.status } };
  };
  const hear = (whom: Job | ((reply: Reply) => void), reply: Reply) => {
    if (typeof whom === "function") whom(reply);
    else answered(whom, reply);
  };
  /** What was said before and never answered may have been lost with the process that had it. */
  const sayAgain = (before: number) => {
    for (const [re, whom] of pending) if (typeof whom !== "function" && whom.saidAt < before) pending.delete(re);
    work.resend(before);
  };

  const tellProgress = (job: Job) => {
    if (!live) return;
    const { progress, details } = job;
    const members = [
      ...(progress ? [`"progress":${JSON.stringify(progress)}`] : []),
      ...(details !== undefined ? [`"details":${details}`] : []),
    ];
    job.progress = undefined;
    job.details = undefined;
    say("progress", job, members.join(","), ({ ok, problem = {} }) => {
      job.heard ||= ok;
      if (ok) return;
      if (problem.code === "task.lease_lost") return work.lost(job);
      if (problem.code !== lost.code)
        return log.warn(`progress was not taken: ${problem.detail}`, { taskId: job.task.id });
      if (progress) job.progress = { ...progress, ...job.progress };
      job.details ??= details;
    });
  };

  work.setLink({
    start(job) {
      if (!live) return;
      job.saidAt = now();
      say("start", job, "", ({ ok, problem }) => {
        job.heard ||= ok;
        if (problem?.code === "task.lease_lost") work.lost(job);
      });
    },
    progress: tellProgress,
    outcome(job) {
      const { outcome } = job;
      if (!live || !outcome) return;
      job.saidAt = now();
      if (outcome.op !== "complete" && job.details !== undefined) tellProgress(job);
      say(outcome.op, job, outcome.members, job);
    },
  });
  const answered = (job: Job, { ok, problem }: Reply) => {
    if (ok) return work.settled(job);
    const { status } = problem ?? {};
    if (isPassing(problem ?? {})) {
      // A reconnect meanwhile sends it as well; the server takes it once.
      setTimeout(() => live && work.resendOne(job), 100 + options.random() * 900);
    } else if (status === 404 || status === 409 || status === 401) {
      log.warn(`the outcome of ${job.task.id} was not taken: ${problem?.detail ?? problem?.code}`);
      work.settled(job);
    } else work.refused(job, problem ?? {});
  };

  const obey = (commands: Partial<Commands>) => {
    if (commands.cancel && commands.cancel.length > 0) work.cancel(commands.cancel);
    told(commands);
  };
  /**
   * Its input is larger than a message, or than what there is room for. Until it is here the task is not begun: with the next
   * connection the server gives it anew, and for as long as this one lasts it is asked for again.
   */
  const fetchInput = async (assignment: Assignment, tries = 0): Promise<void> => {
    const { id } = assignment.task;
    const mine = socket;
    const { task, problem = {} } = await call(id).catch((error) => ({
      task: undefined,
      problem: { ...lost, detail: String(error) },
    }));
    if (task) return work.assign([{ ...assignment, task }]);
    log.warn(`the input of ${id} did not come: ${problem.detail ?? `HTTP ${problem.status}`}`);
    if (!isPassing(problem)) return;
    const again = () => void (socket === mine && !closed && fetchInput(assignment, tries + 1));
    setTimeout(again, backoffMs(tries, later, options.random)).unref();
  };
  const refusedUnnamed = (problem: NonNullable<Reply["problem"]>) => {
    const { status = 400, code = "request.invalid", detail = code } = problem;
    if (live || isPassing(problem)) return log.warn(`the server refused a frame: ${detail}`);
    // It was the hello: this agent has no place here, and asking again gives it none.
    finish(detail, new WaggleApiError({ status, code, detail }));
  };
  const read = (frame: ServerFrame) => {
    switch (frame.op) {
      case "reply": {
        const answer = frame.re === undefined ? undefined : pending.get(frame.re);
        if (answer) {
          pending.delete(frame.re as number);
          hear(answer, frame);
        } else if (!frame.ok) refusedUnnamed(frame.problem ?? {});
        return;
      }
      case "assign": {
        const whole = frame.assignments.filter((assignment) => !assignment.inputOmitted);
        if (whole.length > 0) work.assign(whole);
        for (const assignment of frame.assignments) if (assignment.inputOmitted) void fetchInput(assignment);
        return;
      }
      case "command":
        if (frame.revoked) work.revoke(frame.revoked);
        obey(frame);
        if (frame.stop) finish(frame.reason ?? "the server stopped this agent");
        return;
      case "welcome":
        leaseMs = frame.leaseSeconds * 1000;
        pingMs = frame.pingSeconds === undefined ? undefined : frame.pingSeconds * 1000;
        if (failures > 0) log.info("connected again");
        failures = 0;
        live = true;
        confirmedAt = now();
        armHeartbeat();
        work.resend();
        if (draining) push(`{"op":"drain"}`);
        opened?.resolve();
        opened = undefined;
        return;
      default: {
        log.warn(`the gateway lost a frame: ${frame.message ?? "it does not say why"}`);
        // It was the hello: without a welcome nothing else is said here.
        if (!live) return socket?.terminate();
        const at = now();
        setTimeout(() => live && sayAgain(at), 100 + options.random() * 900);
      }
    }
  };

  const heartbeat = () => {
    const at = now();
    if (at - confirmedAt > leaseMs) {
      work.releaseAll("task.lease_lost", "the server was out of reach for longer than the lease");
    }
    if (!live) return;
    if (beat) {
      log.warn("no answer to the last heartbeat; connecting anew");
      socket?.terminate();
      return;
    }
    if (pingMs !== undefined && work.size === 0) {
      // There is no lease to lose until it is given something.
      confirmedAt = at;
      if (at + beatMs() - saidAt > pingMs) push(`{"op":"ping"}`);
      return;
    }
    // Said before a sign of life that was confirmed since: its answer is not only slow.
    sayAgain(confirmedAt);
    const mine = { at };
    beat = mine;
    ask(`"op":"heartbeat"`, (reply) => {
      if (beat === mine) beat = undefined;
      if (!reply.ok) return;
      confirmedAt = mine.at;
      if (reply.commands) obey(reply.commands);
    });
  };
  const beatMs = () => Math.min(leaseMs / 3, longestSilenceMs);
  const armHeartbeat = () => {
    clearInterval(timer);
    timer = setInterval(heartbeat, beatMs());
  };

  /** Over for good: removed, replaced, or turned away. */
  const finish = (reason: string, error?: Error) => {
    if (closed) return;
    closed = true;
    live = false;
    clearInterval(timer);
    clearTimeout(retryTimer);
    work.revokeAll("agent.stopped", reason);
    socket?.close(1000);
    opened?.reject(error ?? new WaggleConnectionError("client.unreachable", reason));
    opened = undefined;
    options.ended(reason);
  };

  const connect = (to = address) => {
    const mine = new WebSocket(to, ["waggle.v1"], {
      headers: { authorization: `Bearer ${options.token}` },
      perMessageDeflate: false,
      maxPayload: 64 * 1024 * 1024,
      handshakeTimeout: 10_000,
      followRedirects: false,
    });
    socket = mine;
    carried = to !== address;
    mine.on("open", () => {
      if (socket !== mine) return;
      send(`{"op":"hello","holding":${JSON.stringify(work.holding())}}`);
      const late = setTimeout(() => socket === mine && !live && mine.terminate(), callMs);
      mine.once("close", () => clearTimeout(late));
    });
    mine.on("message", (data: Buffer) => {
      if (socket !== mine) return;
      let frames: ServerFrame | ServerFrame[];
      try {
        frames = JSON.parse(data.toString()) as ServerFrame | ServerFrame[];
      } catch {
        log.error("the server sent something that is no JSON; connecting anew");
        mine.terminate();
        return;
      }
      if (Array.isArray(frames)) for (const frame of frames) read(frame);
      else read(frames);
    });
    mine.on("unexpected-response", (request: ClientRequest, response: IncomingMessage) => {
      const status = response.statusCode ?? 0;
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => {
        text += chunk;
      });
      response.on("error", () => {});
      response.on("close", () => {
        const elsewhere = to === address && status === 307 && socketAt(response.headers.location, address);
        if (elsewhere && socket === mine && !closed) connect(elsewhere);
        request.destroy();
        if (elsewhere) return;
        const error = toApiError(status, text, (name) => response.headers[name] as string | undefined);
        // Once it has been welcomed, what something in between says (404 while it is set up anew) may pass.
        const over = opened ? isFinal(status) || status < 400 : isFinal(status) && (isOwnWord(error) || status === 401);
        if (over) finish(error.message, error);
        else dropped(mine, error.message);
      });
    });
    mine.on("error", (error) => dropped(mine, error.message));
    mine.on("close", (code, reason) => dropped(mine, reason.toString() || `connection closed (${code})`));
  };
  const dropped = (which: WebSocket, why: string) => {
    if (which !== socket || closed) return;
    socket = undefined;
    live = false;
    out = [];
    // Outcomes are kept anyway. The newest first: of what was said again and again that one counts.
    const unanswered = [...pending.values()].reverse();
    pending.clear();
    for (const whom of unanswered) if (typeof whom === "function") whom({ ok: false, problem: lost });
    beat = undefined;
    if (which.readyState !== WebSocket.CLOSED) which.terminate();
    const waitMs = backoffMs(failures, failures < soon.tries ? soon : later, options.random);
    failures++;
    if (failures === 1 || failures % 10 === 0) log.warn(`not connected: ${why}; trying again`, { tries: failures });
    retryTimer = setTimeout(() => connect(), waitMs);
  };

  const tell = (op: string, patienceMs: number) =>
    new Promise<void>((resolve) => {
      if (!live) return resolve();
      const late = setTimeout(resolve, patienceMs);
      const done = () => {
        clearTimeout(late);
        resolve();
      };
      ask(`"op":"${op}"`, done);
      socket?.once("close", done);
    });

  return {
    open: () =>
      new Promise((resolve, reject) => {
        opened = { resolve, reject };
        armHeartbeat();
        connect();
      }),
    drain() {
      draining = true;
      return tell("drain", 5_000);
    },
    freed() {},
    async close(leave) {
      if (closed) return;
      if (leave) await tell("stop", 2_000);
      closed = true;
      live = false;
      clearInterval(timer);
      clearTimeout(retryTimer);
      opened?.reject(new WaggleConnectionError("client.unreachable", "stopped while connecting"));
      const last = socket;
      if (!last || last.readyState === WebSocket.CLOSED) return;
      await new Promise<void>((resolve) => {
        const late = setTimeout(() => last.terminate(), 1_000);
        last.once("close", () => {
          clearTimeout(late);
          resolve();
        });
        last.close(1000);
      });
    },
  };
}

/** Where an API that takes no connections itself sends its agents. The token goes along: never to less than TLS from TLS. */
function socketAt(location: string | undefined, from: string): string | undefined {
  if (location === undefined || !URL.canParse(location)) return undefined;
  const { protocol } = new URL(location);
  return protocol === "wss:" || (protocol === "ws:" && from.startsWith("ws:")) ? location : undefined;
}

/** Whether a refused upgrade means that sockets do not get through, rather than that this agent may not come in. */
export const socketImpossible = (error: unknown): boolean =>
  error instanceof WaggleApiError &&
  // 426: something in between took the wish for a WebSocket out of the request.
  (!isOwnWord(error) || error.code.startsWith("route.") || error.status === 426) &&
  error.status !== 401;
