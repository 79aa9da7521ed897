import type { IncomingMessage } from "node:http";
import { connect } from "node:net";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import { eventually, good, startApi, type TestApi, unique } from "./support.ts";

let api: TestApi;
beforeAll(async () => {
  api = await startApi();
});

// biome-ignore lint/suspicious/noExplicitAny: each test knows which frame it waits for
type Frame = any;
interface Peer {
  readonly ws: WebSocket;
  readonly frames: Frame[];
  readonly messages: string[];
  readonly closed: Promise<{ code: number; reason: string }>;
  send(...frames: object[]): void;
  /** The first frame that fits, awaited and taken out. */
  next(fits: (frame: Frame) => boolean): Promise<Frame>;
  ask(frame: object): Promise<Frame>;
}
const peers: WebSocket[] = [];
afterEach(() => {
  for (const ws of peers.splice(0)) ws.terminate();
});

function dial(
  agent: { id: string; token: string },
  headers: Record<string, string> = { authorization: `Bearer ${agent.token}` },
): Peer {
  const ws = new WebSocket(`${api.url.replace("http", "ws")}/v1/agents/${agent.id}/connect`, ["waggle.v1"], {
    headers,
  });
  return peer(ws);
}
function peer(ws: WebSocket): Peer {
  peers.push(ws);
  const frames: Frame[] = [];
  const messages: string[] = [];
  ws.on("error", () => {});
  ws.on("message", (data) => {
    messages.push(data.toString());
    frames.push(...[JSON.parse(data.toString())].flat());
  });
  let re = 1000;
  const self: Peer = {
    ws,
    frames,
    messages,
    closed: new Promise((resolve) => {
      ws.on("close", (code, reason) => resolve({ code, reason: reason.toString() }));
    }),
    send: (...all) => ws.send(JSON.stringify(all.length === 1 ? all[0] : all)),
    next: (fits) =>
      eventually(() => {
        const at = frames.findIndex(fits);
        return at < 0 ? undefined : frames.splice(at, 1)[0];
      }),
    ask(frame) {
      const mine = ++re;
      self.send({ ...frame, re: mine });
      return self.next((answer) => answer.op === "reply" && answer.re === mine);
    },
  };
  return self;
}
async function join(agent: { id: string; token: string }, hello: object = {}): Promise<Peer> {
  const self = dial(agent);
  await new Promise((resolve, reject) => self.ws.once("open", resolve).once("error", reject));
  self.send({ op: "hello", ...hello });
  await self.next(({ op }) => op === "welcome");
  return self;
}
/** A tenant of its own, so that no other test's tasks come. */
async function fleet(options: object = {}) {
  const key = await api.key("admin", unique("w"));
  return { key, agent: await api.agent({ maxConcurrency: 10, ...options }, key) };
}

