import { type Client, createClient, readConfig } from "@waggle/sdk";
import { usage } from "./failure.ts";
import type { Io } from "./io.ts";
import { type Format, formats } from "./print.ts";

/** Options every command that speaks to a server has. */
export interface CommonOptions {
  url?: string;
  key?: string;
  output?: Format;
  json?: boolean;
}

export interface Context {
  readonly io: Io;
  readonly client: Client;
  readonly format: Format;
}

/** A server that restarts meanwhile is waited for this long, by what takes long. */
export const patientSeconds = 30;

/** As `withClient`, for what takes long; a server that is not there, or a key that may not, is told at once all the same. */
export async function withPatience<T>(
  io: Io,
  options: CommonOptions,
  attempt: (client: Client) => Promise<unknown>,
  run: (context: Context) => Promise<T>,
): Promise<T> {
  await withClient(io, options, ({ client }) => attempt(client));
  return patiently(io, options, run);
}

/** As `withClient`, for what takes long, once the server has answered. */
export const patiently = <T>(io: Io, options: CommonOptions, run: (context: Context) => Promise<T>): Promise<T> =>
  withClient(io, options, run, patientSeconds);

/** Runs a command with a client, and closes it. People wait for the answer, so it tries less often than a program would. */
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
  const format = options.json ? "json" : (options.output ?? readConfig().output ?? "table");
  if (!formats.includes(format as Format)) {
    throw usage(
      `output "${format}" in the configuration is none of ${formats.join(", ")}`,
      "waggle config unset output",
    );
  }
  return format as Format;
}
