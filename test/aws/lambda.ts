import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { join } from "node:path";
import { root } from "../support/root.ts";

/*
 * A small Lambda on this machine: each function is a pool of containers, each a process that has loaded the function's real
 * bundle, runs one invocation at a time, stands still between two (SIGSTOP, as Lambda freezes it) and may die at any time.
 * MiniStack runs functions too, but without response streaming, without the rules of stream mappings, and out of reach of a kill.
 */

export interface Head {
  readonly statusCode: number;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Where a streamed answer goes. */
export interface Sink {
  head(head: Head): void;
  chunk(bytes: Uint8Array): void;
}

export interface LambdaOptions {
  readonly name: string;
  readonly bundle: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly timeoutSeconds: number;
  /** Containers at most; who comes then waits. */
  readonly concurrency: number;
  readonly log: (line: string) => void;
}

export interface Lambda {
  readonly name: string;
  /** @throws what the function threw, that it timed out, or that its process ended */
  invoke(event: unknown, sink?: Sink, signal?: AbortSignal): Promise<unknown>;
  /** SIGKILLs a container that is in the middle of an invocation. @returns whether there was one */
  kill(pick: (count: number) => number): boolean;
  /** Since it was made. */
  readonly counts: { invocations: number; done: number; errors: number; cold: number; killed: number; ms: number };
  stop(): Promise<void>;
}

interface Container {
  readonly child: ChildProcess;
  running?: Running;
}
interface Running {
  readonly id: string;
  readonly sink: Sink | undefined;
  finish(outcome: { result?: unknown; error?: Error }): void;
}

interface Told {
  readonly ready?: boolean;
  readonly broken?: { message: string; stack?: string };
  readonly head?: Head;
  readonly chunk?: Uint8Array;
  readonly done?: boolean;
  readonly result?: unknown;
  readonly error?: { name?: string; message: string; stack?: string };
}

const children = new Set<ChildProcess>();
// One that stands still hears of nothing: it must not outlive this process.
process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL");
});

export function createLambda(options: LambdaOptions): Lambda {
  const { name, bundle, environment, timeoutSeconds, concurrency, log } = options;
  const all = new Set<Container>();
  const idle: Container[] = [];
  const waiting: { give(container: Container): void; refuse(error: Error): void }[] = [];
  const counts = { invocations: 0, done: 0, errors: 0, cold: 0, killed: 0, ms: 0 };
  let starting = 0;
  let stopped = false;

  function start(): void {
    starting++;
    counts.cold++;
    // Of this process's environment nothing: what a function needs must be in its own.
    const child = spawn(process.execPath, [join(root, "test/aws/container.mjs"), bundle], {
      env: { ...environment, AWS_LAMBDA_FUNCTION_NAME: name, NODE_NO_WARNINGS: "1", TZ: ":UTC" },
      stdio: ["ignore", "pipe", "pipe", "ipc"],
      serialization: "advanced",
    });
    children.add(child);
    const container: Container = { child };
    all.add(container);
    for (const stream of [child.stdout, child.stderr]) {
      let rest = "";
      stream?.on("data", (chunk: Buffer) => {
        const lines = (rest + chunk.toString()).split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines) log(`${name} ${line}`);
      });
    }
    let ready = false;
    child.on("message", (message: Told) => {
      if (message.ready) {
        ready = true;
        starting--;
        release(container);
        return;
      }
      if (message.broken) log(`${name} does not start: ${message.broken.stack ?? message.broken.message}`);
      const { running } = container;
      if (!running) return;
      if (message.head) running.sink?.head(message.head);
      if (message.chunk) running.sink?.chunk(message.chunk);
      if (!message.done) return;
      delete container.running;
      const { error } = message;
      release(container);
      running.finish(
        error
          ? { error: Object.assign(new Error(error.message), { name: error.name ?? "Error" }) }
          : { result: message.result },
      );
    });
    child.on("error", (error) => log(`${name} ${error.message}`));
    child.once("exit", (code, signal) => {
      children.delete(child);
      all.delete(container);
      const at = idle.indexOf(container);
      if (at >= 0) idle.splice(at, 1);
      if (!ready) starting--;
      container.running?.finish({ error: new Error(`the process of ${name} ended: ${signal ?? code}`) });
      if (waiting.length > 0 && ready) more();
    });
  }

  function release(container: Container): void {
    const next = waiting.shift();
    if (next) next.give(container);
    else {
      container.child.kill("SIGSTOP");
      idle.push(container);
    }
  }

  /** One start at a time: who waits may be served sooner by one that becomes free. */
  function more(): void {
    if (!stopped && starting === 0 && all.size < concurrency) start();
  }

  async function take(): Promise<Container> {
    const known = idle.pop();
    if (known) {
      known.child.kill("SIGCONT");
      return known;
    }
    if (stopped) throw new Error(`${name} is stopped`);
    const found = new Promise<Container>((give, refuse) => waiting.push({ give, refuse }));
    more();
    const container = await found;
    if (waiting.length > 0) more();
    return container;
  }

  return {
    name,
    counts,
    async invoke(event, sink, signal) {
      const container = await take();
      counts.invocations++;
      const id = randomUUID();
      const began = Date.now();
      const deadline = began + timeoutSeconds * 1000;
      let late: NodeJS.Timeout | undefined;
      // It may have been killed a moment ago: its end says so.
      const tell = (message: object) => container.child.send(message, () => {});
      const hangUp = () => container.child.connected && tell({ gone: id });
      try {
        const outcome = await new Promise<{ result?: unknown; error?: Error }>((resolve) => {
          container.running = { id, sink, finish: resolve };
          late = setTimeout(() => container.child.kill("SIGKILL"), timeoutSeconds * 1000);
          signal?.addEventListener("abort", hangUp);
          if (!container.child.connected) resolve({ error: new Error(`the process of ${name} ended`) });
          else tell({ id, event, deadline });
        });
        if (outcome.error) throw outcome.error;
        counts.done++;
        return outcome.result;
      } catch (error) {
        counts.errors++;
        throw error;
      } finally {
        clearTimeout(late);
        counts.ms += Date.now() - began;
        signal?.removeEventListener("abort", hangUp);
      }
    },
    kill(pick) {
      const busy = [...all].filter(({ running }) => running);
      const victim = busy[pick(busy.length)];
      if (!victim) return false;
      counts.killed++;
      victim.child.kill("SIGKILL");
      return true;
    },
    async stop() {
      stopped = true;
      for (const { refuse } of waiting.splice(0)) refuse(new Error(`${name} is stopped`));
      await Promise.all(
        [...all].map(async ({ child }) => {
          if (child.exitCode !== null || child.signalCode !== null) return;
          const gone = once(child, "exit");
          child.kill("SIGKILL");
          await gone;
        }),
      );
    },
  };
}
