import { spawnSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { eventually } from "../../test/support/eventually.ts";
import { freePort, launch } from "../../test/support/process.ts";
import { root } from "../../test/support/root.ts";
import { loadPeer, preparePeer } from "./peers.ts";
import { type Payload, type Result, type System, serverOf } from "./system.ts";

/** The part of Temporal's SDK that is measured. */
interface Handle {
  describe(): Promise<{ status: { name: string } }>;
  result(): Promise<Result>;
}
interface ClientSide {
  Connection: {
    connect(options: { address: string }): Promise<{
      workflowService: { registerNamespace(request: object): Promise<unknown> };
      close(): Promise<void>;
    }>;
  };
  Client: new (
    options: object,
  ) => {
    workflow: {
      start(name: string, options: object): Promise<{ workflowId: string }>;
      execute(name: string, options: object): Promise<Result>;
      getHandle(id: string): Handle;
      count(query: string): Promise<{ count: number }>;
    };
  };
}
interface Worker {
  run(): Promise<void>;
  shutdown(): void;
}
interface WorkerSide {
  NativeConnection: { connect(options: { address: string }): Promise<{ close(): Promise<void> }> };
  Runtime: { install(options: object): void };
  DefaultLogger: new (level: string) => object;
  Worker: { create(options: object): Promise<Worker> };
  bundleWorkflowCode(options: object): Promise<{ code: string }>;
}

const folder = join(root, "bench/peers/temporal");
const [, version = ""] = /go\.temporal\.io\/server v(\S+)/.exec(readFileSync(join(folder, "go.mod"), "utf8")) ?? [];
const program = join(folder, "bin", `temporal-server-${version}`);
const bundle = join(folder, "bin/workflow.js");
const namespace = "bench";
const taskQueue = "bench";

const go = (args: readonly string[], cwd?: string) =>
  spawnSync("go", args, { cwd, encoding: "utf8", maxBuffer: 2 ** 26 });

/** Its server is on no registry as a program, but its source is a Go module. */
function build(): string | undefined {
  if (existsSync(program)) return;
  if (go(["version"]).status !== 0) return "its server is built with Go 1.26 or later, which is not installed";
  console.error("bench: building Temporal's server, once; it takes a quarter of an hour or more");
  const { status, stderr } = go(["build", "-o", program, "go.temporal.io/server/cmd/server"], folder);
  if (status !== 0) return `its server could not be built (${stderr.trim().split("\n").at(-1)})`;
}

/** Once for all workers, as one does for production: they would else spend seconds on it when they start. */
async function bundleWorkflow(): Promise<string | undefined> {
  const { bundleWorkflowCode, DefaultLogger } = await loadPeer<WorkerSide>("@temporalio/worker");
  const options = { workflowsPath: join(folder, "workflow.mjs"), logger: new DefaultLogger("ERROR") };
  try {
    writeFileSync(bundle, (await bundleWorkflowCode(options)).code);
  } catch (error) {
    return `its workflow could not be bundled (${error instanceof Error ? error.message : error})`;
  }
}

/** Beside its defaults, all to its benefit. */
const dynamicConfig = {
  // One process gains nothing by four partitions of a queue, between which tasks and polls are passed on.
  "matching.numTaskqueueReadPartitions": [{ value: 1 }],
  "matching.numTaskqueueWritePartitions": [{ value: 1 }],
  // A worker that has done a step of a workflow gets the activity at once.
  "system.enableActivityEagerExecution": [{ value: true }],
  // How often it may be asked how many are completed: 10 times a second by default.
  "frontend.namespaceRPS.visibility": [{ value: 1000 }],
};

/** One process with its store in a file, as in development-sqlite-file.yaml of its repository: each write is synced. */
async function configure(dataDir: string): Promise<{ file: string; address: string }> {
  const ports = await Promise.all(Array.from({ length: 8 }, freePort));
  const store = {
    sql: {
      pluginName: "sqlite",
      databaseName: join(dataDir, "temporal.db"),
      connectAddr: "localhost",
      connectProtocol: "tcp",
      connectAttributes: { cache: "private", setup: "true", journal_mode: "wal", synchronous: "2" },
      maxConns: 1,
      maxIdleConns: 1,
    },
  };
  const names = ["frontend", "history", "matching", "worker"];
  const rpc = (at: number) => ({ grpcPort: ports[at * 2], membershipPort: ports[at * 2 + 1], bindOnLocalHost: true });
  const address = `127.0.0.1:${ports[0]}`;
  const dynamic = join(dataDir, "dynamic.yaml");
  const config = {
    log: { stdout: true, level: "error" },
    persistence: {
      defaultStore: "store",
      visibilityStore: "store",
      numHistoryShards: 1,
      datastores: { store },
    },
    global: { membership: { maxJoinDuration: "30s", broadcastAddress: "127.0.0.1" } },
    services: Object.fromEntries(names.map((name, at) => [name, { rpc: rpc(at) }])),
    clusterMetadata: {
      enableGlobalNamespace: false,
      failoverVersionIncrement: 10,
      masterClusterName: "active",
      currentClusterName: "active",
      clusterInformation: {
        active: { enabled: true, initialFailoverVersion: 1, rpcName: "frontend", rpcAddress: address },
      },
    },
    dcRedirectionPolicy: { policy: "noop" },
    dynamicConfigClient: { filepath: dynamic, pollInterval: "10s" },
  };
  // JSON is YAML.
  const file = join(dataDir, "temporal.yaml");
  writeFileSync(file, JSON.stringify(config));
  writeFileSync(dynamic, JSON.stringify(dynamicConfig));
  return { file, address };
}

async function connectTo(address: string) {
  const { Connection, Client } = await loadPeer<ClientSide>("@temporalio/client");
  const connection = await Connection.connect({ address });
  return { connection, workflow: new Client({ connection, namespace }).workflow };
}

export const temporal: System = {
  id: "temporal",
  label: `Temporal ${version.split(".").slice(0, 2).join(".")}, SQLite`,
  durability: "on disk",
  notes: [
    "by gRPC; its server is built from its Go module, one process with SQLite in a file (WAL, synchronous FULL: synced before it answers), which is its store for development",
    "one partition a queue instead of four, and eager activities on",
    "a task is a workflow of one activity; W2: starts it, then waits for its result by a long poll",
    "W4: 25 workers of one activity at a time in each process, and one more that runs the workflows",
    "startToCloseTimeout 5 s in all of the work: by it a dead worker is noticed (W5), and a task that a busy server took over a second to hand out and so lost",
    "W5: stickyQueueScheduleToStartTimeout 5 s instead of 10",
    "fair shares not used",
  ],
  prepare: async () => preparePeer() ?? build() ?? bundleWorkflow(),

  async start(dataDir) {
    const { file, address } = await configure(dataDir);
    const open = async () => {
      const server = launch(program, ["--config-file", file, "--allow-no-auth", "start"], { cwd: dataDir });
      await eventually(
        "temporal answers",
        async () => {
          if (!server.running) throw new Error(server.output());
          const { connection, workflow } = await connectTo(address);
          try {
            await connection.workflowService
              .registerNamespace({ namespace, workflowExecutionRetentionPeriod: { seconds: 86_400 } })
              .catch((error: Error) => {
                if (!/already exists/i.test(error.message)) throw error;
              });
            await workflow.count("");
            return true;
          } finally {
            await connection.close();
          }
        },
        { seconds: 60, everyMs: 50 },
      );
      return server;
    };
    return serverOf({ url: address }, open);
  },

  async connect({ url }) {
    const { connection, workflow } = await connectTo(url);
    const options = (payload: Payload) => ({ taskQueue, workflowId: randomUUID(), args: [payload] });
    return {
      submit: async (payload) => (await workflow.start("task", options(payload))).workflowId,
      run: (payload) => workflow.execute("task", options(payload)),
      async read(id) {
        const handle = workflow.getHandle(id);
        const status = await handle.describe().then(
          ({ status: { name } }) => name,
          (error: Error) => {
            if (error.name !== "WorkflowNotFoundError") throw error;
          },
        );
        return status === "COMPLETED" ? handle.result() : undefined;
      },
      completed: async () => (await workflow.count("ExecutionStatus = 'Completed'")).count,
      close: () => connection.close(),
    };
  },

  async agents({ url }, shape, handler) {
    const { NativeConnection, Runtime, DefaultLogger, Worker } = await loadPeer<WorkerSide>("@temporalio/worker");
    Runtime.install({ logger: new DefaultLogger("ERROR") });
    const workflows = {
      workflowBundle: { codePath: bundle },
      stickyQueueScheduleToStartTimeout: (shape.leaseSeconds ?? 10) * 1000,
    };
    const work = { activities: { run: handler }, maxConcurrentActivityTaskExecutions: shape.concurrency };
    const each = Array.from({ length: shape.agents }, () => work);
    const open = async (options: object) => {
      // Of its own for each: one connection takes no two workers of the same queue.
      const connection = await NativeConnection.connect({ address: url });
      const worker = await Worker.create({ connection, namespace, taskQueue, ...options });
      return { connection, worker, running: worker.run() };
    };
    const opened = await Promise.all(
      (shape.agents === 1 ? [{ ...workflows, ...work }] : [workflows, ...each]).map(open),
    );
    return {
      async close() {
        for (const { worker } of opened) worker.shutdown();
        await Promise.all(opened.map(({ running }) => running));
        await Promise.all(opened.map(({ connection }) => connection.close()));
      },
    };
  },
};
