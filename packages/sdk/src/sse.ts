export interface SseMessage {
  id: string;
  event: string;
  data: string;
}

/**
 * Reads Server-Sent Events as the WHATWG specification says
 * (https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation), from text chunks cut
 * anywhere. Comments, which servers send to keep a connection open, yield nothing.
 */
export async function* parseSse(chunks: AsyncIterable<string>): AsyncGenerator<SseMessage, void, undefined> {
  let rest = "";
  let first = true;
  let id = "";
  let event = "";
  let data: string[] = [];
  for await (const chunk of chunks) {
    rest += chunk;
    if (first && rest.length > 0) {
      if (rest.charCodeAt(0) === 0xfeff) rest = rest.slice(1);
      first = false;
    }
    let start = 0;
    for (let end = nextEnd(rest, start); end >= 0; end = nextEnd(rest, start)) {
      const line = rest.slice(start, end);
      start = end + (rest[end] === "\r" && rest[end + 1] === "\n" ? 2 : 1);
      if (line === "") {
        if (data.length > 0) yield { id, event: event || "message", data: data.join("\n") };
        event = "";
        data = [];
        continue;
      }
      const colon = line.indexOf(":");
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
      if (field === "data") data.push(value);
      else if (field === "event") event = value;
      else if (field === "id" && !value.includes("\0")) id = value;
    }
    rest = rest.slice(start);
  }
}

/** Where the next line ends, or -1. A CR at the very end waits for the next chunk: an LF may follow. */
function nextEnd(text: string, from: number): number {
  for (let at = from; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === 10) return at;
    if (code === 13) return at + 1 < text.length ? at : -1;
  }
  return -1;
}
