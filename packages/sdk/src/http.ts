import http from "node:http";
import https from "node:https";
import { type Transport, timedOut, unreachable, type WireRequest } from "./transport.ts";

/** Long polls at one time; a browser or proxy in between would allow fewer. More wait their turn. */
export const maxWaits = 200;

/** The Node transport: `node:http` with connections kept open costs a fifth of what global fetch does. */
export function httpTransport(url: string): Transport {
  const base = new URL(url);
  const secure = base.protocol === "https:";
  const { request: start, Agent } = secure ? https : http;
  // Node closes idle server connections after 5 s; ours go first, so that a request never meets a closing one.
  const options = { keepAlive: true, scheduling: "lifo", timeout: 4_000 } as const;
  const calls = new Agent({ ...options, maxSockets: 256 });
  const waits = new Agent({ ...options, maxSockets: maxWaits });
  const streams = new Agent({ keepAlive: false });
  const fixed = {
    protocol: base.protocol,
    host: base.hostname.replace(/^\[|\]$/g, ""),
    port: base.port || (secure ? 443 : 80),
  };
  const prefix = base.pathname.replace(/\/$/, "");

  const begin = (request: WireRequest, agent: http.Agent, answered: (response: http.IncomingMessage) => void) =>
    new Promise<never>((_, reject) => {
      const { signal, body } = request;
      if (signal?.aborted) return reject(signal.reason);
      const call = start({
        ...fixed,
        agent: agent as https.Agent,
        method: request.method,
        path: prefix + request.path,
        headers:
          body === undefined ? request.headers : { ...request.headers, "content-length": Buffer.byteLength(body) },
        timeout: request.timeoutMs,
      });
      const abort = signal && (() => call.destroy());
      if (abort) {
        signal.addEventListener("abort", abort, { once: true });
        call.once("close", () => signal.removeEventListener("abort", abort));
      }
      let silent = false;
      const failed = (error: unknown) =>
        reject(signal?.aborted ? signal.reason : silent ? timedOut(url, request.timeoutMs) : unreachable(url, error));
      call.on("timeout", () => {
        silent = true;
        call.destroy();
      });
      call.on("error", failed);
      call.on("response", (response) => {
        response.on("error", failed);
        response.setEncoding("utf8");
        answered(response);
      });
      call.end(body);
    });
  const headerOf = (response: http.IncomingMessage) => (name: string) => response.headers[name] as string | undefined;

  return {
    send: (request) =>
      new Promise((resolve, reject) => {
        begin(request, request.waits ? waits : calls, (response) => {
          let text = "";
          response.on("data", (chunk: string) => {
            text += chunk;
          });
          response.on("end", () => resolve({ status: response.statusCode ?? 0, header: headerOf(response), text }));
        }).catch(reject);
      }),
    open: (request) =>
      new Promise((resolve, reject) => {
        let opened = false;
        let broken: unknown;
        begin(request, streams, (response) => {
          opened = true;
          async function* chunks() {
            try {
              for await (const chunk of response) yield chunk as string;
            } catch (error) {
              throw broken ?? (request.signal?.aborted ? request.signal.reason : unreachable(url, error));
            } finally {
              response.destroy();
            }
          }
          resolve({ status: response.statusCode ?? 0, header: headerOf(response), chunks: chunks() });
        }).catch((error: unknown) => {
          if (opened) broken = error;
          else reject(error);
        });
      }),
    close() {
      calls.destroy();
      waits.destroy();
      streams.destroy();
    },
  };
}
