import { Agent as HttpAgent, request } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { type Client, createClient } from "@waggle/sdk";
import { eventually } from "../test/support/eventually.ts";
import { launchScript, memoryOf } from "../test/support/process.ts";
import { type Server, startServer } from "../test/support/server.ts";
import { startFleet } from "./fleet.ts";
import { inLanes } from "./lanes.ts";
import { percentile } from "./stats.ts";
import { payload } from "./systems/system.ts";
import { waggle } from "./systems/waggle.ts";

/* What bounds a server: how it is while much is deleted, under a constant load, under a flood, and with much stored. */

const help = `npm run bench -- limits [part] [options]

  retire   submits while --tasks finished tasks (default 100,000) are deleted
  plateau  file and memory under --rate tasks/s (default 300) for --minutes (default 5), kept for a minute
  flood    --tasks submits (default 200,000) over --connections (default 1,000), each tried until it is acknowledged
  waiting  submits beside --tasks waiting tasks (default 1,000,000) in 1,000 lanes, and the time to open
  stored   submits beside --tasks finished tasks (default 2,000,000), and the time to open`;

interface Settings {
  readonly tasks: number | undefined;
  readonly minutes: number;
  readonly rate: number;
  readonly connections: number;
}

const task = (n: number, more: object = {}) => ({ type: "bench", input: payload(n), ...more });
const round = (value: number, digits = 2) => Number(value.toFixed(digits));
const mib = (bytes: number) => round(bytes / 2 ** 20, 0);
const say = (part: string, figures: object) => console.log(JSON.stringify({ part, ...figures }));

/** Submits one after the other while `going`; what they took in ms. */
async function submits(client: Client, going: (done: number) => boolean) {
  const samples: number[] = [];
  while (going(samples.length)) {
    const began = performance.now();
    await client.tasks.create(task(samples.length, { requires: [{ capability: "nobody" }] }));
    samples.push(performance.now() - began);
    await sleep(2);
  }
  return {
    submits: samples.length,
    p50: round(percentile(samples, 0.5)),
    p99: round(percentile(samples, 0.99)),
    max: round(Math.max(...samples), 1),
  };
}

const countOf = async (client: Client, status: string): Promise<number> =>
  ((await client.status.get()) as { tasks: { byStatus: Record<string, number> } }).tasks.byStatus[status] ?? 0;

/** What the process has of its own, and what is resident of the file of the rows, which the kernel takes back when it needs to. */
function memory({ process: { pid } }: Server): { ownMiB: number; mappedMiB: number } {
  const mib = memoryOf(pid as number);
  return { ownMiB: round(mib("RssAnon"), 0), mappedMiB: round(mib("RssFile"), 0) };
}

const sizes = async (server: Server, client: Client) => {
  const { disk } = await client.status.get();
  return {
    ...memory(server),
    tableMiB: mib(disk?.tableBytes ?? 0),
    freeMiB: mib(disk?.freeBytes ?? 0),
    logMiB: mib(disk?.logBytes ?? 0),
  };
};

async function open(dataDir?: string) {
  const began = performance.now();
  const server = await startServer(dataDir === undefined ? {} : { dataDir });
  const client = createClient({ url: server.url, key: server.key });
  return { server, client, openMs: round(performance.now() - began, 0) };
}

const agents = (server: Server) =>
  startFleet(waggle("sdk"), { connection: { url: server.url, key: server.key } }, [
    { agents: 1, concurrency: 200, prefix: "pool" },
  ]);

/** Stores finished tasks while the server is away. */
async function fill(server: Server, tasks: number, ...how: string[]): Promise<void> {
  await server.process.end("SIGTERM");
  const filling = launchScript("bench/fill.ts", [server.dataDir, String(tasks), ...how]);
  await eventually("the tasks are stored", () => !filling.running, { seconds: 3600, everyMs: 500 });
  await server.restart();
}

async function retire({ tasks = 100_000 }: Settings): Promise<void> {
  const { server, client } = await open();
  await fill(server, tasks, "views");
  say("retire", { before: await submits(client, (count) => count < 3000), ...(await sizes(server, client)) });
  await client.retention.put({ taskSeconds: 60 });
  const began = performance.now();
  let left = tasks;
  const watch = (async () => {
    while (left > 0) {
      await sleep(1000);
      left = await countOf(client, "completed");
    }
  })();
  const during = await submits(client, () => left > 0);
  await watch;
  say("retire", {
    during,
    deleted: tasks,
    seconds: round((performance.now() - began) / 1000, 0),
    ...(await sizes(server, client)),
  });
  say("retire", { after: await submits(client, (count) => count < 3000) });
  client.close();
  await server.stop();
}

async function plateau({ minutes, rate }: Settings): Promise<void> {
  const { server, client } = await open();
  await client.retention.put({ taskSeconds: 60, eventSeconds: 60 });
  const fleet = await agents(server);
  const end = performance.now() + minutes * 60_000;
  let sent = 0;
  const load = (async () => {
    const began = performance.now();
    while (performance.now() < end) {
      const due = Math.min(100, Math.floor(((performance.now() - began) / 1000) * rate) - sent);
      if (due > 0) {
        sent += due;
        await client.tasks.createBatch(
          Array.from({ length: due }, (_, n) => task(n, { requires: [{ capability: "bench" }] })),
        );
      } else await sleep(10);
    }
  })();
  while (performance.now() < end) {
    await sleep(15_000);
    const left = await countOf(client, "completed");
    say("plateau", {
      at: round(minutes - (end - performance.now()) / 60_000),
      sent,
      kept: left,
      ...(await sizes(server, client)),
    });
  }
  await load;
  await fleet.end();
  client.close();
  await server.stop();
}

