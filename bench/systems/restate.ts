import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { eventually } from "../../test/support/eventually.ts";
import { freePort, launch } from "../../test/support/process.ts";
import { httpCaller } from "./http.ts";
import { loadPeer, peerFile, peerVersion, preparePeer } from "./peers.ts";
import { type AgentShape, type Connection, type Payload, type Result, type System, serverOf } from "./system.ts";

/** The part of Restate's SDK that is measured. */
interface Restate {
  service(definition: object): object;
  object(definition: object): object;
  serve(options: { services: readonly object[]; port: number }): Promise<unknown>;
}

const nodeAtLeast = 22;
const program = peerFile("@restatedev", `restate-server-${process.platform}-${process.arch}`, "bin/restate-server");

const single = ({ agents }: AgentShape) => agents === 1;
/** Tasks are addressed to an agent when they are submitted: 100 agents are 100 keys of virtual objects. */
const pathsOf = (shapes: readonly AgentShape[]): string[] =>
  shapes.flatMap((shape) =>
    single(shape)
      ? ["/bench/run"]
      : Array.from({ length: shape.agents }, (_, at) => `/${shape.prefix}/agent-${at}/run`),
  );

const adminOf = ({ called }: Connection) => httpCaller(called?.adminUrl ?? "", { accept: "application/json" });

export const restate: System = {
  id: "restate",
  label: `Restate ${peerVersion("@restatedev/restate-server")}`,
  durability: "on disk",
  notes: [
    "over HTTP, by node:http; W2: submit and wait in one request",
    "an idempotency key on each submit, without which it keeps no result",
    "W4: 100 keys of virtual objects; a task is addressed to one of them when it is submitted",
    "W5: the new agents have the dead ones' address; 100 invocations a partition, so that all 200 run at once",
    "fair shares not used",
  ],
  nodeAtLeast,
  prepare: async () =>
    preparePeer(nodeAtLeast) ?? (existsSync(program) ? undefined : "its server is not made for this platform"),

  async start(dataDir) {
    const [ingress, admin, fabric, agentPort] = await Promise.all([freePort(), freePort(), freePort(), freePort()]);
    const url = `http://127.0.0.1:${ingress}`;
    const env = {
      RESTATE_DISABLE_TELEMETRY: "true",
      RESTATE_LISTEN_MODE: "tcp",
      RESTATE_BIND_IP: "127.0.0.1",
      RESTATE_BIND_PORT: String(fabric),
      RESTATE_INGRESS__BIND_PORT: String(ingress),
      RESTATE_ADMIN__BIND_PORT: String(admin),
      RESTATE_WORKER__INVOKER__CONCURRENT_INVOCATIONS_LIMIT: "100",
      RESTATE_LOG_FILTER: "warn",
    };
    const open = async () => {
      const server = launch(program, ["--base-dir", join(dataDir, "restate"), "--no-logo"], { env });
      const caller = httpCaller(url);
      const healthy = () => caller.call("GET", "/restate/health").then(() => true);
      await eventually("restate answers", healthy, { seconds: 30, everyMs: 5 });
      caller.close();
      return server;
    };
    return serverOf({ url, called: { adminUrl: `http://127.0.0.1:${admin}`, agentPort } }, open);
  },

  async connect(connection, shapes) {
    const [caller, admin, paths] = [httpCaller(connection.url), adminOf(connection), pathsOf(shapes)];
    let next = 0;
    const invoke = <Answer>(payload: Payload, how: string) =>
      caller.call<Answer>("POST", paths[next++ % paths.length] + how, payload, { "idempotency-key": randomUUID() });
    return {
      submit: async (payload) => (await invoke<{ invocationId: string }>(payload, "/send")).invocationId,
      run: (payload) => invoke<Result>(payload, ""),
      read: (id) =>
        caller.call<Result>("GET", `/restate/invocation/${id}/output`).catch((error: { status?: number }) => {
          // Not there yet, or never heard of.
          if (error.status === 470 || error.status === 404) return undefined;
          throw error;
        }),
      async completed() {
        const query = "select count(1) as n from sys_invocation where status = 'completed'";
        return (await admin.call<{ rows: { n: number }[] }>("POST", "/query", { query })).rows[0]?.n ?? 0;
      },
      async close() {
        caller.close();
        admin.close();
      },
    };
  },

  async agents(connection, shape, handler) {
    const sdk = await loadPeer<Restate>("@restatedev/restate-sdk");
    const handlers = { run: (_context: unknown, payload: Payload) => handler(payload) };
    const [name, make] = single(shape) ? (["bench", sdk.service] as const) : ([shape.prefix, sdk.object] as const);
    const port = (single(shape) && connection.called?.agentPort) || (await freePort());
    await sdk.serve({ services: [make({ name, handlers })], port });
    const admin = adminOf(connection);
    const uri = `http://127.0.0.1:${port}/`;
    const { deployments } = await admin.call<{ deployments: { uri?: string }[] }>("GET", "/deployments");
    // Restate goes on calling an address it knows.
    if (!deployments.some((known) => known.uri === uri)) await admin.call("POST", "/deployments", { uri });
    return { close: async () => admin.close() };
  },
};
