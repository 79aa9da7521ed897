import { connect } from "node:net";
import { eventually } from "../../test/support/eventually.ts";
import { freePort, launch } from "../../test/support/process.ts";
import { installPackage, loadPeer, peerVersion, preparePeer, runs } from "./peers.ts";
import { type Client, type Payload, type Result, type System, serverOf } from "./system.ts";

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
const load = () => loadPeer<BullMQ>("bullmq");

const address = (url: string) => ({ host: "127.0.0.1", port: Number(new URL(url).port), maxRetriesPerRequest: null });
const complain = (error: Error) => {
  process.stderr.write(`bullmq: ${error.message}\n`);
};

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
  label: `BullMQ ${peerVersion("bullmq")}, Redis fsync ${appendfsync}`,
  durability: appendfsync === "always" ? "on disk" : "in memory, on disk within about a second",
  notes: [
    ...(appendfsync === "everysec"
      ? ["acknowledges before the task is on disk: a power cut may take the last second"]
      : []),
    "no HTTP: the client speaks to Redis itself",
    "W5: lockDuration and stalledInterval 5 s instead of 30",
    "no fair shares (groups belong to its paid edition)",
  ],
  prepare: async () => preparePeer() ?? installPackage("redis-server", () => runs("redis-server")),

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
    return serverOf({ url: `redis://127.0.0.1:${port}` }, open);
  },

  async connect({ url }): Promise<Client> {
    const { Queue, QueueEvents, Job } = await load();
    const queue = new Queue("bench", {
      connection: address(url),
      defaultJobOptions: { attempts: 3, backoff: { type: "exponential", delay: 1000 } },
    });
    const events = new QueueEvents("bench", { connection: address(url) });
    for (const part of [queue, events]) {
      part.on("error", complain);
      await part.waitUntilReady();
    }
    return {
      submit: async (payload) => (await queue.add("bench", payload)).id,
      run: async (payload) => (await queue.add("bench", payload)).waitUntilFinished(events, 30_000),
      read: async (id) => (await Job.fromId(queue, id))?.returnvalue,
      completed: () => queue.getCompletedCount(),
      close: async () => {
        await Promise.all([queue.close(), events.close()]);
      },
    };
  },

  async agents({ url }, shape, handler) {
    const { Worker } = await load();
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
