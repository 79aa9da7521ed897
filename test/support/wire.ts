import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

export interface Exchange {
  /** All that came, as latin-1, when the server closed the connection or `seconds` were over. */
  readonly text: string;
  readonly closed: boolean;
}

export function dial(url: string): Promise<Socket> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname, () => {
      socket.off("error", reject);
      // A reset shows as the close that follows it.
      socket.on("error", () => {});
      resolve(socket);
    });
    socket.once("error", reject);
  });
}

/** Sends exactly these bytes, and ends its own half of the connection only if told to. */
export async function exchange(
  url: string,
  parts: readonly (string | Uint8Array)[],
  { seconds = 30, halfClose = false }: { readonly seconds?: number; readonly halfClose?: boolean } = {},
): Promise<Exchange> {
  const socket = await dial(url);
  let text = "";
  socket.setEncoding("latin1").on("data", (chunk: string) => {
    text += chunk;
  });
  const late = new AbortController();
  const closed = new Promise<boolean>((resolve) => socket.once("close", () => resolve(true)));
  for (const part of parts) socket.write(part);
  if (halfClose) socket.end();
  const over = sleep(seconds * 1000, false, { signal: late.signal }).catch(() => false);
  const ended = await Promise.race([closed, over]);
  late.abort();
  socket.destroy();
  return { text, closed: ended };
}
