import type { Api } from "./api.ts";
import { eventually } from "./eventually.ts";

export interface Message {
  readonly id: string | undefined;
  readonly event: string | undefined;
  readonly data: unknown;
}
export interface Stream {
  readonly messages: readonly Message[];
  /** Waits until so many messages have come, and gives all. */
  count(atLeast: number, seconds?: number): Promise<readonly Message[]>;
  close(): void;
}

/** Follows a server-sent event stream. */
export async function follow(api: Api, path: string, headers: Readonly<Record<string, string>> = {}): Promise<Stream> {
  const stopping = new AbortController();
  const response = await fetch(api.url + path, {
    headers: { authorization: `Bearer ${api.key}`, accept: "text/event-stream", ...headers },
    signal: stopping.signal,
  });
  if (response.status !== 200 || response.body === null)
    throw new Error(`${response.status}: ${await response.text()}`);
  const messages: Message[] = [];
  const read = async (body: ReadableStream<Uint8Array>) => {
    const decoder = new TextDecoder();
    let text = "";
    for await (const chunk of body) {
      text += decoder.decode(chunk, { stream: true });
      const blocks = text.split("\n\n");
      text = blocks.pop() ?? "";
      for (const block of blocks) {
        const field = (name: string) =>
          block
            .split("\n")
            .filter((line) => line.startsWith(`${name}:`))
            .map((line) => line.slice(name.length + 1).replace(/^ /, ""))
            .join("\n");
        if (field("data") === "") continue;
        messages.push({
          id: field("id") || undefined,
          event: field("event") || undefined,
          data: JSON.parse(field("data")),
        });
      }
    }
  };
  // The end of the stream, ours or the server's, shows in what did not come.
  void read(response.body).catch(() => {});
  return {
    messages,
    count: (atLeast, seconds = 10) =>
      eventually(`${atLeast} messages have come`, () => messages.length >= atLeast && messages, { seconds }),
    close: () => stopping.abort(),
  };
}