/** One submit by plain HTTP. */
const post = (server: Server, agent: HttpAgent, body: string) =>
  new Promise<{ status: number; id?: string }>((resolve) => {
    const headers = { authorization: `Bearer ${server.key}`, "content-type": "application/json" };
    const call = request(`${server.url}/v1/tasks`, { method: "POST", agent, headers }, (answer) => {
      let text = "";
      answer.on("data", (chunk) => {
        text += chunk;
      });
      answer.on("end", () =>
        resolve({ status: answer.statusCode ?? 0, ...(answer.statusCode === 201 && { id: JSON.parse(text).task.id }) }),
      );
    });
    call.on("error", () => resolve({ status: 0 }));
    call.end(body);
  });

async function flood({ tasks = 200_000, connections }: Settings): Promise<void> {
  const { server, client } = await open();
  const http = new HttpAgent({ keepAlive: true, maxSockets: connections });
  const acknowledged = new Set<string>();
  let refused = 0;
  let broken = 0;
  let peak = 0;
  const watch = setInterval(() => {
    peak = Math.max(peak, memory(server).ownMiB);
  }, 100);
  const idle = memory(server).ownMiB;
  const began = performance.now();
  await inLanes(tasks, connections, async (n) => {
    for (;;) {
      const { status, id } = await post(server, http, JSON.stringify(task(n)));
      if (id !== undefined) return acknowledged.add(id);
      if (status === 429) refused++;
      else broken++;
      await sleep(500 + Math.random() * 1000);
    }
  });
  const seconds = (performance.now() - began) / 1000;
  clearInterval(watch);
  http.destroy();
  let lost = 0;
  const ids = [...acknowledged];
  await inLanes(ids.length, 16, async (n) => {
    const found = await client.tasks.get(ids[n] as string).catch(() => undefined);
    if (!found) lost++;
  });
  const figures = { acknowledged: ids.length, queued: await countOf(client, "queued"), lost, refused, broken };
  say("flood", {
    connections,
    ...figures,
    perSecond: round(tasks / seconds, 0),
    idleMiB: idle,
    peakMiB: peak,
  });
  client.close();
  await server.stop();
  if (lost > 0) process.exitCode = 1;
}

const lanes = 1000;

async function waiting({ tasks = 1_000_000 }: Settings): Promise<void> {
  const { server, client } = await open();
  say("waiting", { stored: 0, ...(await submits(client, (count) => count < 3000)), ...(await sizes(server, client)) });
  const batch = (n: number) =>
    Array.from({ length: 100 }, (_, i) => task(i, { requires: [{ capability: `lane-${(n * 100 + i) % lanes}` }] }));
  await inLanes(tasks / 100, 4, (n) => client.tasks.createBatch(batch(n)));
  say("waiting", {
    stored: tasks,
    lanes,
    ...(await submits(client, (count) => count < 3000)),
    ...(await sizes(server, client)),
  });
  const began = performance.now();
  await server.restart();
  await client.tasks.create(task(0));
  const reopenMs = round(performance.now() - began, 0);
  say("waiting", {
    stored: tasks,
    reopenMs,
    ...(await submits(client, (count) => count < 3000)),
    ...(await sizes(server, client)),
  });
  client.close();
  await server.stop();
}

async function stored({ tasks = 2_000_000 }: Settings): Promise<void> {
  const { server, client } = await open();
  say("stored", { stored: 0, ...(await submits(client, (count) => count < 3000)), ...(await sizes(server, client)) });
  await fill(server, tasks);
  const began = performance.now();
  await server.restart();
  await client.tasks.create(task(0));
  const reopenMs = round(performance.now() - began, 0);
  say("stored", { stored: tasks, reopenMs, ...(await sizes(server, client)) });
  say("stored", {
    stored: tasks,
    ...(await submits(client, (count) => count < 3000)),
    ...(await sizes(server, client)),
  });
  client.close();
  await server.stop();
}

const parts: Readonly<Record<string, (settings: Settings) => Promise<void>>> = {
  retire,
  plateau,
  flood,
  waiting,
  stored,
};

export async function measureLimits(args: readonly string[]): Promise<void> {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      tasks: { type: "string" },
      minutes: { type: "string", default: "5" },
      rate: { type: "string", default: "300" },
      connections: { type: "string", default: "1000" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return console.log(help);
  const names = positionals.length > 0 ? positionals : Object.keys(parts);
  const settings = {
    tasks: values.tasks === undefined ? undefined : Number(values.tasks),
    minutes: Number(values.minutes),
    rate: Number(values.rate),
    connections: Number(values.connections),
  };
  for (const name of names) {
    const part = parts[name];
    if (part === undefined) throw new Error(`no part ${name}; there are ${Object.keys(parts).join(", ")}`);
    await part(settings);
  }
}
