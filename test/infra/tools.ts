import { openApiText } from "../../packages/api/src/openapi.ts";
import { adminKey, type Cloud } from "./cloud.ts";

export type Content = Readonly<Record<string, unknown>>;
// biome-ignore lint/suspicious/noExplicitAny: answers of many routes
type Body = any;

export interface Assigned {
  readonly task: { readonly id: string };
  readonly fence: number;
}
interface Registered {
  readonly id: string;
  readonly token: string;
}

/** Longer than a row holds: it lies in the bucket. */
export const large = "x".repeat(80 * 1024);
export const plain = { type: "t", requires: [{ capability: "work" }] } as const;
/** A task that meets every kind of row there is on its way to an agent. */
export const rich = {
  ...plain,
  type: "report",
  concurrency: [{ key: "db", limit: 1 }],
  fairKey: "team",
  stickyKey: "customer",
  tags: ["nightly"],
} as const;

/** What clients and agents can do, each as one call; all is done that follows when it resolves. */
export function toolsOf(cloud: Cloud) {
  const documented = JSON.parse(openApiText("1.0.0", cloud.routes())) as {
    paths: Record<string, Record<string, unknown>>;
  };
  const left = new Map(
    Object.entries(documented.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => [
        `${method.toUpperCase()} ${path}`,
        new RegExp(`^${path.replaceAll(".", "\\.").replaceAll(/\{\w+\}/g, "[^/]+")}$`),
      ]),
    ),
  );

  /** One call of the API, which must end as said. */
  async function call(
    method: string,
    path: string,
    content?: unknown,
    {
      key = adminKey,
      status = [200, 201, 204, 207],
      headers = {},
    }: { key?: string; status?: number[]; headers?: Record<string, string> } = {},
  ): Promise<Body> {
    const answer = await cloud.request(method, path, content, key, headers);
    const text = headers.accept ? "" : await answer.text();
    if (headers.accept) await answer.body?.cancel();
    if (!status.includes(answer.status)) throw new Error(`${method} ${path}: ${answer.status} ${text.slice(0, 1000)}`);
    const [plain = ""] = path.split("?");
    const fitting = [...left].filter(([route, pattern]) => route.startsWith(`${method} `) && pattern.test(plain));
    const exact = fitting.find(([route]) => route === `${method} ${plain}`) ?? fitting[0];
    if (exact) left.delete(exact[0]);
    return text === "" || !text.startsWith("{") ? {} : JSON.parse(text);
  }
  const submit = async (more: Content = {}): Promise<string> => {
    const { task } = await call("POST", "/v1/tasks", { ...plain, ...more });
    await cloud.quiet();
    return task.id;
  };
  const register = async (name: string, more: Content = {}): Promise<Registered> => {
    const { agent, token } = await call("POST", "/v1/agents", {
      name,
      capabilities: [{ name: "work" }],
      leaseSeconds: 30,
      ...more,
    });
    await cloud.quiet();
    return { id: agent.id, token };
  };
  const lease = async ({ id, token }: Registered, max = 1): Promise<Assigned[]> => {
    const { assignments } = await call("POST", `/v1/agents/${id}/lease`, { max }, { key: token });
    await cloud.quiet();
    return assignments;
  };
  const end = async (verb: string, { task, fence }: Assigned, { token }: Registered, content: Content = {}) => {
    const answer = await call("POST", `/v1/tasks/${task.id}/${verb}`, { fence, ...content }, { key: token });
    await cloud.quiet();
    return answer;
  };
  const remove = async ({ id }: Registered) => {
    await call("DELETE", `/v1/agents/${id}?mode=force`);
    await cloud.quiet();
  };

  const open = async (connectionId: string, { token }: Registered) => {
    const { statusCode } = await cloud.socket({
      requestContext: { eventType: "CONNECT", connectionId },
      headers: { "sec-websocket-protocol": `waggle.v1, bearer.${token}` },
    });
    if (statusCode !== 200) throw new Error(`connecting was answered ${statusCode}`);
    await say(connectionId, { op: "hello" });
  };
  /** @returns frames sent to the connection since */
  async function say(connectionId: string, ...frames: Content[]): Promise<Body[]> {
    const from = cloud.sent.length;
    await cloud.socket({ requestContext: { eventType: "MESSAGE", connectionId }, body: JSON.stringify(frames) });
    await cloud.quiet();
    return heard(connectionId, from);
  }
  const heard = (connectionId: string, from = 0): Body[] =>
    cloud.sent
      .slice(from)
      .flatMap((each) => (each.connectionId === connectionId ? [JSON.parse(each.text)].flat() : []));
  const given = (connectionId: string, from = 0): Assigned[] =>
    heard(connectionId, from).flatMap(({ op, assignments }) => (op === "assign" ? assignments : []));
  const close = async (connectionId: string) => {
    await cloud.socket({ requestContext: { eventType: "DISCONNECT", connectionId } });
    await cloud.quiet();
  };

  /** Routes of the API that were not called. */
  const missed = () => [...left.keys()];
  return { cloud, call, submit, register, lease, end, remove, open, say, given, close, missed };
}
export type Tools = ReturnType<typeof toolsOf>;
