import { afterAll, beforeAll, expect, test } from "vitest";
import { WebSocket } from "ws";
import { openServer, remote, type TestServer } from "../support/api.ts";
import { eventually } from "../support/eventually.ts";
import { connect } from "../support/socket.ts";

let server: TestServer;
beforeAll(async () => {
  server = await openServer();
});
afterAll(() => server?.stop());

const requires = [{ capability: "x" }];
const worker = async (more: object = {}) => {
  const api = await server.tenant();
  return { api, agent: await api.register({ capabilities: [{ name: "x" }], maxConcurrency: 2, ...more }) };
};

test("work is pushed up to the free slots, and the next comes when one ends", async () => {
  const { api, agent } = await worker();
  const ids: string[] = [];
  for (let n = 0; n < 3; n++) {
    const { id } = await api.delegate({ requires, input: { n } });
    ids.push(id);
    if (remote) await eventually("it has its place", async () => (await api.task(id)).waiting);
  }
  const socket = await connect(agent);
  const [first, second] = [await socket.take(), await socket.take()];
  // Processes that serve an agent at the same moment each take one, and may swap neighbours of one priority.
  const given = [first.task.id, second.task.id];
  if (!remote) expect(given).toEqual(ids.slice(0, 2));
  expect(first.task.input).toEqual({ n: ids.indexOf(first.task.id) });
  const { fence, task } = first;
  expect(await socket.ask({ op: "start", taskId: task.id, fence })).toMatchObject({
    ok: true,
    task: { status: "running" },
  });
  expect(socket.waiting).toEqual([]);
  const done = await socket.ask({ op: "complete", taskId: task.id, fence, result: { fine: true } });
  expect(done).toMatchObject({ ok: true, task: { id: task.id, status: "completed" } });
  expect([...given, (await socket.take()).task.id].sort()).toEqual([...ids].sort());
  expect((await api.task(task.id)).result).toEqual({ fine: true });
  await socket.close();
});

test("a stale fence is answered with task.lease_lost, as over HTTP", async () => {
  const { api, agent } = await worker();
  await api.delegate({ requires });
  const socket = await connect(agent);
  const { task, fence } = await socket.take();
  const stale = await socket.ask({ op: "complete", taskId: task.id, fence: fence + 1 });
  expect(stale).toMatchObject({ ok: false, problem: { status: 409, code: "task.lease_lost" } });
  expect(await socket.ask({ op: "complete", taskId: task.id, fence })).toMatchObject({ ok: true });
  await socket.close();
});

test("a cancel reaches the agent on its socket within a second", async () => {
  const { api, agent } = await worker();
  await api.delegate({ requires });
  const socket = await connect(agent);
  const { task, fence } = await socket.take();
  await socket.ask({ op: "start", taskId: task.id, fence });
  const began = performance.now();
  await api.post(`/v1/tasks/${task.id}/cancel`, { reason: "enough" });
  await socket.until(
    "the cancel is pushed",
    ({ op, cancel }) => op === "command" && cancel?.includes(task.id) === true,
  );
  expect(performance.now() - began).toBeLessThan(1000);
  await socket.ask({ op: "fail", taskId: task.id, fence, error: { code: "cancelled", message: "" } });
  expect((await api.task(task.id)).status).toBe("cancelled");
  await socket.close();
});

test("pause and drain by an operator reach the agent on its socket", async () => {
  const { api, agent } = await worker();
  const socket = await connect(agent);
  await api.post(`/v1/agents/${agent.id}/pause`);
  await socket.until("the pause is pushed", ({ op, pause }) => op === "command" && pause === true);
  await api.post(`/v1/agents/${agent.id}/resume`);
  await socket.until("the resume is pushed", ({ op, pause }) => op === "command" && pause === false);
  await api.post(`/v1/agents/${agent.id}/drain`);
  await socket.until("the drain is pushed", ({ op, drain }) => op === "command" && drain === true);
  await socket.close();
});

