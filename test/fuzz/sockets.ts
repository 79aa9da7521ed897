import { Agent, Frames, type Scope, systemScope, Task } from "@waggle/core";
import { WebSocket } from "ws";
import { type Api, apiOf, type Problem, unique } from "../support/api.ts";
import { eventually } from "../support/eventually.ts";
import type { Frame } from "../support/socket.ts";
import type { Document } from "./calls.ts";
import { type Message, messages, tasksOfAgent } from "./frames.ts";
import { overdue } from "./overdue.ts";
import { check, type RoundFailure, type RoundOptions } from "./round.ts";
import type { Target } from "./target.ts";

/** An agent on its socket, with a few tasks of its own. */
interface Peer {
  readonly replies: Frame[];
  /** Sends a message. @returns whether the connection is still there once the server is done with it */
  say(message: Message): Promise<boolean>;
  /** What the server knows of the agent and its tasks, signs of life aside. */
  look(): Promise<string>;
  end(): void;
}

/** The server may end a connection for these: done, going away, not text, not JSON, against the protocol, too large. */
const codes = new Set([1000, 1001, 1003, 1007, 1008, 1009]);
const sentinel = 1_000_000;

/**
 * One round of messages of agents' sockets, that the seed decides: each frame is answered, none by an error of the server, and
 * one that was refused has changed nothing.
 */
export async function socketRound(target: Target, options: RoundOptions): Promise<RoundFailure | undefined> {
  const document = (await (await fetch(`${target.url}/openapi.json`)).json()) as Document;
  const tenant = unique("frames");
  const made = await apiOf(target.url, target.adminKey).post<{ key: string }>("/v1/keys", { role: "admin", tenant });
  const admin = apiOf(target.url, made.body.key);
  const scope = systemScope(target.ports, tenant, "fuzz");
  let peer: Peer | undefined;
  let before = "";
  const failure = await check(messages(document), options.seed, options.inputs, async (message) => {
    options.figures.inputs++;
    if (peer === undefined) {
      peer = await openPeer(admin, scope);
      before = await calm(peer);
    }
    const { replies } = peer;
    replies.length = 0;
    const open = await peer.say(message).catch((error: Error) => error);
    const faults = open instanceof Error ? [open.message] : replies.flatMap(faultsOf);
    for (const { ok, problem } of replies) count(options, ok ? "frame taken" : `frame ${problem?.status}`);
    if (open === true && replies.every(({ ok }) => !ok)) {
      const after = await peer.look();
      if (after !== before) faults.push(`refused, and changed ${before} to ${after}`);
    } else if (open === true) before = await calm(peer);
    if (open !== true || faults.length > 0) {
      peer.end();
      peer = undefined;
    }
    options.progress?.();
    return faults;
  });
  peer?.end();
  return failure;
}

function count({ figures }: RoundOptions, what: string): void {
  figures.byStatus[what] = (figures.byStatus[what] ?? 0) + 1;
}

function faultsOf({ ok, problem }: Frame): string[] {
  if (ok === true) return [];
  const { status, code, detail, errors } = (problem ?? {}) as Partial<Problem>;
  if (status === undefined || code === undefined || !detail) return ["a frame refused without a problem"];
  if (status >= 500) return [`${code}: ${detail}`];
  const named = errors !== undefined && errors.length > 0 && errors.every(({ message }) => message !== "");
  return status === 400 && !named ? [`no field is named: ${detail}`] : [];
}

async function openPeer(admin: Api, scope: Scope): Promise<Peer> {
  const agent = await admin.register({ maxConcurrency: tasksOfAgent, leaseSeconds: 3600 });
  const tasks: string[] = [];
  for (let n = 0; n < tasksOfAgent; n++)
    tasks.push((await admin.delegate({ agentId: agent.id, retry: { maxAttempts: 1 } })).id);
  const socket = new WebSocket(`${admin.url.replace(/^http/, "ws")}/v1/agents/${agent.id}/connect`, "waggle.v1", {
    headers: { authorization: `Bearer ${agent.token}` },
  });
  const replies: Frame[] = [];
  let heard = (_: boolean) => {};
  let assigned = 0;
  socket.on("message", (data: Buffer) => {
    for (const frame of [JSON.parse(data.toString())].flat() as Frame[]) {
      if (frame.op === "assign") assigned += frame.assignments?.length ?? 0;
      if (frame.op !== "reply") continue;
      if (frame.re !== sentinel) replies.push(frame);
      heard(frame.re === sentinel);
    }
  });
  socket.on("error", () => {});
  const closed = new Promise<number>((resolve) => socket.once("close", resolve));
  await new Promise((resolve) => socket.once("open", resolve));
  socket.send('{"op":"hello"}');
  await eventually("its tasks are pushed", () => assigned === tasksOfAgent, { everyMs: 2 });
  return {
    replies,
    async say({ text, binary }) {
      const due = repliesDue(text);
      // Frames are done side by side: the last one asked for may be answered first.
      const done = new Promise<true>((resolve) => {
        let asked = false;
        heard = (last) => {
          asked ||= last;
          if (asked && replies.length >= due) resolve(true);
        };
      });
      const own = text.replaceAll(/@([0-2])/g, (_, n: string) => tasks[Number(n)] as string);
      socket.send(binary ? Buffer.from(own) : own);
      socket.send(JSON.stringify({ op: "heartbeat", re: sentinel }));
      let answered = () => {};
      const hung = new Promise<never>((_, reject) => {
        answered = overdue(reject);
      });
      const end = await Promise.race([done, closed, hung]).finally(answered);
      if (end !== true && !codes.has(end)) throw new Error(`closed with ${end}`);
      return end === true;
    },
    async look() {
      const seen = await Promise.all(tasks.map((id) => Task.get(scope, id)));
      const { lastSeenAt: _, leaseExpiresAt: __, ...state } = await Agent.get(scope, agent.id);
      return JSON.stringify([seen, state]);
    },
    end: () => socket.terminate(),
  };
}

/** Each frame has one reply; a message that is refused as a whole, too. */
function repliesDue(text: string): number {
  try {
    return Frames.readFrames(text).length;
  } catch {
    return 1;
  }
}

/** What is seen once nothing follows any more from what was said. */
async function calm(peer: Peer): Promise<string> {
  let last = await peer.look();
  const look = async () => {
    const now = await peer.look();
    const same = now === last;
    last = now;
    return same && now;
  };
  return eventually("nothing changes any more", look, { everyMs: 5 });
}
