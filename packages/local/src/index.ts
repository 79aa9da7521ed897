import { randomBytes } from "node:crypto";
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { type Engine, forget, Key, wasAway } from "@waggle/core";
import { Audit, type Report } from "@waggle/core/audit";
import { projectChanges } from "@waggle/edge";
import { type EmbeddedOptions, openEmbedded, syncFolder } from "@waggle/engine-embedded";
import { createOutbound, outboundFromEnv } from "@waggle/outbound";
import { lineOf, type Served, serve } from "./serve.ts";

export { type Served, type ServeOptions, serve } from "./serve.ts";

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
  /** Of the engine: a clock of one's own, how it writes. */
  readonly engine?: Pick<EmbeddedOptions, "clock" | "flush">;
}

export interface Local {
  readonly url: string;
  readonly adminKey: string;
  readonly engine: Engine;
  /** Stops taking requests, finishes those in flight, writes everything down. */
  stop(): Promise<void>;
}

/**
 * The whole control plane in this process, on the embedded engine: the handlers that run as Lambda functions on AWS,
 * driven by the engine's own feeds.
 * @throws `store.locked`, `store.newer_format`, `store.unavailable`; whatever the port refuses
 * @example const server = await startLocal({ dataDir: ".waggle", version: "0.1.0" })
 */
export async function startLocal(options: LocalOptions): Promise<Local> {
  const { dataDir } = options;
  const host = options.host ?? "127.0.0.1";
  let url: string | undefined;
  const outbound = createOutbound({
    publicUrl: () => url,
    secretKey: () => secretKeyOf(dataDir),
    // Whoever reaches a server that only this machine reaches could call what runs here by themselves.
    allowLoopbackTargets: isLoopback(host),
    ...outboundFromEnv(options.env ?? process.env),
  });
  const onError = (component: string, error: unknown) => options.log?.(lineOf(component, error));
  const engine = await openEmbedded({ ...options.engine, dataDir, outbound, onError });
  engine.onReset(() => forget(engine.ports));
  wasAway(engine.ports);
  let adminKey: string;
  let server: Served;
  try {
    adminKey = await adminKeyOf(engine, dataDir);
    server = await serve(engine, { ...options, host });
  } catch (error) {
    outbound.close();
    await engine.close();
    throw error;
  }
  url = server.url;
  server.deliver();
  const serverFile = join(dataDir, "server.json");
  try {
    const { pid } = process;
    const startedAt = new Date().toISOString();
    writeFileSync(serverFile, JSON.stringify({ url, pid, version: options.version, startedAt }));
  } catch (error) {
    // It only tells commands the address: a full disk must keep no server from its data.
    onError("server.json", error);
  }
  return {
    url: server.url,
    adminKey,
    engine,
    async stop() {
      try {
        await server.stop(() => outbound.close());
        await engine.close();
      } finally {
        rmSync(serverFile, { force: true });
      }
    },
  };
}

const isLoopback = (host: string): boolean => /^(127\.\d+\.\d+\.\d+|localhost|::1)$/.test(host);

/**
 * Compares every row in the folder of a server that is stopped. Nothing is done that was left undone; lists and events are derived
 * as far as the log goes.
 * @throws `store.locked` while a server runs, `store.newer_format`, `store.unavailable`
 */
export async function auditFolder(dataDir: string): Promise<Report> {
  const engine = await openEmbedded({ dataDir });
  try {
    projectChanges(engine.changes, engine.ports);
    return await Audit.run(engine.ports);
  } finally {
    await engine.close();
  }
}

/** Encrypts the secrets of webhooks, beside the data but for this machine's user alone. Made when the first is needed. */
function secretKeyOf(dataDir: string): string {
  const file = join(dataDir, "secret.key");
  return kept(file) ?? keep(file, randomBytes(32).toString("base64url"));
}

/**
 * The admin key, kept beside the data for the CLI and SDK of this machine's user alone. Made at the first start, and
 * again when its file is gone: a crash between the two, or a lost file, must lock nobody out of their own folder.
 */
async function adminKeyOf(engine: Engine, dataDir: string): Promise<string> {
  const file = join(dataDir, "admin.key");
  const known = kept(file);
  if (known !== undefined) return known;
  const key = await Key.bootstrap(engine.ports);
  await engine.ports.store.settled();
  return keep(file, key);
}

/** What the file holds; undefined: there is none, or nothing in it, as a full disk or a crash may leave it. */
function kept(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8").trim() || undefined;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

/** On disk, whole, when it returns; for this machine's user alone. */
function keep(file: string, text: string): string {
  const draft = `${file}.draft`;
  // One that is there may be readable by others.
  rmSync(draft, { force: true });
  writeFileSync(draft, `${text}\n`, { mode: 0o600, flag: "wx", flush: true } as never);
  renameSync(draft, file);
  syncFolder(dirname(file));
  return text;
}
