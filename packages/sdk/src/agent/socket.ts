import type { ClientRequest, IncomingMessage } from "node:http";
import { WebSocket } from "ws";
import { toApiError, WaggleApiError, WaggleConnectionError } from "../error.ts";
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
  | { op: "welcome"; leaseSeconds: number }
  | { op: "assign"; assignments: Assignment[] }
  | ({ op: "command"; revoked?: string[]; stop?: boolean; reason?: string } & Partial<Commands>)
  | ({ op: "reply"; re?: number } & Reply);

/** The server's limits of one message are 1 MiB and 1000 frames. */
const maxMessageChars = 300 * 1024;
const maxMessageFrames = 1000;
/** Under the ten minutes after which API Gateway closes a silent connection, and half-open ones are found. */
const longestSilenceMs = 240_000;
/** A server that restarts is back within a second or two; one that is down for longer is asked less often. */
const soon = { tries: 10, initialMs: 50, maxMs: 1_000 };
const later = { initialMs: 1_000, maxMs: 10_000 };

/** Answers to the upgrade that another try will not change. */
const isFinal = (status: number) => status >= 400 && status < 500 && status !== 408 && status !== 425 && status !== 429;

export function socketConnection(options: SocketOptions): AgentConnection {
  const { work, log, now } = options;
  const address = `${options.url.replace(/^http/, "ws")}/v1/agents/${encodeURIComponent(options.id)}/connect`;
  let socket: WebSocket | undefined;
  /** Welcomed: frames may be sent. */
  let live = false;
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
  let timer: NodeJS.Timeout | undefined;
  let retryTimer: NodeJS.Timeout | undefined;
  let failures = 0;
  const told = tellState(log);
  let opened: { resolve(): void; reject(error: Error): void } | undefined;

  const flush = () => {
    const frames = out;
    out = [];
    if (!live || !socket) return;
    for (let from = 0; from < frames.length; ) {
      let to = from;
      let chars = 0;
      const fits = () => to - from < maxMessageFrames && chars + (frames[to] as string).length < maxMessageChars;
      while (to < frames.length && (to === from || fits())) {
        chars += (frames[to++] as string).length;
      }
      socket.send(to - from === 1 ? (frames[from] as string) : `[${frames.slice(from, to).join(",")}]`);
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
  const on = (op: string, job: Job) => `"op":"${op}","taskId":"${job.task.id}","fence":${job.fence}`;

  work.setLink({
    start(job) {
      if (!live) return;
      ask(on("start", job), (reply) => {
        if (!reply.ok && reply.problem?.code === "task.lease_lost") work.revoke([job.task.id]);
      });
    },
    progress(job) {
      if (!live) return;
      let members = on("progress", job);
      if (job.progress) members += `,"progress":${JSON.stringify(job.progress)}`;
      if (job.details !== undefined) members += `,"details":${job.details}`;
      job.progress = undefined;
      job.details = undefined;
      ask(members, (reply) => {
        if (reply.ok) return;
        if (reply.problem?.code === "task.lease_lost") work.revoke([job.task.id]);
        else log.warn(`progress was not taken: ${reply.problem?.detail}`, { taskId: job.task.id });
      });
    },
    outcome(job) {
      const { outcome } = job;
      if (!live || !outcome) return;
      const members = on(outcome.op, job);
      ask(outcome.members === "" ? members : `${members},${outcome.members}`, job);
    },
  });
  const answered = (job: Job, { ok, problem }: Reply) => {
    if (ok) return work.settled(job);
    const status = problem?.status ?? 500;
    if (status >= 500 || status === 429 || problem?.code === "task.conflict") {
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
  /** Its input is larger than a gateway's message. Until it is here the task is not begun, and so not lost if it never comes. */
  const fetchInput = async (assignment: Assignment) => {
    try {
      const response = await fetch(`${options.url}/v1/tasks/${assignment.task.id}`, {
        headers: { authorization: `Bearer ${options.token}` },
      });
      if (!response.ok) throw new Error(`HTTP ${response.status}`);
      const { task } = (await response.json()) as { task: Assignment["task"] };
      work.assign([{ ...assignment, task }]);
    } catch (error) {
      log.warn(`the input of ${assignment.task.id} did not come: ${error instanceof Error ? error.message : error}`);
    }
  };
  const read = (frame: ServerFrame) => {
    switch (frame.op) {
      case "reply": {
        const answer = frame.re === undefined ? undefined : pending.get(frame.re);
        if (answer) {
          pending.delete(frame.re as number);
          if (typeof answer === "function") answer(frame);
          else answered(answer, frame);
        } else if (!frame.ok) log.warn(`the server refused a frame: ${frame.problem?.detail ?? frame.problem?.code}`);
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
        failures = 0;
        live = true;
        confirmedAt = now();
        armHeartbeat();
        work.resend();
        if (draining) push(`{"op":"drain"}`);
        opened?.resolve();
        opened = undefined;
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
    const mine = { at };
    beat = mine;
    ask(`"op":"heartbeat"`, (reply) => {
      if (beat === mine) beat = undefined;
      if (!reply.ok) return;
      confirmedAt = mine.at;
      if (reply.commands) obey(reply.commands);
    });
  };
  const armHeartbeat = () => {
    clearInterval(timer);
    timer = setInterval(heartbeat, Math.min(leaseMs / 3, longestSilenceMs));
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
    mine.on("open", () => mine.send(`{"op":"hello","holding":${JSON.stringify(work.holding())}}`));
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
        if (isFinal(status)) finish(error.message, error);
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
    pending.clear();
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
  (error.code.startsWith("http.") || error.code.startsWith("route.")) &&
  error.status !== 401;
