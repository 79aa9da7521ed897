import { setTimeout as sleep } from "node:timers/promises";
import { loadPeer, peerVersion } from "./peers.ts";
import { openPool, pollFor, preparePostgres, startPostgres } from "./postgres.ts";
import type { AgentShape, Connection, Payload, Result, System } from "./system.ts";

/** The part of pg-boss that is measured. */
interface Boss {
  on(event: "error", listener: (error: Error) => void): void;
  start(): Promise<unknown>;
  stop(options: object): Promise<void>;
  createQueue(name: string, options: object): Promise<void>;
  send(name: string, data: Payload): Promise<string | null>;
  getJobById(name: string, id: string): Promise<{ state: string; output: Result } | null>;
  fetch(name: string, options: object): Promise<{ id: string; data: Payload }[]>;
  complete(name: string, id: string, output: Result): Promise<unknown>;
  work(
    name: string,
    options: object,
    handler: (jobs: readonly { id: string; data: Payload }[]) => Promise<unknown>,
  ): Promise<string>;
}
interface PgBoss {
  PgBoss: new (options: object) => Boss;
}

const nodeAtLeast = 22;
const queue = "bench";

async function open({ url }: Connection, options: object): Promise<Boss> {
  const { PgBoss } = await loadPeer<PgBoss>("pg-boss");
  const boss = new PgBoss({ connectionString: url, useListenNotify: true, ...options });
  boss.on("error", (error) => {
    process.stderr.write(`pg-boss: ${error.message}\n`);
  });
  await boss.start();
  return boss;
}

/** `work` with a batch of one sleeps after each task, so an agent of one slot takes and completes by itself. */
async function takeOneByOne(boss: Boss, handler: (payload: Payload) => Promise<Result>, stopped: () => boolean) {
  while (!stopped()) {
    const [job] = await boss.fetch(queue, { batchSize: 1 });
    if (job === undefined) await sleep(100);
    else await boss.complete(queue, job.id, await handler(job.data));
  }
}

/** Several batches at a time, as a batch is given back only when all of it is done. */
const batches = ({ concurrency }: AgentShape) => (concurrency % 4 === 0 ? 4 : concurrency % 2 === 0 ? 2 : 1);

export const pgBoss: System = {
  id: "pg-boss",
  label: `pg-boss ${peerVersion("pg-boss")}, PostgreSQL`,
  durability: "on disk",
  notes: [
    "no HTTP: the client speaks to PostgreSQL itself",
    "no call that waits for a result: W2 reads the job by id every 2 ms",
    "LISTEN/NOTIFY on; batches of 25 by four workers in W3; agents of one slot fetch and complete by themselves in W4, every 100 ms when idle",
    "W5: jobs expire after 5 s instead of 15 min, looked for each second instead of each minute",
    "no fair shares",
  ],
  nodeAtLeast,
  prepare: async () => preparePostgres(nodeAtLeast),
  start: startPostgres,

  async connect(connection, shapes) {
    const boss = await open(connection, { max: 32, supervise: false, schedule: false });
    const pool = await openPool(connection.url);
    const expireInSeconds = shapes[0]?.leaseSeconds;
    await boss.createQueue(queue, {
      retryLimit: 3,
      retryDelay: 1,
      retryBackoff: true,
      notify: true,
      ...(expireInSeconds === undefined ? {} : { expireInSeconds }),
    });
    const read = async (id: string) => {
      const job = await boss.getJobById(queue, id);
      return job?.state === "completed" ? job.output : undefined;
    };
    const submit = async (payload: Payload) => {
      const id = await boss.send(queue, payload);
      if (id === null) throw new Error("pg-boss took no job");
      return id;
    };
    return {
      submit,
      run: async (payload) => pollFor(read, await submit(payload)),
      read,
      async completed() {
        const text = `select count(*)::int as n from pgboss.job where name = '${queue}' and state = 'completed'`;
        return (await pool.query<{ n: number }>(text)).rows[0]?.n ?? 0;
      },
      async close() {
        await Promise.all([boss.stop({ graceful: false }), pool.end()]);
      },
    };
  },

  async agents(connection, shape, handler) {
    const supervised = shape.leaseSeconds ? { superviseIntervalSeconds: 1, monitorIntervalSeconds: 1 } : {};
    const boss = await open(connection, { max: 25, ...supervised });
    let stopped = false;
    if (shape.concurrency === 1) {
      for (let agent = 0; agent < shape.agents; agent++) {
        void takeOneByOne(boss, handler, () => stopped).catch((error: Error) => {
          process.stderr.write(`pg-boss: ${error.stack}\n`);
        });
      }
    } else {
      const localConcurrency = batches(shape);
      const options = {
        localConcurrency,
        batchSize: shape.concurrency / localConcurrency,
        burstWhenBatchFull: true,
        perJobResults: true,
        pollingIntervalSeconds: 0.5,
        notifyPollingIntervalSeconds: 0.5,
      };
      await boss.work(queue, options, (jobs) =>
        Promise.all(jobs.map(async ({ id, data }) => ({ id, status: "completed", output: await handler(data) }))),
      );
    }
    return {
      async close() {
        stopped = true;
        await boss.stop({ graceful: false });
      },
    };
  },
};
