import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { startLocal } from "@waggle/local";
import { createClient, defaultPort } from "@waggle/sdk";

export type Server = { url: string; key: string; own: boolean; note?: string; stop(): Promise<void> };

const codeOf = (error: unknown) => (error as { code?: unknown } | undefined)?.code;
const inUse = (error: unknown): boolean =>
  codeOf(error) === "EADDRINUSE" ||
  (error instanceof Error &&
    (/EADDRINUSE|in use/.test(error.message) || (error.cause !== undefined && inUse(error.cause))));

/** The server that runs on the data folder, or one of our own in this process. */
export const openServer = async (options: {
  dataDir: string;
  port?: number;
  version: string;
  log(line: string): void;
}): Promise<Server> => {
  const { dataDir, version, log } = options;
  const running = await findRunning(dataDir);
  if (running)
    return {
      ...running,
      own: false,
      note: "a server was running on this data folder already; it is used",
      stop: async () => {},
    };
  const open = async (port: number) => {
    const local = await startLocal({ dataDir, host: "127.0.0.1", port, version, log });
    return { url: local.url, key: local.adminKey, own: true, stop: () => local.stop() };
  };
  if (options.port !== undefined)
    return open(options.port).catch((error) => {
      throw codeOf(error) === "EADDRINUSE"
        ? new Error(`port ${options.port} is taken; without --port a free one is found`)
        : error;
    });
  try {
    return await open(defaultPort);
  } catch (error) {
    if (!inUse(error)) throw error;
    return { ...(await open(0)), note: `port ${defaultPort} is taken, so a free one is used` };
  }
};

const findRunning = async (dataDir: string) => {
  try {
    const { url } = JSON.parse(await readFile(join(dataDir, "server.json"), "utf8")) as { url?: unknown };
    const key = (await readFile(join(dataDir, "admin.key"), "utf8")).trim();
    if (typeof url !== "string" || key === "") return undefined;
    const client = createClient({ url, key, retrySeconds: 0, timeoutSeconds: 2 });
    try {
      // With the key: another program's server on that port would not know it.
      await client.status.get();
      return { url: client.url, key };
    } finally {
      client.close();
    }
  } catch {
    return undefined; // no server, or one that is gone: its file stayed behind
  }
};
