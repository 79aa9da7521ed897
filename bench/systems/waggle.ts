import { existsSync } from "node:fs";
import { request, Agent as Sockets } from "node:http";
import { serverProgram, startServer } from "../../test/support/server.ts";
import type { Client, Connection, Result, System } from "./system.ts";

const body = (input: unknown) => ({ type: "bench", input, requires: [{ capability: "bench" }] });

/** Loaded when asked for, so that the process of another system does not carry it. */
const sdk = () => import("@waggle/sdk");

/** The caller as a user writes it. */
async function sdkClient({ url, key = "" }: Connection): Promise<Client> {
  const { createClient } = await sdk();
  const client = createClient({ url, key });
  const handles = new Map<string, { result(): Promise<unknown> }>();
  return {
    async submit(payload) {
      const handle = await client.tasks.delegate(body(payload));
      handles.set(handle.id, handle);
      return handle.id;
    },
    wait: async (id) => (await handles.get(id)?.result()) as Result | undefined,
    read: async (id) => (await client.tasks.get(id)).result as Result | undefined,
    completed: async () => completedOf(await client.status.get()),
    close: async () => client.close(),
  };
}

const completedOf = (status: unknown) =>
  (status as { tasks: { byStatus: Record<string, number> } }).tasks.byStatus.completed ?? 0;

/** The caller with nothing but node:http, to tell the server's share from the SDK's. */
function httpClient({ url, key = "" }: Connection): Client {
  const sockets = new Sockets({ keepAlive: true, maxSockets: 64 });
  const call = <Answer>(method: string, path: string, content?: unknown) =>
    new Promise<Answer>((resolve, reject) => {
      const text = content === undefined ? "" : JSON.stringify(content);
      const headers = {
        authorization: `Bearer ${key}`,
        "content-type": "application/json",
        "content-length": text.length,
      };
      request(url + path, { method, agent: sockets, headers }, (response) => {
        let answer = "";
        response.setEncoding("utf8");
        response.on("data", (chunk: string) => {
          answer += chunk;
        });
        response.on("end", () => {
          if ((response.statusCode ?? 0) < 300) resolve(JSON.parse(answer) as Answer);
          else reject(new Error(`${method} ${path}: ${response.statusCode} ${answer}`));
        });
      })
        .on("error", reject)
        .end(text);
    });
  type Answer = { task: { id: string; result?: Result } };
  return {
    submit: async (payload) => (await call<Answer>("POST", "/v1/tasks", body(payload))).task.id,
    wait: async (id) => (await call<Answer>("GET", `/v1/tasks/${id}?waitSeconds=20`)).task.result,
    read: async (id) => (await call<Answer>("GET", `/v1/tasks/${id}`)).task.result,
    completed: async () => completedOf(await call("GET", "/v1/status")),
    close: async () => sockets.destroy(),
  };
}

/** @param client what submits: the SDK, or a bare HTTP client. */
export const waggle = (client: "sdk" | "http"): System => ({
  id: client === "sdk" ? "waggle" : "waggle-http",
  label: client === "sdk" ? "Waggle, over HTTP by the SDK" : "Waggle, over HTTP by node:http",
  durability: "on disk",
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
        capabilities: ["bench"],
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