test("an agent that comes back goes on with what it holds, and is pushed again what it had not begun", async () => {
  const { api, agent } = await worker();
  await api.delegate({ requires });
  const before = await connect(agent);
  const begun = await before.take();
  await before.ask({ op: "start", taskId: begun.task.id, fence: begun.fence });
  before.drop();
  await before.closed;
  const later = await api.delegate({ requires });
  const after = await connect(agent, [{ taskId: begun.task.id, fence: begun.fence }]);
  expect((await after.take()).task.id).toBe(later.id);
  const done = await after.ask({ op: "complete", taskId: begun.task.id, fence: begun.fence, result: "kept" });
  expect(done).toMatchObject({ ok: true, task: { status: "completed" } });
  await after.close();
});

test("what a returning agent no longer holds is given out again", async () => {
  const { api, agent } = await worker();
  await api.delegate({ requires });
  const before = await connect(agent);
  const begun = await before.take();
  await before.ask({ op: "start", taskId: begun.task.id, fence: begun.fence });
  before.drop();
  await before.closed;
  const after = await connect(agent, []);
  const again = await after.take();
  expect(again.task.id).toBe(begun.task.id);
  expect(again.fence).toBeGreaterThan(begun.fence);
  await after.close();
});

test("a second connection of one agent ends the first", async () => {
  const { agent } = await worker();
  const first = await connect(agent);
  const second = await connect(agent);
  await first.closed;
  expect(await second.ask({ op: "heartbeat" })).toMatchObject({ ok: true });
  await second.close();
});

test.each([
  ["idle", 0],
  ["at work", 1],
])("an agent removed by force is told to stop, and its connection ends: %s", async (_, tasks) => {
  const { api, agent } = await worker();
  const socket = await connect(agent);
  for (let n = 0; n < tasks; n++) {
    await api.delegate({ requires });
    await socket.take();
  }
  await api.call("DELETE", `/v1/agents/${agent.id}?mode=force`);
  await socket.until("the stop is pushed", ({ op, stop }) => op === "command" && stop === true);
  await socket.closed;
});

test("work that is fenced off is revoked on the socket", async () => {
  const { api, agent } = await worker();
  await api.delegate({ requires, timeouts: { runSeconds: 0.5 }, retry: { maxAttempts: 1 } });
  const socket = await connect(agent);
  const { task, fence } = await socket.take();
  await socket.ask({ op: "start", taskId: task.id, fence });
  await socket.until("it is revoked", ({ revoked }) => revoked?.includes(task.id) === true);
  await api.taskWhen(task.id, "failed");
  await socket.close();
});

test("many frames in one message are each answered once", async () => {
  const { api, agent } = await worker({ maxConcurrency: 20 });
  for (let n = 0; n < 10; n++) await api.delegate({ requires });
  const socket = await connect(agent);
  const held = [];
  for (let n = 0; n < 10; n++) held.push(await socket.take());
  const frames = held.map(({ task, fence }, index) => ({ op: "complete", taskId: task.id, fence, re: 1000 + index }));
  socket.sendText(JSON.stringify(frames));
  const replies = await eventually("every frame is answered", () => {
    const seen = socket.frames.filter(({ op, re }) => op === "reply" && (re ?? 0) >= 1000);
    return seen.length >= 10 && seen;
  });
  expect(replies.map(({ re }) => re).sort()).toEqual(frames.map(({ re }) => re));
  expect(replies.every(({ ok }) => ok)).toBe(true);
  await socket.close();
});

