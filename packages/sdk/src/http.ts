import http from "node:http";
import https from "node:https";
import { type Transport, timedOut, unreachable } from "./transport.ts";
import { openWire } from "./wire.ts";

/** Long polls at one time; a browser or proxy in between would allow fewer. More wait their turn. */
export const maxWaits = 200;
const maxCalls = 256;

/** The Node transport: short calls on connections of our own, long polls apart from them, streams by `node:http`. */
export function httpTransport(url: string): Transport {
  const base = new URL(url);
  const { request: start } = base.protocol === "https:" ? https : http;
  const calls = openWire(base, url, maxCalls);
  const waits = openWire(base, url, maxWaits);
  const streams = new Set<http.ClientRequest>();

  return {
    send: (request) => (request.waits ? waits : calls).send(request),
    open: (request) =>
      new Promise((resolve, reject) => {
        const { signal } = request;
        if (signal?.aborted) return reject(signal.reason);
        const path = base.pathname.replace(/\/$/, "") + request.path;
        const call = start(new URL(path, base), { agent: false, headers: request.headers, timeout: request.timeoutMs });
        streams.add(call);
        const abort = () => call.destroy();
        signal?.addEventListener("abort", abort, { once: true });
        call.once("close", () => {
          streams.delete(call);
          signal?.removeEventListener("abort", abort);
        });
        let silent = false;
        const told = (error: unknown) =>
          signal?.aborted ? signal.reason : silent ? timedOut(url, request.timeoutMs) : unreachable(url, error);
        call.on("timeout", () => {
          silent = true;
          call.destroy();
        });
        call.on("error", (error) => reject(told(error)));
        call.on("response", (response) => {
          response.setEncoding("utf8");
          async function* chunks() {
            try {
              for await (const chunk of response) yield chunk as string;
            } catch (error) {
              throw told(error);
            } finally {
              response.destroy();
            }
          }
          resolve({
            status: response.statusCode ?? 0,
            header: (name) => response.headers[name] as string | undefined,
            chunks: chunks(),
          });
        });
        call.end();
      }),
    close() {
      calls.close();
      waits.close();
      for (const call of streams) call.destroy();
    },
  };
}
