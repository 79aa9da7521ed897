import type { Assignment } from "@waggle/sdk";
import { WebSocket } from "ws";
import { type Problem, remote, type TestAgent } from "./api.ts";
import { eventually } from "./eventually.ts";

/** What the server sends, loosely: each test looks at the part it is about. */
export interface Frame {
  readonly op: "welcome" | "assign" | "command" | "reply";
  readonly re?: number;
  readonly ok?: boolean;
  readonly agentId?: string;
  readonly assignments?: Assignment[];
  readonly cancel?: string[];
  readonly pause?: boolean;
  readonly drain?: boolean;
  readonly revoked?: string[];
  readonly stop?: boolean;
  readonly task?: { id: string; status: string; fence: number };
  readonly problem?: Problem;
  readonly commands?: { cancel: string[]; pause: boolean; drain: boolean };
}

export interface Socket {
  /** Everything received so far. */
  readonly frames: readonly Frame[];
  /** Assignments received and not yet taken. */
  take(): Promise<Assignment>;
  /** Assignments that lie here now. */
  readonly waiting: readonly Assignment[];
  /** Sends a frame and gives back its reply. */
  ask(frame: object): Promise<Frame>;
  sendText(text: string): void;
  until(what: string, look: (frame: Frame) => boolean): Promise<Frame>;
  /** The close code, once it is closed. */
  readonly closed: Promise<number>;
  close(): Promise<void>;
  /** Ends the connection without a word. */
  drop(): void;
}

/** Opens the agent's socket; `hello` is sent and `welcome` received when it resolves. */
export async function connect(
  agent: TestAgent,
  holding?: readonly { taskId: string; fence: number }[],
): Promise<Socket> {
  const url = `${agent.api.url}/v1/agents/${agent.id}/connect`;
  const headers = { authorization: `Bearer ${agent.token}` };
  // A server that takes no connections itself says where to go.
  const told = remote ? await fetch(url, { headers, redirect: "manual" }) : undefined;
  await told?.body?.cancel();
  const address = told?.headers.get("location") ?? url.replace(/^http/, "ws");
  const socket = new WebSocket(address, "waggle.v1", { headers });
  const frames: Frame[] = [];
  const waiting: Assignment[] = [];
  let next = 1;
  socket.on("message", (data: Buffer) => {
    for (const frame of [JSON.parse(data.toString())].flat() as Frame[]) {
      frames.push(frame);
      if (frame.op === "assign") waiting.push(...(frame.assignments ?? []));
    }
  });
  const closed = new Promise<number>((resolve) => socket.once("close", resolve));
  await new Promise<void>((resolve, reject) => {
    socket.once("open", () => resolve());
    socket.once("error", reject);
  });
  // From here on an error shows as the close that follows it.
  socket.on("error", () => {});
  const until: Socket["until"] = (what, look) => eventually(what, () => frames.find(look), { everyMs: 2 });
  socket.send(JSON.stringify({ op: "hello", ...(holding ? { holding } : {}) }));
  await until("the server says welcome", ({ op }) => op === "welcome");
  return {
    frames,
    waiting,
    take: () => eventually("an assignment is pushed", () => waiting.shift(), { everyMs: 2 }),
    ask(frame) {
      const re = next++;
      socket.send(JSON.stringify({ ...frame, re }));
      return until(`the reply to ${JSON.stringify(frame)}`, (reply) => reply.op === "reply" && reply.re === re);
    },
    sendText: (text) => socket.send(text),
    until,
    closed,
    async close() {
      socket.close();
      await closed;
    },
    drop: () => socket.terminate(),
  };
}
