import type { Process } from "../../test/support/process.ts";

/** Plain data: how a client or an agent process reaches a started server. */
export interface Connection {
  readonly url: string;
  readonly key?: string;
  /** Where the server is managed and its agents answer, for a server that calls its agents. */
  readonly called?: { readonly adminUrl: string; readonly agentPort: number };
}

export interface Payload {
  readonly n: number;
  readonly pad: string;
}
export interface Result {
  readonly ok: boolean;
  readonly n: number;
}

export interface RunningServer {
  readonly connection: Connection;
  readonly process: Process;
  /** kill -9, then a new process with the same data at the same address. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

/** A server of one process. @param open starts it with what it has stored, at its address, and waits until it answers */
export async function serverOf(connection: Connection, open: () => Promise<Process>): Promise<RunningServer> {
  let server = await open();
  return {
    connection,
    get process() {
      return server;
    },
    async restart() {
      await server.end("SIGKILL");
      server = await open();
    },
    stop: () => server.end(),
  };
}

/** The caller's side. */
export interface Client {
  /**
   * Resolves with the task's id once the server has acknowledged it.
   * @param fairKey who submits; a system without fair shares takes no notice
   */
  submit(payload: Payload, fairKey?: string): Promise<string>;
  /** Submits and resolves with the result once it is stored, in one request where the system has such. */
  run(payload: Payload): Promise<Result | undefined>;
  /** The stored result, read by id. */
  read(id: string): Promise<Result | undefined>;
  /** Tasks recorded as completed so far. */
  completed(): Promise<number>;
  close(): Promise<void>;
}

/** One process of agents. */
export interface AgentShape {
  readonly agents: number;
  readonly concurrency: number;
  /** Makes names of several processes differ. */
  readonly prefix: string;
  readonly leaseSeconds?: number;
  /** What they can do, for a system that matches. Default `bench`. */
  readonly capability?: string;
}

/** Something that takes tasks, keeps them and has agents do them. */
export interface System {
  readonly id: string;
  readonly label: string;
  /** What an acknowledged submit is worth. */
  readonly durability: string;
  /** What it does less or otherwise than the work asks for, and settings that are not its defaults. */
  readonly notes: readonly string[];
  /** What its clients and agents need, if this program's Node is older. */
  readonly nodeAtLeast?: number;
  /** Makes the machine ready; answers why not, when it cannot. */
  prepare(): Promise<string | undefined>;
  start(dataDir: string): Promise<RunningServer>;
  /** @param shapes the agents that will come, one entry a process */
  connect(connection: Connection, shapes: readonly AgentShape[]): Promise<Client>;
  agents(
    connection: Connection,
    shape: AgentShape,
    handler: (payload: Payload) => Promise<Result>,
  ): Promise<{ close(): Promise<void> }>;
}

/** 200 bytes as JSON. */
export const payload = (n: number): Payload => ({ n, pad: "x".repeat(184 - String(n).length) });
