import { randomBytes } from "node:crypto";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createServer } from "@waggle/api";
import { type Engine, forget, Key, outboxKinds, tenantOf, wasAway } from "@waggle/core";
import { deliverHandler, dispatchHandler, minuteHandler, outboxHandler, projection, timersHandler } from "@waggle/edge";
import { openEmbedded } from "@waggle/engine-embedded";
import { createOutbound, outboundFromEnv } from "@waggle/outbound";

export interface LocalOptions {
  /** Made when it is missing. Holds everything: tasks, agents, blobs, the admin key. */
  readonly dataDir: string;
  /** Loopback unless you say otherwise. */
  readonly host?: string;
  /** 0 takes a free one. */
  readonly port?: number;
  readonly version: string;
  readonly log?: (line: string) => void;
  /** Settings of deliveries (`outboundFromEnv`) and of AWS. Default `process.env`. */
  readonly env?: Readonly<Record<string, string | undefined>>;
}

export interface Local {
  readonly url: string;
  readonly adminKey: string;
  readonly engine: Engine;
  /** Stops taking requests, finishes those in flight, writes everything down. */
  stop(): Promise<void>;
}

const sweepEveryMs = 60_000;

/**
 * The whole control plane in this process, on the embedded engine: the handlers that run as Lambda functions on AWS,
 * driven by the engine's own feeds.
 * @throws `store.locked`, `store.newer_format`, `store.unavailable`; whatever the port refuses
 * @example const server = await startLocal({ dataDir: ".waggle", version: "0.1.0" })
 */
export async function startLocal(options: LocalOptions): Promise<Local> {
  const { dataDir, log = () => {} } = options;
  const host = options.host ?? "127.0.0.1";
  let url: string | undefined;
  const outbound = createOutbound({
    publicUrl: () => url,
    secretKey: () => secretKeyOf(dataDir),
    // Whoever reaches a server that only this machine reaches could call what runs here by themselves.
    allowLoopbackTargets: isLoopback(host),
    ...outboundFromEnv(options.env ?? process.env),
  });
  const engine = await openEmbedded({ dataDir, outbound });
  const { ports } = engine;
  const onError = (component: string, error: unknown) =>
    log(`${component}: ${error instanceof Error ? error.message : String(error)}`);
  engine.onReset(() => forget(ports));
  wasAway(ports);
  const feeds = [
    engine.changes.consume("outbox", outboxKinds, outboxHandler(ports)),
    engine.changes.project("views", outboxKinds, tenantOf, projection(ports)),
    engine.queueFeed.consume("dispatch", { batch: 10, concurrency: 8 }, dispatchHandler(ports, onError)),
    engine.queueFeed.consume("timers", { batch: 10, concurrency: 4 }, timersHandler(ports, onError)),
  ];
  let cancelSweep = () => {};
  const everyMinute = minuteHandler(ports, onError);
  const minute = () => {
    everyMinute()
      .catch((error) => onError("sweep", error))
      .finally(() => {
        cancelSweep = ports.clock.after(sweepEveryMs, minute);
      });
  };
  minute();
  const adminKey = await adminKeyOf(engine, dataDir);
  const server = await createServer({
    ports,
    version: options.version,
    host,
    port: options.port ?? 0,
    onError: (error, requestId) => onError(`request ${requestId}`, error),
  }).catch(async (error) => {
    cancelSweep();
    for (const stop of feeds) await stop();
    await engine.close();
    throw error;
  });
  url = server.url;
  // Once it is known where agents call back.
  feeds.push(engine.queueFeed.consume("deliver", { batch: 1, concurrency: 256 }, deliverHandler(ports, onError)));
  const serverFile = join(dataDir, "server.json");
  writeFileSync(
    serverFile,
    JSON.stringify({
      url: server.url,
      pid: process.pid,
      version: options.version,
      startedAt: new Date().toISOString(),
    }),
  );
  return {
    url: server.url,
    adminKey,
    engine,
    async stop() {
      await server.close();
      cancelSweep();
      outbound.close();
      for (const stop of feeds) await stop();
      await engine.close();
      rmSync(serverFile, { force: true });
    },
  };
}

const isLoopback = (host: string): boolean => /^(127\.\d+\.\d+\.\d+|localhost|::1)$/.test(host);

/** Encrypts the secrets of webhooks, beside the data but for this machine's user alone. Made when the first is needed. */
function secretKeyOf(dataDir: string): string {
  const file = join(dataDir, "secret.key");
  if (!existsSync(file))
    writeFileSync(file, `${randomBytes(32).toString("base64url")}\n`, {
      mode: 0o600,
      flag: "wx",
      flush: true,
    } as never);
  return readFileSync(file, "utf8").trim();
}

/**
 * The admin key, kept beside the data for the CLI and SDK of this machine's user alone. Made at the first start, and
 * again when its file is gone: a crash between the two, or a lost file, must lock nobody out of their own folder.
 */
async function adminKeyOf(engine: Engine, dataDir: string): Promise<string> {
  const file = join(dataDir, "admin.key");
  if (existsSync(file)) return readFileSync(file, "utf8").trim();
  const key = await Key.bootstrap(engine.ports);
  await engine.ports.store.settled();
  writeFileSync(file, `${key}\n`, { mode: 0o600, flag: "wx" });
  return key;
}
