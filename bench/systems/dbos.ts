import { loadPeer, peerVersion } from "./peers.ts";
import { openPool, preparePostgres, startPostgres } from "./postgres.ts";
import type { AgentShape, Payload, Result, System } from "./system.ts";

/** The part of DBOS that is measured. */
interface Handle {
  readonly workflowID: string;
  getStatus(): Promise<{ status: string } | null>;
  getResult(options?: { pollingIntervalMs: number }): Promise<Result>;
}
interface Dbos {
  DBOS: {
    setConfig(config: object): void;
    launch(): Promise<void>;
    shutdown(): Promise<void>;
    registerQueue(name: string, options: object): Promise<unknown>;
    registerStep(step: (payload: Payload) => Promise<Result>, options: object): (payload: Payload) => Promise<Result>;
    registerWorkflow(workflow: (payload: Payload) => Promise<Result>, options: object): unknown;
  };
  DBOSClient: {
    create(options: object): Promise<{
      enqueue(options: object, payload: Payload): Promise<Handle>;
      retrieveWorkflow(id: string): Handle;
      destroy(): Promise<void>;
    }>;
  };
}
const load = () => loadPeer<Dbos>("@dbos-inc/dbos-sdk");

const queueName = "bench";
const complain = (...words: unknown[]) => {
  process.stderr.write(`dbos: ${words.map(String).join(" ")}\n`);
};
const logger = { debug() {}, info() {}, warn() {}, error: complain };

/** An executor is a process; its id is what a restart takes its work back by. */
const executorOf = ({ prefix, leaseSeconds }: AgentShape) => (leaseSeconds === undefined ? prefix : "crash");
const config = (url: string, executorID: string, listenQueues: readonly string[]) => ({
  name: "bench",
  systemDatabaseUrl: url,
  applicationVersion: "1",
  executorID,
  systemDatabasePoolSize: 20,
  listenQueues,
  logger,
});

export const dbos: System = {
  id: "dbos",
  label: `DBOS ${peerVersion("@dbos-inc/dbos-sdk")}, PostgreSQL`,
  durability: "on disk",
  notes: [
    "no HTTP: the client speaks to PostgreSQL itself",
    "queues polled each 10 ms and results each 2 ms, instead of each second",
    "W4: four executors of 25 slots, as an executor is a process",
    "W5: the new process has the dead one's executor id, without which nobody would take its work back",
    "fair shares not used",
  ],
  prepare: async () => preparePostgres(),
  start: startPostgres,

  async connect({ url }, shapes) {
    const { DBOS, DBOSClient } = await load();
    const pool = await openPool(url);
    // The first executor to start makes the tables.
    DBOS.setConfig(config(url, "setup", []));
    await DBOS.launch();
    const [shape] = shapes;
    const workerConcurrency = shape ? shape.agents * shape.concurrency : 1;
    await DBOS.registerQueue(queueName, { workerConcurrency, minPollingIntervalMs: 10 });
    await DBOS.shutdown();
    const settings = { systemDatabaseUrl: url, applicationName: "bench", systemDatabasePoolSize: 32, logger };
    const client = await DBOSClient.create(settings);
    const enqueue = (payload: Payload) => client.enqueue({ queueName, workflowName: "task" }, payload);
    return {
      submit: async (payload) => (await enqueue(payload)).workflowID,
      run: async (payload) => (await enqueue(payload)).getResult({ pollingIntervalMs: 2 }),
      async read(id) {
        const handle = client.retrieveWorkflow(id);
        return (await handle.getStatus())?.status === "SUCCESS" ? handle.getResult() : undefined;
      },
      async completed() {
        const text = `select count(*)::int as n from dbos.workflow_status where queue_name = '${queueName}' and status = 'SUCCESS'`;
        return (await pool.query<{ n: number }>(text)).rows[0]?.n ?? 0;
      },
      async close() {
        await Promise.all([client.destroy(), pool.end()]);
      },
    };
  },

  async agents({ url }, shape, handler) {
    const { DBOS } = await load();
    DBOS.setConfig(config(url, executorOf(shape), [queueName]));
    const step = DBOS.registerStep(handler, { name: "run", retriesAllowed: true, maxAttempts: 3 });
    DBOS.registerWorkflow((payload) => step(payload), { name: "task" });
    await DBOS.launch();
    return { close: () => DBOS.shutdown() };
  },
};
