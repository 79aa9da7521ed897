import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

/** How likely each fault is for one piece of data that passes. */
export interface Weather {
  readonly delay: number;
  /** Part of it passes, then the connection ends. */
  readonly cut: number;
  /** Nothing passes any more in this direction, and nobody is told. */
  readonly halfOpen: number;
  /** A whole request that makes something goes a second time, on a connection of its own. */
  readonly repeat: number;
}
export const fair: Weather = { delay: 0, cut: 0, halfOpen: 0, repeat: 0 };
export const foul: Weather = { delay: 0.3, cut: 0.03, halfOpen: 0.02, repeat: 0.2 };

export interface FaultProxy {
  readonly url: string;
  weather: Weather;
  /** Ends every connection there is. */
  cutAll(): void;
  readonly counts: { delayed: number; cut: number; halfOpen: number; repeated: number };
  close(): void;
}

/** Half-open connections are ended after this, as a network that lost a route would sooner or later. */
const halfOpenMs = 8_000;

/**
 * Stands between clients and a server on loopback, and treats connections as a bad network would. Bytes of one connection keep
 * their order, as TCP promises; requests on several overtake one another when one is delayed.
 */
export async function openProxy(port: number, random: () => number): Promise<FaultProxy> {
  const open = new Set<Socket>();
  const counts = { delayed: 0, cut: 0, halfOpen: 0, repeated: 0 };
  const happens = (chance: number) => chance > 0 && random() < chance;

  function pass(from: Socket, to: Socket, outward: boolean): void {
    let last: Promise<unknown> = Promise.resolve();
    let silent = false;
    from.on("data", (bytes: Buffer) => {
      const { weather } = proxy;
      if (silent) return;
      if (happens(weather.halfOpen)) {
        silent = true;
        counts.halfOpen++;
        setTimeout(() => end(from, to), halfOpenMs).unref();
        return;
      }
      const cut = happens(weather.cut);
      if (outward && happens(weather.repeat)) repeat(bytes);
      const wait = happens(weather.delay) ? random() * 200 : 0;
      if (wait > 0) counts.delayed++;
      last = last.then(async () => {
        if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
        if (to.destroyed) return;
        to.write(cut ? bytes.subarray(0, Math.floor(random() * bytes.length)) : bytes);
        if (!cut) return;
        counts.cut++;
        end(from, to);
      });
    });
    from.on("end", () => void last.then(() => to.end()));
    from.on("error", () => end(from, to));
    from.on("close", () => {
      open.delete(from);
      void last.then(() => to.destroy());
    });
  }

  function end(...sockets: readonly Socket[]): void {
    for (const socket of sockets) socket.resetAndDestroy();
  }

  /** Its answer reaches nobody. */
  function repeat(bytes: Buffer): void {
    const text = bytes.toString("latin1");
    const body = text.indexOf("\r\n\r\n") + 4;
    const length = Number(/\r\ncontent-length: (\d+)/i.exec(text)?.[1]);
    if (!text.startsWith("POST /") || body < 4 || bytes.length !== body + length) return;
    counts.repeated++;
    const second = connect(port, "127.0.0.1", () => second.end(bytes));
    second.on("error", () => {});
    second.resume();
  }

  const server = createServer((client) => {
    const upstream = connect(port, "127.0.0.1");
    for (const socket of [client, upstream]) {
      socket.setNoDelay(true);
      open.add(socket);
    }
    pass(client, upstream, true);
    pass(upstream, client, false);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const proxy: FaultProxy = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    weather: fair,
    cutAll() {
      end(...open);
    },
    counts,
    close() {
      server.close();
      end(...open);
    },
  };
  return proxy;
}
