import { buildClient, type Client, type ClientOptions, commonPlatform } from "../client.ts";
import { findConnection } from "../discover.ts";
import { WaggleConnectionError } from "../error.ts";
import { httpTransport, maxWaits } from "../http.ts";
import { longestTimerMs } from "../retry.ts";
import type { Agent, Capability, RegisterAgent } from "../types.ts";
import type { AgentConnection } from "./connection.ts";
import { stopOnSignal } from "./signals.ts";
import { createWork, type Handler, type Log } from "./work.ts";

export interface AgentOptions {
  /** Unique in the tenant. An agent that starts again under its name takes the place of the one before. */
  name: string;
  /** What it can do. Default: the names of its handlers. */
  capabilities?: (string | Capability)[];
  /** By task type; `"*"` takes every other type. */
  handlers: Record<string, Handler>;
  /** Tasks at a time. Default 1. */
  concurrency?: number;
  role?: string;
  type?: string;
  description?: string;
  labels?: Record<string, string | number>;
  metadata?: unknown;
  /** How long the server waits for a sign of life before it gives the work to others. Default 60. */
  leaseSeconds?: number;
  /** `reject`: `start()` throws `agent.exists` when the name is taken. Default `replace`. */
  onConflict?: "replace" | "reject";
  url?: string;
  key?: string;
  /** A client to register and delegate with, instead of `url` and `key`. */
  client?: Client;
  /** `auto`: a WebSocket, or long polls where none gets through. */
  transport?: "auto" | "socket" | "poll";
  /**
   * On SIGTERM and SIGINT: drain, finish, stop, exit 0; a second signal exits at once. A program that listens to the signal
   * itself is left to exit by itself. Default true.
   */
  handleSignals?: boolean;
  /** How long `stop()` waits for what runs, before it gives it back. Default 30. */
  graceSeconds?: number;
  log?: Log;
}

export interface RunningAgent {
  readonly name: string;
  /** Once started. */
  readonly id: string | undefined;
  readonly state: "idle" | "starting" | "running" | "draining" | "stopped";
  /** Handlers that run now. */
  readonly running: number;
  readonly client: Client;
  /** Registers and connects. Resolves once the server takes it for ready. */
  start(): Promise<Agent>;
  /** No new work. Resolves when all it had is finished and recorded. */
  drain(): Promise<void>;
  /** Drains for at most `graceSeconds`, gives back what still runs, and leaves. */
  stop(options?: { graceSeconds?: number }): Promise<void>;
  /** Resolves with the reason once it has stopped, by itself or by the server. */
  readonly stopped: Promise<string>;
}

/** So long an agent that was stopped as it connected tries to say so. */
const leaveMs = 2_000;

