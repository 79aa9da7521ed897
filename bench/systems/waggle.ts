import { existsSync } from "node:fs";
import { serverProgram, startServer } from "../../test/support/server.ts";
import { httpCaller } from "./http.ts";
import type { Client, Connection, Result, System } from "./system.ts";

const body = (input: unknown, fairKey?: string) => ({
  type: "bench",
  input,
  requires: [{ capability: "bench" }],
  ...(fairKey === undefined ? {} : { fairKey }),
});

/** Loaded when asked for, so that the process of another system does not carry it. */
const sdk = () => import("@waggle/sdk");

/** The caller as a user writes it. */
async function sdkClient({ url, key = "" }: Connection): Promise<Client> {
  const { createClient } = await sdk();
  const client = createClient({ url, key });
  return {
    submit: async (payload, fairKey) => (await client.tasks.create(body(payload, fairKey))).id,
    run: (payload) => client.tasks.run<Result>(body(payload)),
    read: async (id) => (await client.tasks.get(id)).result as Result | undefined,
    completed: async () => completedOf(await client.status.get()),
    close: async () => client.close(),
  };
}

const completedOf = (status: unknown) =>
  (status as { tasks: { byStatus: Record<string, number> } }).tasks.byStatus.completed ?? 0;

/** The caller with nothing but node:http, to tell the server's share from the SDK's. */
function httpClient({ url, key = "" }: Connection): Client {
  const { call, close } = httpCaller(url, { authorization: `Bearer ${key}` });
  type Answer = { task: { id: string; result?: Result } };
  return {
    submit: async (payload, fairKey) => (await call<Answer>("POST", "/v1/tasks", body(payload, fairKey))).task.id,
    run: async (payload) => (await call<Answer>("POST", "/v1/tasks?waitSeconds=20", body(payload))).task.result,
    read: async (id) => (await call<Answer>("GET", `/v1/tasks/${id}`)).task.result,
    completed: async () => completedOf(await call("GET", "/v1/status")),
    close: async () => close(),
  };
}

/** @param client what submits: the SDK, or a bare HTTP client. */
export const waggle = (client: "sdk" | "http"): System => ({
  id: client === "sdk" ? "waggle" : "waggle-http",
  label: client === "sdk" ? "Waggle, over HTTP by the SDK" : "Waggle, over HTTP by node:http",
  durability: "on disk",
  notes: ["W2: submit and wait in one request", "W5: leaseSeconds 5 instead of 60"],
  prepare: async () => (existsSync(serverProgram) ? undefined : "it is not built (npm run build)"),
  async start(dataDir) {
    const server = await startServer({ dataDir });
    return {
      connection: { url: server.url, key: server.key },
      get process() {
        return server.process;
      },
      restart: () => server.restart("SIGKILL"),
      stop: () => server.process.end(),
    };
  },
  connect: async (connection) => (client === "sdk" ? sdkClient(connection) : httpClient(connection)),
  async agents({ url, key = "" }, shape, handler) {
    const { createAgent } = await sdk();
    const agents = Array.from({ length: shape.agents }, (_, index) =>
      createAgent({
        url,
        key,
        name: `${shape.prefix}-${index}`,
        capabilities: [shape.capability ?? "bench"],
        concurrency: shape.concurrency,
        ...(shape.leaseSeconds ? { leaseSeconds: shape.leaseSeconds } : {}),
        handlers: { bench: (task) => handler(task.input as never) },
      }),
    );
    await Promise.all(agents.map((agent) => agent.start()));
    return {
      close: async () => {
        await Promise.all(agents.map((agent) => agent.stop()));
      },
    };
  },
});
