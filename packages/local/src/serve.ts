import { createServer } from "@waggle/api";
import { type Engine, withoutSecrets } from "@waggle/core";
import {
  deliverHandler,
  dispatchHandler,
  followChanges,
  intakeHandler,
  minuteHandler,
  timersHandler,
} from "@waggle/edge";

export interface ServeOptions {
  readonly version: string;
  /** Loopback unless you say otherwise. */
  readonly host?: string;
  /** 0 takes a free one. */
  readonly port?: number;
  readonly log?: (line: string) => void;
  /** How many calls to agents may be out at a time. Default 256. */
  readonly deliveries?: number;
}

export interface Served {
  readonly url: string;
  /** Begins to call agents: once it is known where they call back. */
  deliver(): void;
  /** Stops taking requests, then runs `between`, then finishes what handlers are at. The engine stays open. */
  stop(between?: () => void): Promise<void>;
}

const minuteMs = 60_000;

/** What the log says of something that failed. */
export const lineOf = (component: string, error: unknown): string =>
  withoutSecrets(`${component}: ${error instanceof Error ? error.message : String(error)}`);

/**
 * The API and every handler that is a function on AWS, in this process, driven by the engine's own feeds.
 * @throws whatever the port refuses
 * @example const served = await serve(await openAws(config), { version: "0.1.0" })
 */
export async function serve(engine: Engine, options: ServeOptions): Promise<Served> {
  const { host = "127.0.0.1", port = 0, version, log = () => {}, deliveries = 256 } = options;
  const { ports } = engine;
  const onError = (component: string, error: unknown) => log(lineOf(component, error));
  const feeds = [
    ...followChanges(engine.changes, ports),
    engine.queueFeed.consume("dispatch", { batch: 10, concurrency: 8 }, dispatchHandler(ports, onError)),
    engine.queueFeed.consume("timers", { batch: 10, concurrency: 4 }, timersHandler(ports, onError)),
    engine.queueFeed.consume("intake", { batch: 10, concurrency: 1 }, intakeHandler(ports, onError)),
  ];
  let stopped = false;
  let running: Promise<void> = Promise.resolve();
  let cancelMinute = () => {};
  const everyMinute = minuteHandler(ports, onError);
  const minute = () => {
    running = everyMinute().then(
      () => {},
      (error) => onError("sweep", error),
    );
    void running.then(() => {
      if (!stopped) cancelMinute = ports.clock.after(minuteMs, minute);
    });
  };
  minute();
  async function stop(): Promise<void> {
    stopped = true;
    cancelMinute();
    await running;
    for (const end of feeds) await end();
  }
  const server = await createServer({
    ports,
    version,
    host,
    port,
    onError: (error, requestId) => onError(`request ${requestId}`, error),
  }).catch(async (error) => {
    await stop();
    throw error;
  });
  return {
    url: server.url,
    deliver() {
      feeds.push(
        engine.queueFeed.consume("deliver", { batch: 1, concurrency: deliveries }, deliverHandler(ports, onError)),
      );
    },
    async stop(between) {
      await server.close();
      between?.();
      await stop();
    },
  };
}
