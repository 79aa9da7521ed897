import { AsyncLocalStorage } from "node:async_hooks";
import { subscribe } from "node:diagnostics_channel";
import { mkdtempSync, rmSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Engine, forget, Key, type Ports, type Write, wasAway } from "@waggle/core";
import { openEmbedded } from "@waggle/engine-embedded";
import { serve } from "@waggle/local";
import { createOutbound } from "@waggle/outbound";

/** Names the call whose writes are looked at. */
export const markHeader = "x-fuzz-call";

/** A whole server in this process, which tells what each call changed. */
export interface Target {
  readonly url: string;
  readonly adminKey: string;
  /** What threw inside and was not a declared error. */
  readonly errors: string[];
  /** To look at what is stored without a call. */
  readonly ports: Ports;
  /** Begins to note what the call of this mark changes. @returns ends it, with the rows and blobs that are not as before */
  watch(mark: string): () => readonly string[];
  stop(): Promise<void>;
}

const current = new AsyncLocalStorage<string>();
let subscribed = false;

/** Whatever runs because of a request, however long after, knows its mark. */
function markRequests(): void {
  if (subscribed) return;
  subscribed = true;
  subscribe("http.server.request.start", (message) => {
    const { request } = message as { request: IncomingMessage };
    current.enterWith(String(request.headers[markHeader] ?? ""));
  });
}

const keyOf = (write: Write) =>
  "put" in write ? write.put : "update" in write ? write.update : "delete" in write ? write.delete : write.check;

/** What a sign of life, which every call of an agent is, may change on its row. */
const life = new Set(["rev", "changedAt", "lastSeenAt", "expiresAt", "deadlineAt"]);
const isLife = (write: Write): boolean =>
  "update" in write &&
  write.kind === "agent" &&
  write.remove === undefined &&
  Object.keys(write.set ?? {}).every((name) => life.has(name));

export async function openTarget(): Promise<Target> {
  markRequests();
  const dataDir = mkdtempSync(join(tmpdir(), "waggle-fuzz-"));
  const errors: string[] = [];
  const watched = new Map<string, Map<string, number>>();
  const note = (what: string, by: 1 | -1) => {
    const changes = watched.get(current.getStore() ?? "");
    if (changes === undefined) return;
    const count = (changes.get(what) ?? 0) + by;
    // A claim that is given up leaves no trace.
    if (count === 0) changes.delete(what);
    else changes.set(what, count);
  };
  const noteWrite = (write: Write) => {
    if ("check" in write || isLife(write)) return;
    const { pk, sk } = keyOf(write);
    note(`${pk} ${sk}`, "delete" in write ? -1 : 1);
  };
  let url: string | undefined;
  const outbound = createOutbound({ publicUrl: () => url, secretKey: () => "fuzz", allowLoopbackTargets: true });
  const engine = await openEmbedded({ dataDir, outbound });
  const { store, blobs, clock } = engine.ports;
  // What a call sets off is no longer the call: feeds and timers may run while it waits to be on disk.
  const apart =
    <Args extends unknown[], Result>(handler: (...args: Args) => Result) =>
    (...args: Args): Result =>
      current.run("", handler, ...args);
  const noting: Engine = {
    ...engine,
    changes: {
      consume: (consumer, kinds, handler) => engine.changes.consume(consumer, kinds, apart(handler)),
      project: (name, kinds, groupOf, derive) => engine.changes.project(name, kinds, groupOf, apart(derive)),
    },
    queueFeed: {
      consume: (queue, settings, handler) => engine.queueFeed.consume(queue, settings, apart(handler)),
    },
    ports: {
      ...engine.ports,
      store: {
        ...store,
        async write(write) {
          const result = await store.write(write);
          if (result.ok) noteWrite(write);
          return result;
        },
        async transact(writes) {
          const result = await store.transact(writes);
          if (result.ok) for (const write of writes) noteWrite(write);
          return result;
        },
      },
      clock: { ...clock, after: (delayMs, callback) => clock.after(delayMs, apart(callback)) },
      blobs: {
        ...blobs,
        async put(key, bytes) {
          await blobs.put(key, bytes);
          note(`blob ${key}`, 1);
        },
        async delete(key) {
          await blobs.delete(key);
          note(`blob ${key}`, -1);
        },
      },
    },
  };
  engine.onReset(() => forget(noting.ports));
  wasAway(noting.ports);
  const adminKey = await Key.bootstrap(noting.ports);
  const server = await serve(noting, { version: "0.0.0", log: (line) => errors.push(line) });
  url = server.url;
  return {
    url,
    adminKey,
    errors,
    ports: noting.ports,
    watch(mark) {
      const changes = new Map<string, number>();
      watched.set(mark, changes);
      return () => {
        watched.delete(mark);
        return [...changes.keys()];
      };
    },
    async stop() {
      await server.stop(() => outbound.close());
      await engine.close();
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}
