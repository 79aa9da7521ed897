import type { Process } from "../../test/support/process.ts";

/** Plain data: how a client or an agent process reaches a started server. */
export interface Connection {
  readonly url: string;
  readonly key?: string;
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

/** The caller's side. */
export interface Client {
  /** Resolves with the task's id once the server has acknowledged it. */
  submit(payload: Payload): Promise<string>;
  /** Resolves with the result once there is one. */
  wait(id: string): Promise<Result | undefined>;
  /** The stored result, read by id. */
  read(id: string): Promise<Result | undefined>;
  /** Tasks recorded as completed so far. */
  completed(): Promise<number>;
  close(): Promise<void>;
}

export interface AgentShape {
  readonly agents: number;
  readonly concurrency: number;
  /** Makes names of several processes differ. */
  readonly prefix: string;
  readonly leaseSeconds?: number;
}

/** Something that takes tasks, keeps them and has agents do them. */
export interface System {
  readonly id: string;
  readonly label: string;
  /** What an acknowledged submit is worth. */
  readonly durability: string;
  /** Makes the machine ready; answers why not, when it cannot. */
  prepare(): Promise<string | undefined>;
  start(dataDir: string): Promise<RunningServer>;
  connect(connection: Connection): Promise<Client>;
  agents(
    connection: Connection,
    shape: AgentShape,
    handler: (payload: Payload) => Promise<Result>,
  ): Promise<{ close(): Promise<void> }>;
}

/** 200 bytes as JSON. */
export const payload = (n: number): Payload => ({ n, pad: "x".repeat(184 - String(n).length) });
