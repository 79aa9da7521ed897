import { Agent, request } from "node:http";
import type { Input } from "./calls.ts";
import type { Answer } from "./judge.ts";
import { overdue } from "./overdue.ts";

export interface Client {
  /** @throws when an answer is overdue, or the connection ends without one */
  send(input: Input, more: Readonly<Record<string, string>>): Promise<Answer>;
  close(): void;
}

/** Sends each target as it is: no client of the usual kind would. Event streams are left once they began. */
export function createClient(url: string, connections: number): Client {
  const agent = new Agent({ keepAlive: true, maxSockets: connections });
  const { hostname, port } = new URL(url);
  return {
    send: (input, more) =>
      new Promise((resolve, reject) => {
        const { method, target, body } = input;
        const headers: Record<string, string> = { ...input.headers, ...more };
        if (body !== undefined) headers["content-length"] = String(Buffer.byteLength(body));
        const sent = request({ agent, hostname, port, method, path: target, headers }, (response) => {
          const { statusCode: status = 0, headers } = response;
          if (headers["content-type"] === "text/event-stream") {
            answered();
            sent.destroy();
            resolve({ status, headers, text: "" });
            return;
          }
          let text = "";
          response.setEncoding("utf8");
          response.on("data", (chunk: string) => {
            text += chunk;
          });
          response.on("end", () => {
            answered();
            resolve({ status, headers, text });
          });
          response.on("error", reject);
        });
        const answered = overdue((error) => sent.destroy(error));
        sent.on("error", (error) => {
          answered();
          reject(error);
        });
        sent.end(body);
      }),
    close: () => agent.destroy(),
  };
}