describe("an agent on its WebSocket", () => {
  test("is welcomed first, given work, and heard", async () => {
    const { key, agent } = await fleet();
    const early = await api.task({ input: { n: 1 } }, key);
    const self = await join(agent);
    expect(self.messages[0]).toMatch(/^(\[)?\{"op":"welcome"/);
    const { assignments } = await self.next(({ op }) => op === "assign");
    expect(assignments[0].task).toMatchObject({ id: early.id, input: { n: 1 } });
    const on = { taskId: early.id, fence: assignments[0].fence };
    expect(await self.ask({ op: "start", ...on })).toMatchObject({
      ok: true,
      task: { id: early.id, status: "running", fence: on.fence },
    });
    expect(await self.ask({ op: "progress", ...on, progress: { percent: 5 }, details: { at: 1 } })).toMatchObject({
      ok: true,
      commands: { cancel: [], pause: false, drain: false },
    });
    self.ws.send(`{"op":"complete","re":7,"taskId":"${early.id}","fence":${on.fence},"result":{"__proto__":1e400}}`);
    expect(await self.next(({ re }) => re === 7)).toEqual({
      op: "reply",
      re: 7,
      ok: true,
      task: { id: early.id, status: "completed", fence: on.fence },
    });
    expect((await api.call("GET", `/v1/tasks/${early.id}`, { key })).text).toContain('"result":{"__proto__":1e400}');
  });

  test("is let in with the id of its request, which the problems of its frames carry too", async () => {
    const { agent } = await fleet();
    const self = dial(agent, { authorization: `Bearer ${agent.token}`, "x-request-id": "mine" });
    const open = new Promise((resolve) => self.ws.once("open", resolve));
    const { headers } = await new Promise<IncomingMessage>((resolve) => self.ws.once("upgrade", resolve));
    expect(headers["x-request-id"]).toBe("mine");
    expect(headers["server-timing"]).toMatch(/^app;dur=\d+\.\d\d$/);
    await open;
    expect(await self.ask({ op: "dance" })).toMatchObject({ ok: false, problem: { status: 400, requestId: "mine" } });
  });

  test("is answered once for each frame of a list, and frames of one task are done in order", async () => {
    const { key, agent } = await fleet({ maxConcurrency: 50 });
    const self = await join(agent);
    const count = 50;
    const tasks = Array.from({ length: count }, () => ({ type: "a" }));
    good(207, await api.call("POST", "/v1/tasks/batch", { key, body: { tasks } }));
    const given = new Map<string, number>();
    while (given.size < count) {
      const { assignments } = await self.next(({ op }) => op === "assign");
      for (const { task, fence } of assignments) given.set(task.id, fence);
    }
    const list = [...given].flatMap(([taskId, fence], i) => [
      { op: "start", re: i * 2, taskId, fence },
      { op: "complete", re: i * 2 + 1, taskId, fence, result: i },
    ]);
    const before = self.messages.length;
    self.send(...list);
    await eventually(() => (self.frames.length >= count * 2 ? true : undefined));
    expect(self.frames.every(({ ok }) => ok)).toBe(true);
    expect(self.frames.map(({ re }) => re).sort((a, b) => a - b)).toEqual(list.map(({ re }) => re));
    expect(self.messages.length - before).toBeLessThan(count);
  });

  test("hears of a cancel, and fails, releases and beats", async () => {
    const { key, agent } = await fleet();
    const self = await join(agent);
    const made = [await api.task({}, key), await api.task({ retry: { maxAttempts: 1 } }, key), await api.task({}, key)];
    const fences = new Map<string, number>();
    while (fences.size < 3) {
      const { assignments } = await self.next(({ op }) => op === "assign");
      for (const { task, fence } of assignments) fences.set(task.id, fence);
    }
    const [one, two, three] = made.map(({ id }) => ({ taskId: id, fence: fences.get(id) as number }));
    expect((await self.ask({ op: "start", ...one })).ok).toBe(true);
    good(200, await api.call("POST", `/v1/tasks/${one?.taskId}/cancel`, { key }));
    expect((await self.next(({ op, cancel }) => op === "command" && cancel)).cancel).toEqual([one?.taskId]);
    expect((await self.ask({ op: "heartbeat" })).commands.cancel).toEqual([one?.taskId]);
    const failed = await self.ask({ op: "fail", ...two, error: { code: "broken", message: "no" } });
    expect(failed).toMatchObject({ ok: true, task: { status: "failed" } });
    expect(await self.ask({ op: "pause" })).toMatchObject({ ok: true });
    expect((await self.ask({ op: "release", ...three, reason: "busy" })).ok).toBe(true);
    const path = `/v1/agents/${agent.id}`;
    expect(good(200, await api.call("GET", path, { key })).agent.status).toBe("paused");
    expect(await self.ask({ op: "resume" })).toMatchObject({ ok: true });
  });

  test("keeps its connection after a bad frame, and learns what was bad", async () => {
    const { agent } = await fleet();
    const self = await join(agent);
    for (const [frame, status, path] of [
      [{ op: "dance" }, 400, "op"],
      [{ op: "complete", taskId: "x", fence: 1, colour: 1 }, 400, "colour"],
      [{ op: "start", taskId: 7, fence: 1 }, 400, "taskId"],
      [{ op: "start", taskId: "tsk_unknown", fence: 1 }, 404, undefined],
      [{ op: "start", taskId: "\0", fence: 1 }, 400, "taskId"],
      [{ op: "hello" }, 400, "op"],
    ] as const) {
      const { ok, problem } = await self.ask(frame);
      expect([ok, problem.status]).toEqual([false, status]);
      if (path) expect(problem.errors[0].path).toBe(path);
    }
    self.ws.send(`{"op":"complete","re":1,"taskId":"x","fence":1,"result":"\\ud800"}`);
    expect((await self.next(({ op }) => op === "reply")).problem.errors[0].path).toBe("result");
    self.ws.send("7");
    expect((await self.next(({ op }) => op === "reply")).ok).toBe(false);
    expect((await self.ask({ op: "heartbeat" })).ok).toBe(true);
  });

  test("is answered once for a message of more frames than one may have, however many they are", async () => {
    const { agent } = await fleet();
    const self = await join(agent);
    self.ws.send(`[${Array(500_000).fill(0).join(",")}]`);
    const { problem } = await self.next(({ op }) => op === "reply");
    expect([problem.code, problem.detail]).toEqual(["request.invalid", "expected at most 1000 frames, not 500000"]);
    expect((await self.ask({ op: "heartbeat" })).ok).toBe(true);
  });

  test.each([
    ["not JSON", (ws: WebSocket) => ws.send("{"), 1007],
    ["binary", (ws: WebSocket) => ws.send(Buffer.from("{}")), 1003],
    ["larger than 1 MiB", (ws: WebSocket) => ws.send(`"${"x".repeat(1024 * 1024)}"`), 1009],
  ])("is closed when it sends what is %s", async (_, send, code) => {
    const { agent } = await fleet();
    const self = await join(agent);
    send(self.ws);
    expect((await self.closed).code).toBe(code);
  });

  test("says hello before anything else", async () => {
    const { agent } = await fleet();
    const self = dial(agent);
    await new Promise((resolve) => self.ws.once("open", resolve));
    expect((await self.ask({ op: "heartbeat" })).problem.code).toBe("request.invalid");
    self.send({ op: "hello" });
    await self.next(({ op }) => op === "welcome");
  });

  test("gives way to its next connection, which keeps what it names", async () => {
    const { key, agent } = await fleet();
    const first = await join(agent);
    const { id } = await api.task({}, key);
    const { assignments } = await first.next(({ op }) => op === "assign");
    const on = { taskId: id, fence: assignments[0].fence };
    await first.ask({ op: "start", ...on });
    const second = await join(agent, { holding: [on] });
    expect(await first.closed).toMatchObject({ code: 1000 });
    expect(await second.ask({ op: "complete", ...on })).toMatchObject({ ok: true, task: { status: "completed" } });
  });

  test("leaves with stop: it is answered, closed, and its work goes to others", async () => {
    const { key, agent } = await fleet();
    const self = await join(agent);
    const { id } = await api.task({}, key);
    await self.next(({ op }) => op === "assign");
    expect((await self.ask({ op: "stop" })).ok).toBe(true);
    expect((await self.closed).code).toBe(1000);
    expect(good(200, await api.call("GET", `/v1/agents/${agent.id}`, { key })).agent.status).toBe("stopped");
    expect(good(200, await api.call("GET", `/v1/tasks/${id}`, { key })).task.status).toBe("queued");
  });

  test("is told and closed when it is removed or replaced", async () => {
    const { key, agent } = await fleet();
    const self = await join(agent);
    good(200, await api.call("DELETE", `/v1/agents/${agent.id}?mode=force`, { key }));
    expect(await self.next(({ op, stop }) => op === "command" && stop)).toMatchObject({ reason: expect.any(String) });
    expect((await self.closed).code).toBe(1000);
  });
});

test("one that does not read has all its work as soon as it reads on, the last of it without inputs", async () => {
  const { key, agent } = await fleet({ maxConcurrency: 60 });
  const self = await join(agent);
  self.ws.pause();
  const input = "x".repeat(900_000);
  const ids = new Set<string>();
  // Above what it may leave unread and what the kernel holds for it.
  for (let n = 0; n < 60; n++) ids.add((await api.task({ input }, key)).id);
  self.ws.resume();
  let omitted = 0;
  while (ids.size > 0) {
    const { assignments } = await self.next(({ op }) => op === "assign");
    for (const { task, inputOmitted } of assignments) {
      expect(ids.delete(task.id)).toBe(true);
      expect(task.input).toBe(inputOmitted ? undefined : input);
      if (inputOmitted) omitted++;
    }
  }
  expect(omitted).toBeGreaterThan(0);
  expect((await self.ask({ op: "heartbeat" })).ok).toBe(true);
}, 60_000);

describe("a WebSocket is refused", () => {
  const answered = (self: Peer) =>
    new Promise<{ status: number; code: string }>((resolve) => {
      self.ws.once("unexpected-response", (_, response) => {
        let text = "";
        response.on("data", (chunk) => {
          text += chunk;
        });
        response.on("end", () => resolve({ status: response.statusCode ?? 0, code: JSON.parse(text).code }));
      });
    });

  test("without a key, with a wrong one, with another's, for another agent", async () => {
    const { key, agent } = await fleet();
    const other = await api.agent({}, key);
    const as = (token: string) => ({ authorization: `Bearer ${token}` });
    expect(await answered(dial(agent, {}))).toEqual({ status: 401, code: "auth.required" });
    expect(await answered(dial(agent, as("wga_nobody")))).toEqual({ status: 401, code: "auth.required" });
    expect(await answered(dial(agent, as(key)))).toEqual({ status: 403, code: "auth.forbidden" });
    expect(await answered(dial(agent, as(other.token)))).toEqual({ status: 404, code: "agent.not_found" });
    expect(await answered(dial({ id: "x%00", token: agent.token }))).toEqual({ status: 404, code: "agent.not_found" });
  });

  test("elsewhere", async () => {
    const ws = new WebSocket(`${api.url.replace("http", "ws")}/v1/tasks`, { headers: { authorization: api.adminKey } });
    expect(await answered(peer(ws))).toEqual({ status: 404, code: "route.not_found" });
  });

  test("by a subprotocol, the token is taken too and not repeated", async () => {
    const { agent } = await fleet();
    const url = `${api.url.replace("http", "ws")}/v1/agents/${agent.id}/connect`;
    const self = peer(new WebSocket(url, ["waggle.v1", `bearer.${agent.token}`]));
    await new Promise((resolve, reject) => self.ws.once("open", resolve).once("error", reject));
    expect(self.ws.protocol).toBe("waggle.v1");
    self.send({ op: "hello" });
    await self.next(({ op }) => op === "welcome");
  });
});

test("a peer that reads nothing is not sent more and more", { timeout: 60_000 }, async () => {
  const { agent } = await fleet();
  const { hostname, port } = new URL(api.url);
  const socket = connect(Number(port), hostname);
  socket.write(
    `GET /v1/agents/${agent.id}/connect HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n` +
      `Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: waggle.v1\r\nAuthorization: Bearer ${agent.token}\r\n\r\n`,
  );
  await new Promise<void>((resolve) => socket.once("data", () => resolve()));
  socket.pause();
  const frame = (text: string) => {
    const header = Buffer.alloc(8);
    header[0] = 0x81;
    header[1] = 0x80 | 126;
    header.writeUInt16BE(text.length, 2);
    return Buffer.concat([header, Buffer.from(text)]);
  };
  const hello = frame(`{"op":"hello"${" ".repeat(200)}}`);
  const bad = frame(`[${Array(1000).fill('{"op":"x"}').join(",")}]`);
  socket.write(hello);
  // Each of these asks for some 500 KB of answers, of which none is read.
  const sent = 800;
  for (let i = 0; i < sent; i++) socket.write(bad);
  const read = async () => {
    const { text } = await api.call("GET", "/metrics");
    return Number(/^waggle_agent_frames_total\{direction="in"\} (\d+)$/m.exec(text)?.[1]);
  };
  let before = -1;
  let still = 0;
  const stalledAt = await eventually(async () => {
    const now = await read();
    still = now === before ? still + 1 : 0;
    before = now;
    return still === 20 ? now : undefined;
  }, 50);
  expect(stalledAt).toBeGreaterThan(0);
  expect(stalledAt).toBeLessThan(sent * 1000);
  expect(socket.writableLength).toBeGreaterThan(0);
  socket.destroy();
});
