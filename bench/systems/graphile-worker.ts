import { loadPeer, peerVersion } from "./peers.ts";
import { openPool, pollFor, preparePostgres, startPostgres } from "./postgres.ts";
import type { Payload, Result, System } from "./system.ts";

/** The part of graphile-worker that is measured. */
interface Utils {
  addJob(name: string, payload: Payload, options: object): Promise<{ id: string }>;
  withPgClient<T>(callback: (client: { query<Row>(text: string): Promise<{ rows: Row[] }> }) => Promise<T>): Promise<T>;
  forceUnlockWorkers(ids: readonly string[]): Promise<void>;
  release(): Promise<void>;
}
interface Helpers {
  readonly job: { readonly id: string };
  query(text: string, values: readonly unknown[]): Promise<unknown>;
}
interface GraphileWorker {
  Logger: new (factory: () => (level: string, message: string) => void) => object;
  runMigrations(options: object): Promise<void>;
  makeWorkerUtils(options: object): Promise<Utils>;
  run(options: object): Promise<{ stop(): Promise<void> }>;
}

const nodeAtLeast = 22;

async function load() {
  const worker = await loadPeer<GraphileWorker>("graphile-worker");
  const logger = new worker.Logger(() => (level, message) => {
    if (level === "error") process.stderr.write(`graphile-worker: ${message}\n`);
  });
  return { worker, logger };
}

/** A killed worker's jobs are locked for four hours, and no setting shortens it. */
async function unlockAll({ worker, logger }: Awaited<ReturnType<typeof load>>, url: string): Promise<void> {
  const utils = await worker.makeWorkerUtils({ connectionString: url, logger });
  const text = "select distinct locked_by from graphile_worker._private_jobs where locked_by is not null";
  const { rows } = await utils.withPgClient((client) => client.query<{ locked_by: string }>(text));
  if (rows.length > 0) await utils.forceUnlockWorkers(rows.map((row) => row.locked_by));
  await utils.release();
}

export const graphileWorker: System = {
  id: "graphile-worker",
  label: `graphile-worker ${peerVersion("graphile-worker")}, PostgreSQL`,
  durability: "on disk",
  notes: [
    "no HTTP: the client speaks to PostgreSQL itself",
    "keeps no results: the task writes its own into a table of ours, in a transaction of its own",
    "no call that waits for a result: W2 reads that table every 2 ms",
    "localQueue of 101 jobs and batched completion in W3",
    "W5: the new process unlocks the dead one's jobs by hand, which would else be locked for four hours",
    "no fair shares",
  ],
  nodeAtLeast,
  prepare: async () => preparePostgres(nodeAtLeast),
  start: startPostgres,

  async connect({ url }) {
    const { worker, logger } = await load();
    await worker.runMigrations({ connectionString: url, logger });
    const utils = await worker.makeWorkerUtils({ connectionString: url, maxPoolSize: 32, logger });
    const pool = await openPool(url);
    await pool.query("create table results (id bigint primary key, result json not null)");
    const read = async (id: string) =>
      (await pool.query<{ result: Result }>("select result from results where id = $1", [id])).rows[0]?.result;
    const submit = async (payload: Payload) => (await utils.addJob("bench", payload, { maxAttempts: 4 })).id;
    return {
      submit,
      run: async (payload) => pollFor(read, await submit(payload)),
      read,
      async completed() {
        // Its result is stored and its job is gone.
        const text = `select count(*)::int as n from results
          where not exists (select 1 from graphile_worker._private_jobs where _private_jobs.id = results.id)`;
        return (await pool.query<{ n: number }>(text)).rows[0]?.n ?? 0;
      },
      async close() {
        await Promise.all([utils.release(), pool.end()]);
      },
    };
  },

  async agents({ url }, shape, handler) {
    const loaded = await load();
    const { worker, logger } = loaded;
    if (shape.leaseSeconds !== undefined) await unlockAll(loaded, url);
    const taskList = {
      async bench(payload: Payload, { job, query }: Helpers) {
        const result = await handler(payload);
        await query("insert into results (id, result) values ($1, $2) on conflict (id) do nothing", [job.id, result]);
      },
    };
    const many = shape.concurrency > 1;
    const batched = {
      localQueue: { size: shape.concurrency + 1 },
      completeJobBatchDelay: 0,
      failJobBatchDelay: 0,
    };
    const settings = {
      connectionString: url,
      concurrentJobs: shape.concurrency,
      maxPoolSize: many ? 20 : 2,
      pollInterval: 500,
      ...(many ? batched : {}),
    };
    const options = { taskList, logger, noHandleSignals: true, parsedCronItems: [], preset: { worker: settings } };
    const runners = await Promise.all(Array.from({ length: shape.agents }, () => worker.run(options)));
    return {
      async close() {
        await Promise.all(runners.map((runner) => runner.stop()));
      },
    };
  },
};
