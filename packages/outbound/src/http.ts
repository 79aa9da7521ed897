import * as http from "node:http";
import * as https from "node:https";
import { deliveryErrors, isError, type OutboundAnswer, requestErrors } from "@waggle/core";
import { type Address, addressOf, type Resolve, type TargetRules } from "./guard.ts";

const answerBytes = 64 * 1024;

export interface HttpOptions {
  readonly rules: TargetRules;
  readonly resolve?: Resolve | undefined;
  /** From the start to the headers of the answer. */
  readonly headersSeconds: number;
  /** The whole exchange. */
  readonly totalSeconds: number;
  readonly closing: AbortSignal;
}

export interface HttpRequest {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  readonly timeoutSeconds?: number;
}

const words: Readonly<Record<string, string>> = {
  ECONNREFUSED: "the connection was refused",
  ECONNRESET: "the connection was closed before an answer came",
  ENOTFOUND: "its host name has no address",
  EAI_AGAIN: "its host name could not be looked up",
  EHOSTUNREACH: "its host cannot be reached",
  ENETUNREACH: "its network cannot be reached",
  ETIMEDOUT: "the connection was not made in time",
};

/** One POST on a connection of its own, to an address that was checked. Redirects are answers like any other. */
export async function post(request: HttpRequest, options: HttpOptions): Promise<OutboundAnswer> {
  const { closing, headersSeconds } = options;
  const totalSeconds = Math.min(options.totalSeconds, request.timeoutSeconds ?? Number.POSITIVE_INFINITY);
  const stop = new AbortController();
  const late = (what: string, seconds: number) =>
    setTimeout(() => stop.abort(deliveryErrors.failed(`${what} within ${seconds} s`)), seconds * 1000);
  const headers = late("no answer began", Math.min(headersSeconds, totalSeconds));
  const total = late("the answer was not whole", totalSeconds);
  const close = () => stop.abort(requestErrors.notReady("the server is stopping"));
  if (closing.aborted) close();
  closing.addEventListener("abort", close);
  const aborted = new Promise<never>((_, reject) => {
    stop.signal.addEventListener("abort", () => reject(stop.signal.reason));
    if (stop.signal.aborted) reject(stop.signal.reason);
  });
  aborted.catch(() => {});
  try {
    const url = new URL(request.url);
    const address = await Promise.race([addressOf(url, options.rules, options.resolve), aborted]);
    return await Promise.race([exchange(url, address, request, stop.signal, () => clearTimeout(headers)), aborted]);
  } catch (error) {
    if (isError(error)) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    throw deliveryErrors.failed(words[code ?? ""] ?? (message || code || "the connection failed"), { cause: error });
  } finally {
    clearTimeout(headers);
    clearTimeout(total);
    closing.removeEventListener("abort", close);
  }
}

function exchange(
  url: URL,
  { address, family }: Address,
  { headers, body }: HttpRequest,
  signal: AbortSignal,
  answering: () => void,
): Promise<OutboundAnswer> {
  return new Promise((resolve, reject) => {
    const request = (url.protocol === "https:" ? https : http).request(
      url,
      {
        method: "POST",
        agent: false,
        signal,
        maxHeaderSize: 16 * 1024,
        headers: {
          ...headers,
          "content-type": "application/json",
          "content-length": Buffer.byteLength(body),
          accept: "application/json",
          "accept-encoding": "identity",
          "user-agent": "waggle",
        },
        lookup: (_host, { all }, callback) =>
          all ? callback(null, [{ address, family }]) : callback(null, address, family),
      },
      (answer) => {
        answering();
        const chunks: Buffer[] = [];
        let size = 0;
        answer.on("data", (chunk: Buffer) => {
          size += chunk.length;
          if (size > answerBytes) {
            reject(deliveryErrors.answerTooLarge(`the answer is larger than ${answerBytes} bytes`));
            request.destroy();
          } else chunks.push(chunk);
        });
        answer.on("end", () => {
          const seconds = Number(answer.headers["retry-after"]);
          resolve({
            status: answer.statusCode ?? 0,
            body: Buffer.concat(chunks).toString("utf8"),
            ...(seconds > 0 && { retryAfterSeconds: seconds }),
          });
        });
        answer.on("error", reject);
      },
    );
    request.on("error", reject);
    request.end(body);
  });
}
