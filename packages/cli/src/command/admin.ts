import * as columns from "../columns.ts";
import { type CommonOptions, withClient } from "../context.ts";
import { exit, usage } from "../failure.ts";
import { findKey } from "../find.ts";
import { table } from "../format.ts";
import { type Io, painter } from "../io.ts";
import { columnsOf, document } from "../print.ts";

interface LimitOptions extends CommonOptions {
  concurrency?: number;
  rate?: { limit: number; perSeconds: number };
}
export const setLimit = (io: Io, key: string, options: LimitOptions): Promise<number> => {
  const { concurrency, rate } = options;
  if (concurrency === undefined && rate === undefined)
    throw usage("give --concurrency, --rate or both", "waggle limit set openai --rate 100/1m");
  return withClient(io, options, async ({ client, format }) => {
    const limit = await client.limits.put(key, {
      ...(concurrency !== undefined && { concurrency }),
      ...(rate && { rate }),
    });
    if (format === "json" || format === "yaml") await document(io, format, limit);
    else io.out(table([limit], columnsOf(columns.limits, format), io));
    return exit.ok;
  });
};

interface KeyOptions extends CommonOptions {
  role: "admin" | "operator" | "client" | "reader";
  name?: string;
  tenant?: string;
}
export const createKey = (io: Io, { role, name, tenant, ...options }: KeyOptions): Promise<number> =>
  withClient(io, options, async ({ client, format }) => {
    const made = await client.keys.create({
      role,
      ...(name !== undefined && { name }),
      ...(tenant !== undefined && { tenant }),
    });
    if (format === "json" || format === "yaml") await document(io, format, made);
    else {
      io.out(`${made.key}\n`);
      io.err(
        `${painter(io.colour)("dim", `${made.id}, role ${made.role}, tenant ${made.tenant}. It is shown this once; keep it safe.`)}\n`,
      );
    }
    return exit.ok;
  });

export const revokeKey = (io: Io, text: string, options: CommonOptions): Promise<number> =>
  withClient(io, options, async ({ client }) => {
    const id = await findKey(client, text);
    await client.keys.revoke(id);
    io.out(`${id}  revoked\n`);
    return exit.ok;
  });
