import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { type AuditReport, findConnection, WaggleConnectionError } from "@waggle/sdk";
import { type CommonOptions, formatOf, withClient } from "../context.ts";
import { exit, Failure } from "../failure.ts";
import { type Column, safe } from "../format.ts";
import { type Io, painter } from "../io.ts";
import { document, isDocument, rows } from "../print.ts";

type Finding = AuditReport["findings"][number];

interface DeepOptions extends CommonOptions {
  data?: string;
  tenant?: string;
}

/** Compares every row of the store with those it has to agree with: of a server, or of the folder of one that is stopped. */
export async function deep(io: Io, options: DeepOptions): Promise<number> {
  const report = options.data === undefined ? await ofServer(io, options) : await ofFolder(options.data);
  const format = formatOf(options);
  if (isDocument(format)) await document(io, format, report);
  else await show(io, report);
  return report.found === 0 ? exit.ok : exit.failed;
}

async function ofServer(io: Io, options: DeepOptions): Promise<AuditReport> {
  const { tenant } = options;
  try {
    return await withClient(io, options, ({ client }) => client.status.audit(tenant === undefined ? {} : { tenant }));
  } catch (error) {
    const { dataDir, source } = findConnection(options);
    // The server of this machine's own folder is stopped: then the folder can be read.
    const own = tenant === undefined && dataDir !== undefined && (source.url === dataDir || source.url === "default");
    if (!own || !(error instanceof WaggleConnectionError)) throw error;
    return ofFolder(dataDir);
  }
}

async function ofFolder(data: string): Promise<AuditReport> {
  const dataDir = resolve(data);
  if (!existsSync(join(dataDir, "format.json")))
    throw new Failure(
      exit.notFound,
      `${dataDir} holds no data of a server`,
      "name the folder that `waggle dev` was given",
    );
  const { auditFolder } = await import("@waggle/local");
  try {
    return await auditFolder(dataDir);
  } catch (error) {
    if ((error as { code?: string }).code !== "store.locked") throw error;
    throw new Failure(exit.refused, (error as Error).message, "leave --data out: its server reads it for you");
  }
}

const columns: readonly Column<Finding>[] = [
  { title: "FOUND", value: ({ code }) => code, colour: () => "red" },
  { title: "ABOUT", value: ({ subject }) => safe(subject), max: 40 },
  { title: "WHAT IS WRONG", value: ({ problem }) => safe(problem) },
];
const wide: readonly Column<Finding>[] = [{ title: "ROW", value: ({ row }) => safe(row) }];

async function show(io: Io, { tenants, rows: read, findings, found, unsettled, complete }: AuditReport): Promise<void> {
  const paint = painter(io.colour);
  const total = Object.values(read).reduce((sum, each) => sum + each, 0);
  const kinds = Object.entries(read)
    .sort(([, a], [, b]) => b - a)
    .map(([kind, count]) => `${count} ${kind}`);
  io.out(
    `Read ${total} rows of ${tenants.length} ${tenants.length === 1 ? "tenant" : "tenants"}: ${kinds.join(", ")}\n\n`,
  );
  if (found > 0) {
    await rows(io, "wide", findings, { columns, wide, empty: "" });
    if (found > findings.length) io.out(`… and ${found - findings.length} more\n`);
    io.out("\nWhat puts it right:\n");
    for (const [code, repair] of new Map(findings.map((each) => [each.code, each.repair])))
      io.out(`  ${code.padEnd(20)} ${paint("dim", `→ ${repair}`)}\n`);
    io.out("\n");
  }
  if (unsettled > 0)
    io.out(
      `${unsettled} rows changed while they were looked at: nothing is said of them. Ask again when less is going on.\n`,
    );
  if (!complete) io.out("Rows that no other leads to were not read.\n");
  io.out(
    found === 0
      ? "Every row agrees with the others.\n"
      : `${found} ${found === 1 ? "thing is" : "things are"} wrong.\n`,
  );
}
