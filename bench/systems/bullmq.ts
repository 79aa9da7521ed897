import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { connect } from "node:net";
import { join } from "node:path";
import { eventually } from "../../test/support/eventually.ts";
import { freePort, launch } from "../../test/support/process.ts";
import { root } from "../../test/support/root.ts";
import type { Client, Payload, Result, System } from "./system.ts";

const folder = join(root, "bench/peers");

/** The part of BullMQ that is measured; its own types come only with the package. */
interface Job {
  readonly id: string;
  readonly data: Payload;
  readonly returnvalue?: Result;
  waitUntilFinished(events: object, ttl?: number): Promise<Result>;
}
interface Closable {
  on(event: "error", listener: (error: Error) => void): void;
  waitUntilReady(): Promise<unknown>;
  close(force?: boolean): Promise<void>;
}
interface Queue extends Closable {
  add(name: string, data: Payload): Promise<Job>;
  getCompletedCount(): Promise<number>;
}
interface BullMQ {
  Queue: new (name: string, options: object) => Queue;
  QueueEvents: new (name: string, options: object) => Closable;
  Worker: new (name: string, handler: (job: Job) => Promise<Result>, options: object) => Closable;
  Job: { fromId(queue: Queue, id: string): Promise<Job | undefined> };
}
const load = () => createRequire(join(folder, "package.json"))("bullmq") as BullMQ;

const address = (url: string) => ({ host: "127.0.0.1", port: Number(new URL(url).port), maxRetriesPerRequest: null });
const complain = (error: Error) => {
  process.stderr.write(`bullmq: ${error.message}\n`);
};

const works = (program: string) => {
  try {
    execFileSync(program, ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
};

/** Installs the pinned packages of bench/peers and, where apt may be used, the server. */
function prepare(): string | undefined {
  const wanted = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")).dependencies.bullmq;
  const manifest = join(folder, "node_modules/bullmq/package.json");
  if (!existsSync(manifest) || JSON.parse(readFileSync(manifest, "utf8")).version !== wanted) {
    console.error(`bench: installing bullmq ${wanted} into bench/peers`);
    execFileSync("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"], { cwd: folder, stdio: "ignore" });
  }
  if (works("redis-server")) return;
  if (process.getuid?.() !== 0) return "redis-server is not installed (apt-get install redis-server)";
  console.error("bench: installing redis-server by apt");
  try {
    execFileSync("apt-get", ["update", "-qq"], { stdio: "ignore" });
    execFileSync("apt-get", ["install", "-y", "-qq", "--no-install-recommends", "redis-server"], { stdio: "ignore" });
  } catch (error) {
    return `redis-server could not be installed: ${error instanceof Error ? error.message : error}`;
  }
  return works("redis-server") ? undefined : "redis-server was installed but does not start";
}

const answers = (port: number) =>
  new Promise<true>((resolve, reject) => {
    const socket = connect(port, "127.0.0.1", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", reject);
  });

/** @param appendfsync Redis flushes its log before each reply (`always`) or once a second (`everysec`). */
export const bullmq = (appendfsync: "always" | "everysec"): System => ({
  id: `bullmq-${appendfsync}`,
  label: `BullMQ 6.7, Redis fsync ${appendfsync}`,
  durability: appendfsync === "always" ? "on disk" : "in memory; on disk within about a second",
  prepare: async () => prepare(),

  async start(dataDir) {
    const port = await freePort();
    const settings = {
      port,
      bind: "127.0.0.1",
      dir: dataDir,
      save: "",
      daemonize: "no",
      appendonly: "yes",
      appendfsync,
      "maxmemory-policy": "noeviction",
    };
    const args = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, String(value)]);
    const open = async () => {
      const server = launch("redis-server", args);
      await eventually("redis answers", () => answers(port), { everyMs: 2 });
      return server;
    };
    let server = await open();
    return {
      connection: { url: `redis://127.0.0.1:${port}` },
      get process() {
        return server;
      },
      async restart() {
        await server.end("SIGKILL");
        server = await open();
      },
      stop: () => server.end(),
    };
  },

  async connect({ url }): Promise<Client> {
    const { Queue, QueueEvents, Job } = load();
    const queue = new Queue("bench", {
      connection: address(url),
      defaultJobOptions: { attempts: 3, backoff: { type: "exponential", delay: 1000 } },
    });
    const events = new QueueEvents("bench", { connection: address(url) });
    for (const part of [queue, events]) {
      part.on("error", complain);
      await part.waitUntilReady();
    }
    const jobs = new Map<string, Job>();
    return {
      async submit(payload) {
        const job = await queue.add("bench", payload);
        jobs.set(job.id, job);
        return job.id;
      },
      wait: async (id) => jobs.get(id)?.waitUntilFinished(events, 30_000),
      read: async (id) => (await Job.fromId(queue, id))?.returnvalue,
      completed: () => queue.getCompletedCount(),
      close: async () => {
        await Promise.all([queue.close(), events.close()]);
      },
    };
  },

  async agents({ url }, shape, handler) {
    const { Worker } = load();
    const lock = shape.leaseSeconds
      ? { lockDuration: shape.leaseSeconds * 1000, stalledInterval: shape.leaseSeconds * 1000 }
      : {};
    const workers = Array.from(
      { length: shape.agents },
      () =>
        new Worker("bench", (job) => handler(job.data), {
          connection: address(url),
          concurrency: shape.concurrency,
          ...lock,
        }),
    );
    for (const worker of workers) worker.on("error", complain);
    await Promise.all(workers.map((worker) => worker.waitUntilReady()));
    return {
      close: async () => {
        await Promise.all(workers.map((worker) => worker.close(true)));
      },
    };
  },
});