const words = (fields?: Record<string, unknown>) =>
  fields && Object.keys(fields).length > 0
    ? ` ${Object.entries(fields)
        .map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`)
        .join(" ")}`
    : "";
const line = (level: string) => (message: string, fields?: Record<string, unknown>) => {
  process.stderr.write(`${new Date().toISOString()} ${level} ${message}${words(fields)}\n`);
};
const stderrLog: Log = { debug: () => {}, info: line("info"), warn: line("warn"), error: line("error") };

/**
 * A process that takes tasks from Waggle.
 * @example
 * const agent = createAgent({
 *   name: "summariser-1",
 *   handlers: { summarise: async (task, { signal }) => summarise(task.input.url, { signal }) },
 * });
 * await agent.start();
 */
export function createAgent(options: AgentOptions): RunningAgent {
  const concurrency = options.concurrency ?? 1;
  const leaseSeconds = options.leaseSeconds ?? 60;
  const log = options.log ?? stderrLog;
  const nodeClient = (given: ClientOptions) =>
    buildClient(given, {
      ...commonPlatform,
      resolve: findConnection,
      transport: httpTransport,
      afterTurn: process.nextTick,
      waits: maxWaits,
    });
  const client =
    options.client ??
    nodeClient({
      ...(options.url !== undefined && { url: options.url }),
      ...(options.key !== undefined && { key: options.key }),
    });
  let state: RunningAgent["state"] = "idle";
  let id: string | undefined;
  let connection: AgentConnection | undefined;
  let own: Client | undefined;
  let registering = false;
  let stopping: Promise<void> | undefined;
  let offSignals = () => {};
  const waiters = new Set<() => void>();
  let stoppedWith: (reason: string) => void = () => {};
  const stopped = new Promise<string>((resolve) => {
    stoppedWith = resolve;
  });

  const work = createWork({
    handlers: options.handlers,
    log,
    now: () => performance.now(),
    startAfterMs: 5,
    delegate: (task) => client.tasks.delegate(task),
    changed() {
      connection?.freed();
      if (work.size === 0) for (const waiter of waiters) waiter();
    },
  });
  const empty = (patienceMs?: number) =>
    new Promise<void>((resolve) => {
      if (work.size === 0) return resolve();
      const done = () => {
        waiters.delete(done);
        clearTimeout(late);
        resolve();
      };
      const late = patienceMs === undefined ? undefined : setTimeout(done, Math.min(patienceMs, longestTimerMs));
      waiters.add(done);
    });

  const gone = (reason: string) => {
    if (state === "stopped") return;
    // With this the process may end, and nobody else says why.
    if (!stopping && state !== "starting") log.warn(`the server ended this agent: ${reason}`);
    state = "stopped";
    work.close();
    offSignals();
    own?.close();
    // What a call that was cut off has registered would stay: whoever began it sees to that.
    if (!options.client && !registering) client.close();
    stoppedWith(reason);
  };

  const connect = async (agent: Agent, token: string): Promise<AgentConnection> => {
    const shared = {
      id: agent.id,
      work,
      log,
      leaseSeconds: agent.leaseSeconds,
      now: () => performance.now(),
      ended: gone,
    };
    const mode = options.transport ?? "auto";
    if (mode !== "poll") {
      const { socketConnection, socketImpossible } = await import("./socket.ts");
      let refused = false;
      const socket = socketConnection({
        ...shared,
        url: client.url,
        token,
        random: Math.random,
        // Before the first welcome it is `open` that tells.
        ended: (reason) => (refused || state === "starting" ? undefined : gone(reason)),
      });
      connection = socket;
      try {
        await socket.open();
        return socket;
      } catch (error) {
        refused = true;
        if (mode === "socket" || !socketImpossible(error)) throw error;
        log.info("WebSockets do not get through; asking for work by long poll");
      }
    }
    const { pollConnection } = await import("./poll.ts");
    own = nodeClient({ url: client.url, key: token });
    const poll = pollConnection({ ...shared, client: own, concurrency });
    connection = poll;
    await poll.open();
    return poll;
  };

  const agent: RunningAgent = {
    name: options.name,
    client,
    stopped,
    get id() {
      return id;
    },
    get state() {
      return state;
    },
    get running() {
      return work.active;
    },
    async start() {
      if (state !== "idle") throw new Error(`agent ${options.name} was started before; make a new one`);
      state = "starting";
      try {
        const { name, role, type, description, labels, metadata } = options;
        const capabilities = options.capabilities ?? Object.keys(options.handlers).filter((type) => type !== "*");
        const registration: RegisterAgent = {
          name,
          capabilities: capabilities.map((capability) =>
            typeof capability === "string" ? { name: capability } : capability,
          ),
          maxConcurrency: concurrency,
          leaseSeconds,
          onConflict: options.onConflict ?? "replace",
          ...(role !== undefined && { role }),
          ...(type !== undefined && { type }),
          ...(description !== undefined && { description }),
          ...(labels !== undefined && { labels }),
          ...(metadata !== undefined && { metadata }),
        };
        registering = true;
        const { agent: info, token } = await client.agents.register(registration).finally(() => {
          registering = false;
        });
        id = info.id;
        // Stopped meanwhile: it does not stay behind as one that never came.
        if (stopping) {
          await client.agents.remove(info.id, { mode: "force" }).catch(() => undefined);
          if (!options.client) client.close();
          throw new WaggleConnectionError("client.unreachable", "stopped while starting");
        }
        if (options.handleSignals ?? true) {
          offSignals = stopOnSignal(() => {
            log.info("asked to end: finishing what runs");
            return agent.stop();
          });
        }
        await connect(info, token);
        // `stop()` may have been called meanwhile.
        if (stopping) throw new WaggleConnectionError("client.unreachable", "stopped while starting");
        state = "running";
        return info;
      } catch (error) {
        if (!stopping) gone(error instanceof Error ? error.message : String(error));
        else if (id === undefined && !options.client) client.close();
        throw error;
      }
    },
    async drain() {
      if (state !== "running" && state !== "draining") return;
      state = "draining";
      await connection?.drain();
      await empty();
    },
    stop({ graceSeconds = options.graceSeconds ?? 30 } = {}) {
      stopping ??= (async () => {
        if (state === "stopped") return;
        if (state === "running" || state === "draining") {
          state = "draining";
          await connection?.drain();
          await empty(graceSeconds * 1000);
          if (work.size > 0) {
            work.releaseAll("agent.stopping", "the agent stops");
            // Handlers that heed their signal end in their own way first.
            await empty(1_000);
            work.giveUp("the agent stopped");
            await empty(2_000);
          }
        }
        await connection?.close(true);
        // It had not come, and could not say that it leaves.
        if (state === "starting" && id !== undefined) {
          const signal = AbortSignal.timeout(leaveMs);
          await client.agents.remove(id, { mode: "force" }, { signal }).catch(() => undefined);
        }
        gone("stopped");
      })();
      return stopping;
    },
  };
  return agent;
}
