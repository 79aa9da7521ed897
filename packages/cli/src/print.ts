import { type Column, table } from "./format.ts";
import type { Io } from "./io.ts";

export const formats = ["table", "wide", "json", "yaml"] as const;
export type Format = (typeof formats)[number];

export const isDocument = (format: Format): format is "json" | "yaml" => format === "json" || format === "yaml";

/** An object as JSON or YAML. */
export async function document(io: Io, format: Format, value: unknown): Promise<void> {
  if (format === "yaml") {
    const { stringify } = await import("./yaml.ts");
    io.out(stringify(value, { lineWidth: 0 }));
  } else io.out(`${JSON.stringify(value, null, 2)}\n`);
}

/** One of those that come one after another: a line of JSON, or a document of YAML. */
export async function entry(io: Io, format: "json" | "yaml", value: unknown): Promise<void> {
  if (format === "json") io.out(`${JSON.stringify(value)}\n`);
  else {
    io.out("---\n");
    await document(io, format, value);
  }
}

export interface TableOf<Row> {
  readonly columns: readonly Column<Row>[];
  /** Shown with `-o wide` besides. */
  readonly wide?: readonly Column<Row>[];
  /** Said when there are none. */
  readonly empty: string;
}

export const columnsOf = <Row>({ columns, wide }: TableOf<Row>, format: Format): readonly Column<Row>[] =>
  format === "wide" ? [...columns, ...(wide ?? [])].map(({ max: _, ...column }) => column) : columns;

export async function rows<Row>(
  io: Io,
  format: Format,
  items: readonly Row[],
  shape: TableOf<Row>,
  more?: string,
): Promise<void> {
  if (isDocument(format)) return document(io, format, { items });
  if (items.length === 0) io.err(`${shape.empty}\n`);
  else io.out(table(items, columnsOf(shape, format), io));
  if (more) io.err(`${more}\n`);
}
