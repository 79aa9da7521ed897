import { get, type IncomingMessage } from "node:http";
import { connect } from "node:net";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { eventually, good, startApi, type TestApi, unique } from "./support.ts";

let api: TestApi;
beforeAll(async () => {
  api = await startApi();
});

interface Event {
  readonly id: number;
  readonly event: string;
  readonly data: { sequence: number; type: string; taskId?: string };
}
interface Stream {
  readonly response: IncomingMessage;
  readonly events: Event[];
  readonly ended: Promise<void>;
  until(fits: (events: Event[]) => boolean): Promise<Event[]>;
  close(): void;
}
const open: Stream[] = [];
afterEach(() => {
  for (const stream of open.splice(0)) stream.close();
});

function follow(path: string, key: string, headers: Record<string, string> = {}, url = api.url): Promise<Stream> {
  return new Promise((resolve, reject) => {
    const request = get(
      url + path,
      { agent: false, headers: { authorization: `Bearer ${key}`, accept: "text/event-stream", ...headers } },
      (response) => {
        const events: Event[] = [];
        let rest = "";
        response.setEncoding("utf8").on("data", (chunk) => {
          const blocks = (rest + chunk).split("\n\n");
          rest = blocks.pop() as string;
          for (const block of blocks) {
            const fields = new Map(
              block.split("\n").map((line) => line.split(/: (.*)/s).slice(0, 2) as [string, string]),
            );
            if (!fields.has("data")) continue;
            const data = JSON.parse(fields.get("data") as string);
            events.push({ id: Number(fields.get("id")), event: fields.get("event") as string, data });
          }
        });
        const stream: Stream = {
          response,
          events,
          ended: new Promise((done) => response.on("end", done).on("error", () => done())),
          until: (fits) => eventually(() => (fits(events) ? events : undefined)),
          close: () => request.destroy(),
        };
        open.push(stream);
        resolve(stream);
      },
    );
    request.on("error", reject);
  });
}
const streams = async () => {
  const { text } = await api.call("GET", "/metrics");
  return Number(/^waggle_event_streams (\d+)$/m.exec(text)?.[1]);
};

