import { type Ports, problemType, requestErrors, toProblem } from "@waggle/core";
import { type Context, invocation } from "./lambda.ts";

/** A request to a function URL: https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html */
export interface UrlEvent {
  readonly rawPath: string;
  readonly rawQueryString: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly isBase64Encoded: boolean;
  readonly requestContext: {
    readonly domainName: string;
    readonly http: { readonly method: string; readonly sourceIp: string };
  };
}

/** What Lambda's Node runtime puts there: https://docs.aws.amazon.com/lambda/latest/dg/configuration-response-streaming.html */
declare const awslambda: {
  streamifyResponse<Handler>(handler: Handler): Handler;
  HttpResponseStream: { from(out: NodeJS.WritableStream, head: object): NodeJS.WritableStream };
};

type App = (request: Request, remoteAddress: string, ports: Ports) => Promise<Response>;

/** Left of an invocation when a stream is ended, so that it ends as one: its reader comes back for the rest. */
const endingMs = 3_000;

function requestOf(event: UrlEvent, signal: AbortSignal): Request {
  const { domainName, http } = event.requestContext;
  const search = event.rawQueryString === "" ? "" : `?${event.rawQueryString}`;
  const bodyless = event.body === undefined || http.method === "GET" || http.method === "HEAD";
  return new Request(`https://${domainName}${event.rawPath}${search}`, {
    method: http.method,
    headers: event.headers,
    signal,
    body: bodyless ? null : Buffer.from(event.body as string, event.isBase64Encoded ? "base64" : "utf8"),
  });
}

/** What no web request can be made of, such as TRACE or a header beyond Latin-1, is the caller's mistake and no error of the function, which raises an alarm. */
async function answerTo(
  event: UrlEvent,
  signal: AbortSignal,
  requestId: string,
  app: App,
  ports: Ports,
): Promise<Response> {
  let request: Request;
  try {
    request = requestOf(event, signal);
  } catch (error) {
    const { status, text } = toProblem(requestErrors.invalid(String(error)), requestId);
    return new Response(text, { status, headers: { "content-type": problemType } });
  }
  return await app(request, event.requestContext.http.sourceIp, ports);
}

/** An app of web requests as the handler of a function URL, its answers streamed. */
export const streamed = (component: string, app: App) =>
  awslambda.streamifyResponse((event: UrlEvent, out: NodeJS.WritableStream, context: Context) =>
    invocation(component, context, async (ports) => {
      const ending = new AbortController();
      const late = setTimeout(() => ending.abort(), context.getRemainingTimeInMillis() - endingMs);
      let gone = false;
      const leave = () => {
        gone = true;
        ending.abort();
      };
      out.on("close", leave).on("error", leave);
      try {
        const answer = await answerTo(event, ending.signal, context.awsRequestId, app, ports);
        const head = { statusCode: answer.status, headers: Object.fromEntries(answer.headers) };
        const body = awslambda.HttpResponseStream.from(out, head);
        // The head leaves with the first write, be it of nothing.
        body.write("");
        for await (const chunk of answer.body ?? []) {
          if (gone) break;
          if (!body.write(chunk)) await new Promise((resolve) => body.once("drain", resolve).once("close", resolve));
        }
        body.end();
      } finally {
        clearTimeout(late);
      }
    }),
  );
