import { type Client, createClient, readConfig } from "@waggle/sdk";
import { usage } from "./failure.ts";
import type { Io } from "./io.ts";
import { type Format, formats } from "./print.ts";

/** Options every command that speaks to a server has. */
export interface CommonOptions {
  url?: string;
  key?: string;
  output?: Format;
}

export interface Context {
  readonly io: Io;
  readonly client: Client;
  readonly format: Format;
}

/**
 * Runs a command with a client, and closes it. People wait for the answer, so it tries less often than a program would.
 * @param retrySeconds more for what takes long and should outlast a restart of the server
 */
export async function withClient<T>(
  io: Io,
  options: CommonOptions,
  run: (context: Context) => Promise<T>,
  retrySeconds = 1,
): Promise<T> {
  const client = createClient({
    retrySeconds,
    ...(options.url !== undefined && { url: options.url }),
    ...(options.key !== undefined && { key: options.key }),
  });
  try {
    return await run({ io, client, format: formatOf(options) });
  } finally {
    client.close();
  }
}

export function formatOf(options: CommonOptions): Format {
  const format = options.output ?? readConfig().output ?? "table";
  if (!formats.includes(format as Format)) {
    throw usage(
      `output "${format}" in the configuration is none of ${formats.join(", ")}`,
      "waggle config unset output",
    );
  }
  return format as Format;
}
