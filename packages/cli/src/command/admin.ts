import type { Quota, Quotas, Retention } from "@waggle/sdk";
import * as columns from "../columns.ts";
import { type CommonOptions, withClient } from "../context.ts";
import { exit, usage } from "../failure.ts";
import { findKey } from "../find.ts";
import { duration, fields, table } from "../format.ts";
import { type Io, painter } from "../io.ts";
import { columnsOf, document, type Format, isDocument } from "../print.ts";

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
    if (isDocument(format)) await document(io, format, limit);
    else io.out(table([limit], columnsOf(columns.limits, format), io));
    return exit.ok;
  });
};

export const unsetLimit = (io: Io, key: string, options: CommonOptions): Promise<number> =>
  withClient(io, options, async ({ client, format }) => {
    await client.limits.remove(key);
    if (isDocument(format)) await document(io, format, { key });
    else io.out(`${key}  no limit\n`);
    return exit.ok;
  });

const keptText = (seconds: number): string => (seconds === 0 ? "for ever" : duration(seconds * 1000));

async function showRetention(io: Io, format: Format, retention: Retention): Promise<number> {
  if (isDocument(format)) await document(io, format, retention);
  else
    io.out(
      fields(
        [
          ["Tasks", `${keptText(retention.taskSeconds)} after they have finished`],
          ["Events", keptText(retention.eventSeconds)],
        ],
        io,
      ),
    );
  return exit.ok;
}

export const getRetention = (io: Io, options: CommonOptions): Promise<number> =>
  withClient(io, options, async ({ client, format }) => showRetention(io, format, await client.retention.get()));

interface RetentionOptions extends CommonOptions {
  tasks?: number;
  events?: number;
}
export const setRetention = (io: Io, { tasks, events, ...options }: RetentionOptions): Promise<number> => {
  if (tasks === undefined && events === undefined)
    throw usage("give --tasks, --events or both", "waggle retention set --tasks 30d --events 7d");
  return withClient(io, options, async ({ client, format }) => {
    const retention = await client.retention.put({
      ...(tasks !== undefined && { taskSeconds: tasks }),
      ...(events !== undefined && { eventSeconds: events }),
    });
    return showRetention(io, format, retention);
  });
};

async function showQuota(io: Io, format: Format, quota: Quota): Promise<number> {
  if (isDocument(format)) {
    await document(io, format, quota);
    return exit.ok;
  }
  const { quotas, usage } = quota;
  const of = (name: keyof Quota["usage"]) =>
    `${usage[name]}${quotas[name] === undefined ? ", not limited" : ` of ${quotas[name]}`}`;
  const { submits } = quotas;
  io.out(
    fields(
      [
        ["Tasks", of("tasks")],
        ["Bytes", of("bytes")],
        ["Waiting", of("waiting")],
        ["Agents", of("agents")],
        ["Submits", submits ? `${submits.limit} in ${duration(submits.perSeconds * 1000)}` : "not limited"],
      ],
      io,
    ),
  );
  return exit.ok;
}

export const getQuota = (io: Io, tenant: string, options: CommonOptions): Promise<number> =>
  withClient(io, options, async ({ client, format }) => showQuota(io, format, await client.quotas.get(tenant)));

type QuotaOptions = CommonOptions & Quotas;
export const setQuota = (io: Io, tenant: string, options: QuotaOptions): Promise<number> => {
  const { tasks, bytes, waiting, agents, submits, ...common } = options;
  const quotas = Object.fromEntries(
    Object.entries({ tasks, bytes, waiting, agents, submits }).filter(([, most]) => most !== undefined),
  );
  return withClient(io, common, async ({ client, format }) =>
    showQuota(io, format, await client.quotas.put(tenant, quotas)),
  );
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
    if (isDocument(format)) await document(io, format, made);
    else {
      io.out(`${made.key}\n`);
      io.err(
        `${painter(io.colour)("dim", `${made.id}, role ${made.role}, tenant ${made.tenant}. It is shown this once; keep it safe.`)}\n`,
      );
    }
    return exit.ok;
  });

export const revokeKey = (io: Io, text: string, options: CommonOptions): Promise<number> =>
  withClient(io, options, async ({ client, format }) => {
    const id = await findKey(client, text);
    await client.keys.revoke(id);
    if (isDocument(format)) await document(io, format, { id });
    else io.out(`${id}  revoked\n`);
    return exit.ok;
  });