test("a frame that breaks a limit is refused by its own number, and those beside it are done", async () => {
  const { api, agent } = await worker();
  await api.delegate({ requires });
  await api.delegate({ requires });
  const socket = await connect(agent);
  const held = [await socket.take(), await socket.take()];
  const complete = ({ task, fence }: (typeof held)[number], re: number, result: string) =>
    `{"op":"complete","re":${re},"taskId":"${task.id}","fence":${fence},"result":${result}}`;
  const [first, second] = held as [(typeof held)[number], (typeof held)[number]];
  const deep = `${"[".repeat(70)}${"]".repeat(70)}`;
  socket.sendText(
    `[${complete(first, 101, '"\\ud800"')}, ${complete(second, 102, '"fine]"')},${complete(first, 103, deep)}]`,
  );
  socket.sendText(complete(first, 104, deep));
  const reply = (re: number) => socket.until(`${re} is answered`, (frame) => frame.re === re);
  for (const re of [101, 103, 104])
    expect(await reply(re)).toMatchObject({ ok: false, problem: { code: "request.invalid" } });
  expect((await reply(101)).problem?.errors?.[0]?.path).toBe("result");
  expect(await reply(102)).toMatchObject({ ok: true });
  expect((await api.task(second.task.id)).result).toBe("fine]");
  expect(await socket.ask({ op: "complete", taskId: first.task.id, fence: first.fence })).toMatchObject({ ok: true });
  await socket.close();
});

test("an agent is given as much at once as it has slots for, however large the inputs", async () => {
  const { api, agent } = await worker({ maxConcurrency: 40 });
  const inputs = new Map<string, string>();
  for (let n = 0; n < 40; n++) {
    const input = `${n}`.padEnd(1_000_000, ".");
    inputs.set((await api.delegate({ requires, input })).id, input);
  }
  const socket = await connect(agent);
  const got = [];
  while (got.length < 40) got.push(await socket.take());
  expect(new Set(got.map(({ task }) => task.id))).toEqual(new Set(inputs.keys()));
  for (const { task, inputOmitted } of got) {
    const { input } = inputOmitted ? await api.task(task.id) : task;
    expect(input === inputs.get(task.id)).toBe(true);
  }
  expect(await socket.ask({ op: "heartbeat" })).toMatchObject({ ok: true });
  await socket.close();
}, 60_000);

test("progress and results keep their exact text", async () => {
  const { api, agent } = await worker();
  const { id } = await api.delegate({ requires });
  const socket = await connect(agent);
  const { fence } = await socket.take();
  const exact = '{"a":1.0,"__proto__":{"x":1},"n":12345678901234567890}';
  socket.sendText(`{"op":"complete","re":1,"taskId":"${id}","fence":${fence},"result":${exact}}`);
  await socket.until("the reply", ({ op, re }) => op === "reply" && re === 1);
  expect((await api.get(`/v1/tasks/${id}`)).text).toContain(`"result":${exact}`);
  await socket.close();
});

test.each([
  ["text that is no JSON", "{"],
  ["an unknown operation", '{"op":"dance","re":7}'],
  ["a field that is not known", '{"op":"heartbeat","re":7,"more":1}'],
  ["a fence that is text", '{"op":"start","re":7,"taskId":"tsk_x","fence":"1"}'],
])("%s is answered with a problem or a close, and the server lives on", async (_, text) => {
  const { agent } = await worker();
  const socket = await connect(agent);
  socket.sendText(text);
  const refused = socket.until(
    "a refusal",
    ({ op, ok, problem }) => op === "reply" && ok === false && problem?.status === 400,
  );
  await Promise.race([refused, socket.closed]);
  expect((await server.admin.as(undefined).get("/health")).status).toBe(200);
  await Promise.race([socket.close(), socket.closed]);
  await refused.catch(() => {});
});

test("the socket is refused to another agent's token, to a client's key and to nobody's", async () => {
  const { api, agent } = await worker();
  const other = await api.register();
  const status = (key: string | undefined) =>
    new Promise<number>((resolve, reject) => {
      const headers = key === undefined ? {} : { authorization: `Bearer ${key}` };
      const url = `${api.url.replace(/^http/, "ws")}/v1/agents/${agent.id}/connect`;
      const socket = new WebSocket(url, "waggle.v1", { headers });
      socket.once("unexpected-response", (_, response) => resolve(response.statusCode ?? 0));
      socket.once("open", () => reject(new Error("it was let in")));
      socket.once("error", reject);
    });
  expect(await status(undefined)).toBe(401);
  expect(await status("nonsense")).toBe(401);
  expect([403, 404]).toContain(await status(other.token));
  expect([403, 404]).toContain(await status(api.key));
});
