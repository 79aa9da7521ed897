import { request, Agent as Sockets } from "node:http";

/** JSON over kept connections by nothing but node:http, the least a caller can pay. */
export interface HttpCaller {
  /** @throws with the answer's status and text when it is 300 or more; `status` is on the error */
  call<Answer>(method: string, path: string, content?: unknown, headers?: Record<string, string>): Promise<Answer>;
  close(): void;
}

export function httpCaller(url: string, common: Record<string, string> = {}, maxSockets = 64): HttpCaller {
  const sockets = new Sockets({ keepAlive: true, maxSockets });
  return {
    call: (method, path, content, more) =>
      new Promise((resolve, reject) => {
        const text = content === undefined ? "" : JSON.stringify(content);
        const headers = {
          ...common,
          ...more,
          ...(text === "" ? {} : { "content-type": "application/json", "content-length": Buffer.byteLength(text) }),
        };
        request(url + path, { method, agent: sockets, headers }, (response) => {
          let answer = "";
          response.setEncoding("utf8");
          response.on("data", (chunk: string) => {
            answer += chunk;
          });
          response.on("end", () => {
            const { statusCode: status = 0 } = response;
            if (status < 300) resolve(answer === "" ? undefined : JSON.parse(answer));
            else reject(Object.assign(new Error(`${method} ${path}: ${status} ${answer}`), { status }));
          });
        })
          .on("error", reject)
          .end(text);
      }),
    close: () => sockets.destroy(),
  };
}
