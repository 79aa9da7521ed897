import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Local, startLocal } from "@waggle/local";
import { afterAll } from "vitest";
import { eventually as soon } from "../../../test/support/eventually.ts";

export interface Reply {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: each test knows what it asked for
  readonly body: any;
}

export interface TestApi {
  readonly url: string;
  readonly adminKey: string;
  readonly local: Local;
  call(method: string, path: string, options?: CallOptions): Promise<Reply>;
  /** A key of that role, in a tenant of its own if one is named. */
  key(role: string, tenant?: string): Promise<string>;
  agent(options?: object, key?: string): Promise<{ id: string; token: string }>;
  task(options?: object, key?: string): Promise<{ id: string; fence: number; status: string }>;
  /** Gives the task to the agent, by lease. */
  lease(agent: { id: string; token: string }): Promise<{ task: { id: string }; fence: number }>;
}

export interface CallOptions {
  /** The admin key unless given; null sends none. */
  readonly key?: string | null;
  readonly body?: unknown;
  /** Instead of `body`: as it is. */
  readonly raw?: string | Uint8Array;
  readonly headers?: Record<string, string>;
}

let count = 0;
export const unique = (prefix: string): string => `${prefix}-${process.pid}-${count++}`;

/** The whole system in this process; stopped after the file's tests. */
export async function startApi(): Promise<TestApi> {
  const dataDir = mkdtempSync(join(tmpdir(), "waggle-api-"));
  const local = await startLocal({ dataDir, version: "1.2.3" });
  afterAll(async () => {
    await local.stop();
    rmSync(dataDir, { recursive: true, force: true });
  });
  const { url, adminKey } = local;
  const api: TestApi = {
    url,
    adminKey,
    local,
    async call(method, path, { key = adminKey, body, raw, headers = {} } = {}) {
      const content = raw ?? (body === undefined ? undefined : JSON.stringify(body));
      const response = await fetch(url + path, {
        method,
        headers: {
          ...(key !== null && { authorization: `Bearer ${key}` }),
          ...(content !== undefined && { "content-type": "application/json" }),
          ...headers,
        },
        ...(content !== undefined && { body: content }),
      });
      const text = await response.text();
      const json = response.headers.get("content-type")?.includes("json") && text !== "";
      return { status: response.status, headers: response.headers, text, body: json ? JSON.parse(text) : undefined };
    },
    async key(role, tenant) {
      return good(201, await api.call("POST", "/v1/keys", { body: { role, ...(tenant && { tenant }) } })).key;
    },
    async agent(options = {}, key = adminKey) {
      const body = { name: unique("agent"), capabilities: [], ...options };
      const { agent, token } = good(201, await api.call("POST", "/v1/agents", { body, key }));
      return { id: agent.id, token };
    },
    async task(options = {}, key = adminKey) {
      return good(201, await api.call("POST", "/v1/tasks", { body: { type: "test", ...options }, key })).task;
    },
    async lease({ id, token }) {
      const body = { waitSeconds: 10 };
      const { assignments } = good(200, await api.call("POST", `/v1/agents/${id}/lease`, { body, key: token }));
      if (assignments.length !== 1) throw new Error(`expected one assignment, got ${assignments.length}`);
      return assignments[0];
    },
  };
  return api;
}

// biome-ignore lint/suspicious/noExplicitAny: as Reply.body
export function good(status: number, reply: Reply): any {
  if (reply.status !== status) throw new Error(`expected ${status}, got ${reply.status}: ${reply.text.slice(0, 2000)}`);
  return reply.body;
}

/** Until `look` finds something; fails after ten seconds unless told otherwise. */
export const eventually = <T>(look: () => T | undefined | Promise<T | undefined>, seconds = 10): Promise<T> =>
  soon("what the test waits for", look, { seconds, everyMs: 5 });
