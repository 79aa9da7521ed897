import { type ChildProcess, spawn } from "node:child_process";
import { type Member, roster } from "./roster.ts";

export type Process = {
  member: Member;
  name: string;
  pid: number;
  state: "starting" | "ready" | "gone" | "given up";
  agentId?: string;
  child: ChildProcess;
  startedAt: number;
  restarts: number;
};
export type FleetEvents = {
  ready(process: Process): void;
  died(process: Process, how: string): void;
  gaveUp(process: Process, reason: string): void;
  said(process: Process, level: string, message: string): void;
};
export type Fleet = {
  processes: ReadonlyMap<string, Process>;
  /** All have registered. Rejects when one cannot. */
  ready: Promise<void>;
  stop(): Promise<void>;
  /** At once, without a word: for the second Ctrl-C. */
  kill(): void;
};

/** An agent that cannot even start is not started for ever. */
const maxFailedStarts = 5;
const restartAfterMs = 250;
const stopWithinMs = 8_000;

/** Starts every member as a process of its own, and again whenever it dies. */
export const supervise = (options: {
  program: string;
  suffix: string;
  env: Record<string, string>;
  events: FleetEvents;
}): Fleet => {
  const { events } = options;
  const processes = new Map<string, Process>();
  let stopping = false;
  let readyAll: () => void = () => {};
  let failAll: (reason: Error) => void = () => {};
  const ready = new Promise<void>((resolve, reject) => {
    readyAll = resolve;
    failAll = reject;
  });
  // Whoever waits is told; with nobody waiting it is told by `gaveUp`.
  ready.catch(() => {});

  const launch = (member: Member, restarts: number, failures: number) => {
    const name = `${member.name}${options.suffix}`;
    const child = spawn(process.execPath, [options.program, member.name, name], {
      env: { ...process.env, ...options.env },
      stdio: ["ignore", "ignore", "pipe", "ipc"],
    });
    const own: Process = {
      member,
      name,
      pid: child.pid ?? 0,
      state: "starting",
      child,
      startedAt: Date.now(),
      restarts,
    };
    processes.set(name, own);
    let complaint = "";
    let wasReady = false;
    child.stderr?.on("data", (chunk: Buffer) => {
      complaint = (complaint + chunk.toString()).slice(-2000);
    });
    child.on("message", (message: { ready?: string; failed?: string; log?: string; level?: string }) => {
      if (message.ready !== undefined) {
        wasReady = true;
        own.state = "ready";
        own.agentId = message.ready;
        events.ready(own);
        if (processes.size === roster.length && [...processes.values()].every((entry) => entry.state === "ready"))
          readyAll();
      } else if (message.failed !== undefined) complaint = message.failed;
      else if (message.log !== undefined) events.said(own, message.level ?? "info", message.log);
    });
    const ended = (how: string) => {
      if (own.state === "gone") return;
      own.state = "gone";
      if (stopping) return;
      const failed = wasReady ? 0 : failures + 1;
      if (wasReady) events.died(own, how);
      if (failed >= maxFailedStarts) {
        own.state = "given up";
        const reason = complaint.trim().split("\n").at(-1) || how;
        events.gaveUp(own, reason);
        failAll(new Error(`${name} does not start: ${reason}`));
        return;
      }
      setTimeout(
        () => {
          if (!stopping) launch(member, restarts + (wasReady ? 1 : 0), failed);
        },
        restartAfterMs * (failed + 1),
      );
    };
    child.on("error", (error) => ended(error.message));
    child.on("exit", (code, signal) => ended(signal ? `killed (${signal})` : `ended with exit code ${code}`));
  };
  for (const member of roster) launch(member, 0, 0);

  return {
    processes,
    ready,
    async stop() {
      stopping = true;
      const alive = [...processes.values()].filter(
        (own) => own.child.exitCode === null && own.child.signalCode === null,
      );
      await Promise.all(
        alive.map(
          (own) =>
            new Promise<void>((resolve) => {
              const late = setTimeout(() => own.child.kill("SIGKILL"), stopWithinMs);
              own.child.once("exit", () => {
                clearTimeout(late);
                resolve();
              });
              own.child.kill("SIGTERM");
            }),
        ),
      );
    },
    kill() {
      stopping = true;
      for (const own of processes.values()) own.child.kill("SIGKILL");
    },
  };
};
