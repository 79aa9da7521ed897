import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { verifyWebhook, type WebhookMessage } from "@waggle/sdk";
import { eventually } from "./eventually.ts";

export interface Received {
  readonly id: string;
  readonly message: WebhookMessage;
}
export type Assigned = Extract<WebhookMessage, { type: "task.assigned" }>["data"];
/** What to answer; nothing leaves the call unanswered. */
export type Answer = { readonly status: number; readonly body?: unknown } | undefined;

export interface Receiver {
  readonly url: string;
  /** Set once the agent is registered; until then every signature counts. */
  secret: string | undefined;
  readonly received: readonly Received[];
  assigned(): Assigned[];
  answer(how: (message: WebhookMessage, nth: number) => Answer | Promise<Answer>): void;
  /** Once so many have come. */
  count(atLeast: number, seconds?: number): Promise<readonly Received[]>;
  /** Hangs up and listens no more; `up` listens again on the same port. */
  down(): Promise<void>;
  up(): Promise<void>;
}

/** An agent with a webhook, as its author would write it: on a real port, and it trusts nothing that is not signed. */
export async function openReceiver(): Promise<Receiver> {
  const received: Received[] = [];
  let how: Parameters<Receiver["answer"]>[0] = () => ({ status: 202 });
  let port = 0;
  const send = (response: ServerResponse, answer: Answer) => {
    if (answer === undefined) return;
    const text = answer.body === undefined ? "" : JSON.stringify(answer.body);
    response.writeHead(answer.status, { "content-type": "application/json" }).end(text);
  };
  const listen = async () => {
    const server = createServer(async (request, response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      const body = Buffer.concat(chunks).toString();
      try {
        const message =
          receiver.secret === undefined
            ? (JSON.parse(body) as WebhookMessage)
            : await verifyWebhook(receiver.secret, request.headers, body);
        received.push({ id: String(request.headers["webhook-id"]), message });
        send(response, await how(message, received.length));
      } catch (error) {
        send(response, { status: 401, body: { why: String(error) } });
      }
    }).listen(port, "127.0.0.1");
    await once(server, "listening");
    port = (server.address() as AddressInfo).port;
    return server;
  };
  let server = await listen();
  const receiver: Receiver = {
    url: `http://127.0.0.1:${port}/work`,
    secret: undefined,
    received,
    assigned: () => received.flatMap(({ message }) => (message.type === "task.assigned" ? [message.data] : [])),
    answer: (next) => {
      how = next;
    },
    count: (atLeast, seconds = 10) =>
      eventually(`${atLeast} calls have come`, () => received.length >= atLeast && received, { seconds }),
    async down() {
      server.close();
      server.closeAllConnections();
      if (server.listening) await once(server, "close");
    },
    async up() {
      server = await listen();
    },
  };
  return receiver;
}
