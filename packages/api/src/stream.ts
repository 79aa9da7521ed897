import { EventLog, requestErrors } from "@waggle/core";
import type { Answer, Call } from "./route.ts";

/** Silence after which a comment is sent, so that no proxy takes the stream for dead. */
const heartbeatMs = 15_000;
/** A client that lost the stream comes back after this long. */
const reconnectMs = 1000;

/** How much a media type is wished for: RFC 9110, 12.4.2. 0 where it is not named, or refused. */
function quality(accept: string, type: string): number {
  for (const range of accept.toLowerCase().split(",")) {
    const [name, ...parameters] = range.split(";").map((part) => part.trim());
    if (name !== type) continue;
    const weight = parameters.find((parameter) => parameter.startsWith("q="))?.slice(2);
    return weight === undefined ? 1 : Number(weight) || 0;
  }
  return 0;
}

/** Asked for by name, and no less than JSON. */
export function wantsStream(accept = ""): boolean {
  const wish = quality(accept, "text/event-stream");
  return wish > 0 && wish >= quality(accept, "application/json");
}

/** `Last-Event-ID` holds over `after`: a browser that reconnects sends both. */
export function afterOf(call: Call, after: number): number {
  const last = call.request.header("last-event-id");
  if (last === undefined || last === "") return after;
  if (/^\d{1,15}$/.test(last)) return Number(last);
  throw requestErrors.invalid("Last-Event-ID is not a sequence number", {
    errors: [{ path: "Last-Event-ID", message: "expected a sequence number" }],
  });
}

/**
 * Events as server-sent events: history, then live. It reads on only as fast as the client takes, and ends when the
 * client leaves, the server stops, the key it was opened with is revoked, or the task it is of is deleted.
 * @see https://html.spec.whatwg.org/multipage/server-sent-events.html
 */
export function eventStream(call: Call, query: { after: number; types?: string | undefined; taskId?: string }): Answer {
  const headers = { "cache-control": "no-store, no-transform", "x-accel-buffering": "no" };
  const answer = { status: 200, type: "text/event-stream", headers };
  if (call.request.method === "HEAD") return { ...answer, text: "" };
  const { scope } = call;
  const { clock } = scope.ports;
  const { metrics } = call.shared;
  const encoder = new TextEncoder();
  const stop = new AbortController();
  const outer = call.request.signal;
  const end = () => stop.abort();
  if (outer.aborted) end();
  else outer.addEventListener("abort", end, { once: true });
  const off = call.onRevoked(end);
  const { taskId } = query;
  /** A key revoked by another process, or before anybody listened, shows when it is looked at; so does a task that is gone. */
  let checkedAt = Number.NEGATIVE_INFINITY;
  const check = async () => {
    if (clock.now() - checkedAt < heartbeatMs) return;
    checkedAt = clock.now();
    if (!(await call.stillAllowed()) || (taskId !== undefined && !(await EventLog.hasTask(scope, taskId)))) end();
  };
  const events = EventLog.follow(scope, { ...query, signal: stop.signal });
  let next: Promise<IteratorResult<EventLog.Info>> | undefined;
  let closed = false;
  const close = () => {
    if (closed) return;
    closed = true;
    metrics.streams.open--;
    off();
    outer.removeEventListener("abort", end);
    end();
    void next?.catch(() => {});
    void events.return?.(undefined);
  };
  metrics.streams.open++;
  const stream = new ReadableStream<Uint8Array>(
    {
      start(controller) {
        controller.enqueue(encoder.encode(`retry: ${reconnectMs}\n\n`));
      },
      async pull(controller) {
        try {
          next ??= events.next();
          let cancel = () => {};
          const silence = new Promise<undefined>((resolve) => {
            cancel = clock.after(heartbeatMs, () => resolve(undefined));
          });
          const result = await Promise.race([next, silence]).finally(() => cancel());
          await check();
          if (!stop.signal.aborted) {
            if (result === undefined) return controller.enqueue(encoder.encode(":\n\n"));
            next = undefined;
            if (!result.done) return controller.enqueue(encoder.encode(eventText(result.value)));
          }
        } catch {
          // The client comes back with Last-Event-ID and misses nothing.
        }
        close();
        controller.close();
      },
      cancel: close,
    },
    { highWaterMark: 8 },
  );
  return { ...answer, stream };
}

const eventText = (event: EventLog.Info) =>
  `id: ${event.sequence}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