describe("the event stream", () => {
  test("gives history, then live, without a gap or a repeat", async () => {
    const key = await api.key("admin", unique("s"));
    for (let i = 0; i < 5; i++) await api.task({}, key);
    const stream = await follow("/v1/events", key);
    expect(stream.response.headers["content-type"]).toBe("text/event-stream");
    expect(stream.response.headers["cache-control"]).toContain("no-store");
    for (let i = 0; i < 5; i++) await api.task({}, key);
    const events = await stream.until((all) => all.filter(({ event }) => event === "task.created").length === 10);
    expect(events.map(({ id }) => id)).toEqual(events.map((_, i) => i + 1));
    expect(events.every(({ id, event, data }) => data.sequence === id && data.type === event)).toBe(true);
  });

  test("goes on after Last-Event-ID, which holds over `after`", async () => {
    const key = await api.key("admin", unique("l"));
    for (let i = 0; i < 4; i++) await api.task({}, key);
    const all = await (await follow("/v1/events", key)).until((events) => events.length >= 4);
    const rest = await follow("/v1/events?after=0", key, { "last-event-id": "2" });
    const [first] = await rest.until((events) => events.length >= all.length - 2);
    expect(first?.id).toBe(3);
    const unfit = await api.call("GET", "/v1/events", {
      key,
      headers: { accept: "text/event-stream", "last-event-id": "x" },
    });
    expect([unfit.status, unfit.body.errors[0].path]).toEqual([400, "Last-Event-ID"]);
  });

  test("says at once that a number beyond the end is of another log, and where this one begins", async () => {
    const key = await api.key("admin", unique("m"));
    const { id } = await api.task({}, key);
    const { items } = good(200, await api.call("GET", "/v1/events", { key }));
    const last = items.at(-1).sequence;
    const open = (path: string, after: number) =>
      api.call("GET", path, { key, headers: { accept: "text/event-stream", "last-event-id": String(after) } });
    for (const path of ["/v1/events", `/v1/tasks/${id}/events`])
      for (const after of [last + 1, 10 ** 14]) {
        const { status, body } = await open(path, after);
        expect([status, body.code, body.firstSequence]).toEqual([410, "event.gone", 1]);
      }
    // Who looks for the end finds it.
    expect(good(200, await api.call("GET", `/v1/events?after=${last + 1}`, { key })).items).toEqual([]);
    const live = await follow(`/v1/events?after=${last}`, key);
    await api.task({}, key);
    const [first] = await live.until((events) => events.length > 0);
    expect(first?.id).toBe(last + 1);
  });

  test("gives the types asked for, and those of one task", async () => {
    const key = await api.key("admin", unique("f"));
    const noise = await api.task({}, key);
    const { id } = await api.task({}, key);
    const ended = await follow("/v1/events?types=task.cancelled,agent.*", key);
    const own = await follow(`/v1/tasks/${id}/events`, key);
    for (const task of [noise.id, id]) good(200, await api.call("POST", `/v1/tasks/${task}/cancel`, { key }));
    await api.agent({}, key);
    const some = await ended.until((events) => events.length >= 3);
    expect([...new Set(some.map(({ event }) => event))].sort()).toEqual(["agent.registered", "task.cancelled"]);
    const mine = await own.until((events) => events.some(({ event }) => event === "task.cancelled"));
    expect(new Set(mine.map(({ data }) => data.taskId))).toEqual(new Set([id]));
    const listed = good(200, await api.call("GET", `/v1/tasks/${id}/events`, { key })).items;
    expect(listed).toEqual(mine.map(({ data }) => data));
  });

  test.each([
    ["text/event-stream;q=0", "application/json"],
    ["application/json, text/event-stream;q=0.5", "application/json"],
    ["*/*", "application/json"],
    ["application/json;q=0.5, Text/Event-Stream", "text/event-stream"],
    ["application/json, text/event-stream", "text/event-stream"],
  ])("is what Accept: %s does or does not ask for", async (accept, type) => {
    const { response } = await follow("/v1/events", await api.key("reader", unique("a")), { accept });
    expect(response.headers["content-type"]).toBe(type);
  });

  test("frees what it holds when the client leaves", async () => {
    await eventually(async () => ((await streams()) === 0 ? true : undefined));
    const key = await api.key("reader", unique("c"));
    const all = await Promise.all(Array.from({ length: 20 }, () => follow("/v1/events", key)));
    expect(await streams()).toBe(20);
    for (const stream of all) stream.close();
    await eventually(async () => ((await streams()) === 0 ? true : undefined));
  });

  test("reads on only as fast as the client takes", async () => {
    const key = await api.key("admin", unique("b"));
    const name = "n".repeat(128);
    for (let i = 0; i < 30; i++) {
      const tasks = Array.from({ length: 100 }, () => ({ type: name }));
      good(207, await api.call("POST", "/v1/tasks/batch", { key, body: { tasks } }));
    }
    await eventually(async () => {
      const { items } = good(200, await api.call("GET", "/v1/events?after=2999&limit=1", { key }));
      return items.length > 0 || undefined;
    });
    const { hostname, port } = new URL(api.url);
    const socket = connect(Number(port), hostname);
    socket.write(
      `GET /v1/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nAuthorization: Bearer ${key}\r\n\r\n`,
    );
    await new Promise<void>((resolve) => socket.once("data", () => resolve()));
    socket.pause();
    // The others are served meanwhile, and it gets all of it once it reads.
    expect((await api.call("GET", "/v1/status", { key })).status).toBe(200);
    let text = "";
    socket.setEncoding("utf8").on("data", (chunk) => {
      text += chunk;
    });
    socket.resume();
    await eventually(() => (/^id: 3000$/m.test(text) ? true : undefined));
    socket.destroy();
  });
});

describe("a long poll", () => {
  test("for work ends when its agent goes away, and the work goes to another", async () => {
    const key = await api.key("admin", unique("p"));
    const agent = await api.agent({}, key);
    const gone = new AbortController();
    const poll = fetch(`${api.url}/v1/agents/${agent.id}/lease`, {
      method: "POST",
      headers: { authorization: `Bearer ${agent.token}`, "content-type": "application/json" },
      body: '{"waitSeconds":20}',
      signal: gone.signal,
    }).catch(() => undefined);
    const idle = async () => good(200, await api.call("GET", `/v1/agents/${agent.id}`, { key })).agent.lastSeenAt;
    await eventually(idle);
    gone.abort();
    await poll;
    const other = await api.agent({}, key);
    const next = api.lease(other);
    const { id } = await api.task({}, key);
    expect((await next).task.id).toBe(id);
  });

  test("for a task answers when the time is up", async () => {
    const { id } = await api.task({ role: "nobody" });
    const from = performance.now();
    const reply = await api.call("GET", `/v1/tasks/${id}?waitSeconds=0.2`);
    expect(good(200, reply).task.status).toBe("queued");
    expect(performance.now() - from).toBeGreaterThan(190);
  });
});
